// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// See odr_first.cpp.
#include <torch/nn/modules/linear.h>
#include <root_optim/root_optim.hpp>

using ScaleFunction = double (*)(root_optim::LrScale, int64_t, int64_t);

ScaleFunction lr_scale_of_second();
double loss_after_steps_of_second();

ScaleFunction lr_scale_of_second() { return &root_optim::lr_scale; }

double loss_after_steps_of_second() {
  torch::nn::Linear model(16, 16);
  root_optim::Muon optimizer(root_optim::param_groups(*model, root_optim::MuonOptions(1e-3)));
  for (const at::Tensor& p : model->parameters()) p.mutable_grad() = p.detach().clone();
  optimizer.step();
  return model->weight.pow(2).sum().item<double>();
}
