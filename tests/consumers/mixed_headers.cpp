// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// See mixed.hpp.
#include <torch/nn/modules/linear.h>
#include <root_optim/parameters.hpp>
#include "mixed.hpp"

#include <cstdio>

#ifdef ROOT_OPTIM_COMPILED
#error "this file is for the headers alone"
#endif

int main() {
  torch::nn::Linear model(16, 16);
  root_optim::Root optimizer(root_optim::param_groups(*model, root_optim::RootOptions(1e-2)));
  for (const at::Tensor& p : model->parameters()) p.mutable_grad() = p.detach().clone();
#ifdef SHARE_AN_OPTIMIZER
  step_in_compiled(optimizer);
#else
  optimizer.step();
#endif
  const double loss = model->weight.pow(2).sum().item<double>();
  std::printf("two libraries: %.4f and %.4f\n", loss, loss_of_compiled());
  return 0;
}
