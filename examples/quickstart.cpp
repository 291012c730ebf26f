// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A small network learns a teacher's function with ROOT. README.md shows this program. Prints:
//
//   parameter  shape     rule            layout  reason
//   0.weight   [64, 32]  orthogonalized  matrix  linear: 64x32
//   0.bias     [64]      adamw           -       bias
//   2.weight   [16, 64]  orthogonalized  matrix  linear: 16x64
//   2.bias     [16]      adamw           -       bias
//   step 0  loss 0.1…
//   step 200  loss 0.00…
//   step 400  loss 0.00…
//   step 600  loss 0.00…
#include <torch/torch.h>
#include <root_optim/root_optim.hpp>

#include <iostream>

int main() {
  torch::manual_seed(0);
  using torch::nn::Linear;
  torch::nn::Sequential teacher(Linear(32, 64), torch::nn::Tanh(), Linear(64, 16));
  torch::nn::Sequential student(Linear(32, 64), torch::nn::Tanh(), Linear(64, 16));

  // Matrices go to ROOT; biases (and norms, embeddings, a named output head) to the built-in AdamW.
  const auto table = root_optim::route(*student, root_optim::RootOptions(3e-3));
  std::cout << table;
  root_optim::Root optimizer(table.groups());

  for (int step = 0; step <= 600; ++step) {
    for (auto& group : optimizer.param_groups()) group.options().set_lr(3e-3 * (1 - step / 601.0));
    const auto x = torch::randn({128, 32});
    optimizer.zero_grad();
    const auto loss = torch::mse_loss(student->forward(x), teacher->forward(x).detach());
    loss.backward();
    optimizer.step();
    if (step % 200 == 0) std::cout << "step " << step << "  loss " << loss.item<double>() << '\n';
  }
}
