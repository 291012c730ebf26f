// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// See mixed.hpp.
#include <torch/nn/modules/linear.h>
#include <root_optim/parameters.hpp>
#include "mixed.hpp"

#ifndef ROOT_OPTIM_COMPILED
#error "this file is for root_optim::compiled"
#endif

double loss_of_compiled() {
  torch::nn::Linear model(16, 16);
  root_optim::Root optimizer(root_optim::param_groups(*model, root_optim::RootOptions(1e-2)));
  for (const at::Tensor& p : model->parameters()) p.mutable_grad() = p.detach().clone();
  step_in_compiled(optimizer);
  return model->weight.pow(2).sum().item<double>();
}

void step_in_compiled(root_optim::Root& optimizer) { optimizer.step(); }
