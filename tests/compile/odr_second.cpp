// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// See odr_first.cpp. This one: C++20 with every warning an error, LibTorch's umbrella first, then the
// macros that other libraries are known for, then every header by itself, shuffled.
#include <fcntl.h>
#include <torch/torch.h>
#if __has_include(<torch/csrc/distributed/c10d/ProcessGroup.hpp>)
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#endif
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <locale>
#include <numeric>
#include <random>
#include <sstream>
#include <system_error>

// glog, and what LibTorch makes of it
#undef CHECK
#undef CHECK_EQ
#undef CHECK_NE
#undef CHECK_LT
#undef CHECK_NOTNULL
#undef DCHECK
#undef LOG
#undef VLOG
#define CHECK(condition) ]used[
#define CHECK_EQ(a, b) ]used[
#define CHECK_NE(a, b) ]used[
#define CHECK_LT(a, b) ]used[
#define CHECK_NOTNULL(pointer) ]used[
#define DCHECK(condition) ]used[
#define LOG(severity) ]used[
#define VLOG(level) ]used[
#define ERROR ]used[
#define FATAL ]used[
#define INFO ]used[
#define WARNING ]used[
// X11
#define Above ]used[
#define Always ]used[
#define Below ]used[
#define Bool ]used[
#define Complex ]used[
#define Convex ]used[
#define CursorShape ]used[
#define False ]used[
#define Nonconvex ]used[
#define None ]used[
#define Status ]used[
#define Success ]used[
#define True ]used[
#define Unsorted ]used[
// complex.h, and letters that headers of matrix programs take
#undef I
#undef complex
#define I ]used[
#define M ]used[
#define U ]used[
#define N ]used[
#define complex ]used[
// Windows
#define DELETE ]used[
#define IN ]used[
#define OPTIONAL ]used[
#define OUT ]used[
#define far ]used[
#define interface ]used[
#define max(a, b) ]used[
#define min(a, b) ]used[
#define near ]used[
#define small ]used[
// Qt, Apple, sysmacros.h, GCC's own
#define check(x) ]used[
#define emit ]used[
#define foreach ]used[
#define major ]used[
#define minor ]used[
#define require(x) ]used[
#define signals ]used[
#define slots ]used[
#define verify(x) ]used[
#undef linux
#undef unix
#define linux ]used[
#define unix ]used[

#include "shuffled_headers.inc"

using ScaleFunction = double (*)(root_optim::LrScale, int64_t, int64_t);

ScaleFunction lr_scale_of_second();
double loss_after_steps_of_second();
bool refuses_nan_in_second();

ScaleFunction lr_scale_of_second() { return &root_optim::lr_scale; }

double loss_after_steps_of_second() {
  torch::nn::Linear model(16, 16);
  root_optim::Muon optimizer(root_optim::param_groups(*model, root_optim::MuonOptions(1e-3)));
  for (const at::Tensor& p : model->parameters()) p.mutable_grad() = p.detach().clone();
  optimizer.step();
  return model->weight.pow(2).sum().item<double>();
}

bool refuses_nan_in_second() {
  try {
    root_optim::MuonOptions(std::numeric_limits<double>::quiet_NaN()).validate();
  } catch (const c10::Error&) {
    return true;
  }
  return false;
}
