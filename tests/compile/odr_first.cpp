// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// With odr_second.cpp: both include everything and use it, and the program links. A function that
// is not inline would be defined twice; one with internal linkage would have two addresses.
//
// This one: C++17 with -ffast-math, glog's macros defined before anything else, every header by
// itself in the reverse of the usual order, LibTorch's umbrella last. odr_second.cpp is its opposite.
// What glog-style macros expand to cannot compile, so that using one of them is an error.
#define CHECK(condition) ]used[
#define CHECK_EQ(a, b) ]used[
#define CHECK_NE(a, b) ]used[
#define CHECK_LT(a, b) ]used[
#define CHECK_NOTNULL(pointer) ]used[
#define DCHECK(condition) ]used[
#define LOG(severity) ]used[
#define VLOG(level) ]used[
#include <torch/torch.h>
#include "reversed_headers.inc"

#include <cmath>
#include <cstdio>
#include <limits>

using ScaleFunction = double (*)(root_optim::LrScale, int64_t, int64_t);
ScaleFunction lr_scale_of_second();
double loss_after_steps_of_second();
bool refuses_nan_in_second();

static double loss_after_steps() {
  torch::nn::Linear model(16, 16);
  root_optim::Root optimizer(root_optim::param_groups(*model, root_optim::RootOptions(1e-3)));
  for (const at::Tensor& p : model->parameters()) p.mutable_grad() = p.detach().clone();
  optimizer.step();
  return model->weight.pow(2).sum().item<double>();
}

// -ffast-math lets the compiler assume that there is no NaN; the library asks the bits.
static bool refuses_nan() {
  try {
    root_optim::RootOptions(std::numeric_limits<double>::quiet_NaN()).validate();
  } catch (const c10::Error&) {
    return true;
  }
  return false;
}

int main() {
  ScaleFunction first = &root_optim::lr_scale;
  if (first != lr_scale_of_second()) {
    std::puts("root_optim::lr_scale has two addresses");
    return 1;
  }
  if (!refuses_nan() || !refuses_nan_in_second()) {
    std::puts("a learning rate of NaN was accepted");
    return 1;
  }
  return loss_after_steps() > 0 && loss_after_steps_of_second() > 0 ? 0 : 1;
}
