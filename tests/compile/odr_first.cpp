// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// With odr_second.cpp: both include everything and use it, and the program links. A function that
// is not inline would be defined twice; one with internal linkage would have two addresses.
#include <torch/nn/modules/linear.h>
#include <root_optim/root_optim.hpp>

#include <cstdio>

using ScaleFunction = double (*)(root_optim::LrScale, int64_t, int64_t);
ScaleFunction lr_scale_of_second();
double loss_after_steps_of_second();

static double loss_after_steps() {
  torch::nn::Linear model(16, 16);
  root_optim::Root optimizer(root_optim::param_groups(*model, root_optim::RootOptions(1e-3)));
  for (const at::Tensor& p : model->parameters()) p.mutable_grad() = p.detach().clone();
  optimizer.step();
  return model->weight.pow(2).sum().item<double>();
}

int main() {
  ScaleFunction first = &root_optim::lr_scale;
  if (first != lr_scale_of_second()) {
    std::puts("root_optim::lr_scale has two addresses");
    return 1;
  }
  return loss_after_steps() > 0 && loss_after_steps_of_second() > 0 ? 0 : 1;
}
