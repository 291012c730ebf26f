// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The program that every consumer project builds and runs.
#include <torch/nn/modules/linear.h>
#include <root_optim/root_optim.hpp>

#include <cstdio>

int main() {
  torch::nn::Linear model(32, 16);
  root_optim::Root optimizer(root_optim::param_groups(*model, root_optim::RootOptions(1e-2)));
  const at::Tensor x = at::ones({4, 32});
  double first = 0, last = 0;
  for (int step = 0; step < 20; ++step) {
    optimizer.zero_grad();
    const at::Tensor loss = model->forward(x).pow(2).mean();
    loss.backward();
    optimizer.step();
    last = loss.item<double>();
    if (step == 0) first = last;
  }
  std::printf("root_optim %d: loss %.4f -> %.4f\n", root_optim::version, first, last);
  return last < first ? 0 : 1;
}
