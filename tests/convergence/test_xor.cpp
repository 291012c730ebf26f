// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// XOR, as PyTorch's C++ tests ask of every optimizer of theirs (pytorch/pytorch, test/cpp/api/optim.cpp,
// XORConvergence_*): a 2-8-1 network of sigmoids on batches of 200 random points; the running mean of
// the loss, .99 old and .01 new, starts at 1 and must fall to .1 within 3000 steps. Figures:
// docs/reliability.md, or this program with "[peer]" -s.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <cmath>
#include <functional>
#include <memory>
#include <vector>

#include "support/spectra.hpp"
#include "support/training.hpp"

using namespace root_optim;
using Tensors = std::vector<at::Tensor>;

namespace {

/// The number of steps until the running loss is .1, or 3001.
int steps_to_learn_xor(
    uint64_t seed,
    const std::function<std::unique_ptr<torch::optim::Optimizer>(const Tensors&)>& make) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const auto uniform = [&](at::IntArrayRef shape, double inputs) {  // as torch::nn::Linear starts
    const at::Tensor u = at::rand(shape, generator, at::kFloat);
    return test::parameter((u * 2 - 1) / std::sqrt(inputs));
  };
  const Tensors p{uniform({8, 2}, 2), uniform({8}, 2), uniform({1, 8}, 8), uniform({1}, 8)};
  const auto optimizer = make(p);
  double running_loss = 1;
  int steps = 0;
  while (running_loss > 0.1 && steps <= 3000) {
    const at::Tensor inputs = at::randint(0, 2, {200, 2}, generator, at::kFloat);
    const at::Tensor labels = inputs.select(1, 0).ne(inputs.select(1, 1)).to(at::kFloat);
    const at::Tensor loss = optimizer->step([&] {
      optimizer->zero_grad();
      const at::Tensor hidden = at::sigmoid(at::linear(inputs, p[0], p[1]));
      const at::Tensor output = at::sigmoid(at::linear(hidden, p[2], p[3])).squeeze(1);
      const at::Tensor value = at::binary_cross_entropy(output, labels);
      value.backward();
      return value;
    });
    running_loss = 0.99 * running_loss + 0.01 * loss.item<double>();
    ++steps;
  }
  return steps;
}

}  // namespace

TEST_CASE("peer: XOR", "[peer][convergence]") {
  struct Contestant {
    std::string name;
    std::function<std::unique_ptr<torch::optim::Optimizer>(const Tensors&)> make;
  };
  const std::vector<Contestant> contestants{
      // Both weights are too small for Rule::Auto, which leaves everything to AdamW.
      {"Root, lr .1, orthogonalized",
       [](const Tensors& p) {
         const auto matrices = RootOptions(0.1).rule(Rule::Orthogonalized).weight_decay(1e-6);
         using Group = torch::optim::OptimizerParamGroup;
         std::vector<Group> groups;
         groups.emplace_back(Tensors{p[0], p[2]}, std::make_unique<RootOptions>(matrices));
         groups.emplace_back(Tensors{p[1], p[3]});
         return std::make_unique<Root>(groups, RootOptions(0.1).weight_decay(1e-6));
       }},
      {"Muon, lr .1, orthogonalized",
       [](const Tensors& p) {
         const auto matrices = MuonOptions(0.1).rule(Rule::Orthogonalized).weight_decay(1e-6);
         using Group = torch::optim::OptimizerParamGroup;
         std::vector<Group> groups;
         groups.emplace_back(Tensors{p[0], p[2]}, std::make_unique<MuonOptions>(matrices));
         groups.emplace_back(Tensors{p[1], p[3]});
         return std::make_unique<Muon>(groups,
                                       MuonOptions(0.1).adamw_lr_ratio(1).weight_decay(1e-6));
       }},
      {"Root, lr .1, Rule::AdamW",
       [](const Tensors& p) {
         return std::make_unique<Root>(p, RootOptions(0.1).rule(Rule::AdamW).weight_decay(1e-2));
       }},
      {"torch::optim::AdamW, lr .1",
       [](const Tensors& p) {
         return std::make_unique<torch::optim::AdamW>(p, torch::optim::AdamWOptions(0.1));
       }},
  };
  for (const Contestant& contestant : contestants) {
    for (const uint64_t seed : std::vector<uint64_t>{801, 802, 803}) {
      INFO(contestant.name << ", seed " << seed);
      CHECK(steps_to_learn_xor(seed, contestant.make) <= 3000);
    }
  }
}
