// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The optimizers minimize: a quadratic, a Rosenbrock-type function of matrices, a small network.
// Fixed seeds, no retries. What a step computes exactly is tested in tests/unit/support/test_reference.cpp;
// these tests see that the pieces work together on gradients of a real loss.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <cmath>
#include <functional>
#include <memory>

#include "support/devices.hpp"
#include "support/spectra.hpp"
#include "support/tolerances.hpp"
#include "support/training.hpp"

using namespace root_optim;
using test::parameter;

namespace {

// Final loss over first loss. Muon's triple leaves singular values between .7 and 1.2, so its steps
// keep a length even near the minimum: it ends at 2.3e-4 and 5e-3, Root and AdamW far lower.
constexpr double kQuadratic = 1e-3;
constexpr double kRosenbrock = 2e-2;
// Two spirals of 100 points; all four end below .01 with every point on its side.
constexpr double kNetworkLoss = 0.05;
constexpr double kNetworkAccuracy = 0.98;

using Tensors = std::vector<at::Tensor>;
using OptimizerPtr = std::unique_ptr<torch::optim::Optimizer>;

struct Contestant {
  std::string name;
  std::function<OptimizerPtr(const Tensors&, double lr)> make;
};

std::vector<Contestant> contestants() {
  return {
      {"Root",
       [](const Tensors& p, double lr) -> OptimizerPtr {
         return std::make_unique<Root>(p, RootOptions(lr).weight_decay(0));
       }},
      {"Muon",
       [](const Tensors& p, double lr) -> OptimizerPtr {
         return std::make_unique<Muon>(
             p, MuonOptions(lr).weight_decay(0).scale(LrScale::MatchRmsAdamW));
       }},
      {"RootPaper",
       [](const Tensors& p, double lr) -> OptimizerPtr {
         return std::make_unique<RootPaper>(p, root_paper(lr).weight_decay(0));
       }},
      {"Root with AdamW's rule",
       [](const Tensors& p, double lr) -> OptimizerPtr {
         return std::make_unique<Root>(p, RootOptions(lr).weight_decay(0).rule(Rule::AdamW));
       }},
  };
}

/// Minimizes with a learning rate that falls linearly to zero; orthogonalized updates have a fixed
/// length, so they cannot come to rest without. Returns the final loss.
double minimize(torch::optim::Optimizer& optimizer, double lr, int64_t steps,
                const std::function<at::Tensor()>& loss_of) {
  for (int64_t t = 0; t < steps; ++t) {
    const double left = 1 - static_cast<double>(t) / static_cast<double>(steps);
    for (auto& group : optimizer.param_groups()) group.options().set_lr(lr * left);
    optimizer.zero_grad();
    loss_of().backward();
    optimizer.step();
  }
  return loss_of().item<double>();
}

}  // namespace

TEST_CASE("a quadratic", "[convergence]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  const auto where = test::on(device, dtype);
  const at::Tensor target = test::gaussian({16, 24}, 111).to(where);
  const at::Tensor curvature = at::logspace(-1, 1, 24, 10, at::kDouble).to(where);
  for (const Contestant& contestant : contestants()) {
    INFO(contestant.name << ", " << dtype << " on " << device);
    const at::Tensor w = parameter(at::zeros({16, 24}, where));
    const auto loss = [&] { return ((w - target).square() * curvature).mean(); };
    const double start = loss().item<double>();
    const auto optimizer = contestant.make({w}, 0.05);
    CHECK(minimize(*optimizer, 0.05, 400, loss) < kQuadratic * start);
  }
}

TEST_CASE("a Rosenbrock-type valley of matrices", "[convergence]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const auto where = test::on(device, at::kDouble);
  for (const Contestant& contestant : contestants()) {
    INFO(contestant.name << " on " << device);
    // sum (1 - x)^2 + 10 (y - x^2)^2, entry by entry, with its minimum at ones.
    const at::Tensor x = parameter(0.5 * test::gaussian({12, 12}, 112).to(where));
    const at::Tensor y = parameter(0.5 * test::gaussian({12, 12}, 113).to(where));
    const auto loss = [&] { return ((1 - x).square() + 10 * (y - x.square()).square()).mean(); };
    const double start = loss().item<double>();
    const auto optimizer = contestant.make({x, y}, 0.03);
    CHECK(minimize(*optimizer, 0.03, 2000, loss) < kRosenbrock * start);
  }
}

TEST_CASE("a small network", "[convergence]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  for (const Contestant& contestant : contestants()) {
    INFO(contestant.name << " on " << device);
    // Two interleaved spirals; weights from private seeds.
    const auto where = test::on(device, at::kFloat);
    const at::Tensor t = at::linspace(0.25, 3, 100, at::kDouble).repeat({2});
    const at::Tensor side = at::cat({at::zeros({100}, at::kDouble), at::ones({100}, at::kDouble)});
    const at::Tensor angle = 2 * t + M_PI * side;
    const at::Tensor points = (at::stack({t * angle.cos(), t * angle.sin()}, 1)).to(where);
    const at::Tensor labels = side.to(at::kLong).to(device);
    const auto weight = [&](int64_t out, int64_t in, uint64_t seed) {
      return parameter(test::gaussian({out, in}, seed).to(where) /
                       std::sqrt(static_cast<double>(in)));
    };
    const Tensors p{weight(32, 2, 114),  parameter(at::zeros({32}, where)),
                    weight(32, 32, 115), parameter(at::zeros({32}, where)),
                    weight(2, 32, 116),  parameter(at::zeros({2}, where))};
    const auto output = [&] {
      const at::Tensor h1 = at::gelu(at::linear(points, p[0], p[1]));
      const at::Tensor h2 = at::gelu(at::linear(h1, p[2], p[3]));
      return at::linear(h2, p[4], p[5]);
    };
    const auto optimizer = contestant.make(p, 0.02);
    const double loss = minimize(*optimizer, 0.02, 600, [&] {
      return torch::nn::functional::cross_entropy(output(), labels);
    });
    CHECK(loss < kNetworkLoss);
    CHECK(output().argmax(1).eq(labels).to(at::kDouble).mean().item<double>() > kNetworkAccuracy);
  }
}
