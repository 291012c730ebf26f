// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Training, interrupted and resumed from a checkpoint, ends at the same weights as without the
// interruption. Prints:
//
//   resumed run equals the uninterrupted one: yes
#include <torch/torch.h>
#include <root_optim/root_optim.hpp>

#include <iostream>
#include <string>

namespace {

torch::nn::Linear make_model() {
  torch::manual_seed(0);
  return torch::nn::Linear(16, 32);
}

void train(torch::nn::Linear& model, root_optim::Root& optimizer, int first, int last) {
  for (int step = first; step < last; ++step) {
    torch::manual_seed(100 + step);  // the batch depends on the step alone
    const auto x = torch::randn({8, 16});
    optimizer.zero_grad();
    model->forward(x).pow(2).mean().backward();
    optimizer.step();
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string folder = argc > 1 ? argv[1] : ".";
  const auto options = root_optim::RootOptions(1e-2);

  auto whole = make_model();
  root_optim::Root whole_optimizer(root_optim::param_groups(*whole, options));
  train(whole, whole_optimizer, 0, 20);

  auto first = make_model();
  root_optim::Root first_optimizer(root_optim::param_groups(*first, options));
  train(first, first_optimizer, 0, 10);
  torch::save(first, folder + "/model.pt");
  root_optim::save(first_optimizer, folder + "/optimizer.pt");

  auto second = make_model();
  torch::load(second, folder + "/model.pt");
  root_optim::Root second_optimizer(root_optim::param_groups(*second, options));
  root_optim::load(second_optimizer, folder + "/optimizer.pt");
  train(second, second_optimizer, 10, 20);

  const bool equal =
      torch::equal(whole->weight, second->weight) && torch::equal(whole->bias, second->bias);
  std::cout << "resumed run equals the uninterrupted one: " << (equal ? "yes" : "no") << '\n';
}
