// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// AdamW inside the optimizer: the numbers of torch::optim::AdamW and of the float64 reference.
#include "support/catch_torch.hpp"

#include <root_optim/root.hpp>

#include "support/devices.hpp"
#include "support/reference.hpp"
#include "support/spectra.hpp"
#include "support/tolerances.hpp"

using root_optim::Root;
using root_optim::RootOptions;
using root_optim::Rule;
using test::on;
using test::Quantity;
using test::tolerance;

namespace {

constexpr int kSteps = 200;

at::Tensor parameter(const at::Tensor& value) { return value.clone().requires_grad_(true); }

}  // namespace

TEST_CASE("AdamW by hand: the first step moves by lr in the gradient's direction", "[adamw]") {
  const auto next =
      root_optim::adamw_step(at::tensor({1.0, -2.0}, at::kDouble),
                             at::tensor({0.5, -4.0}, at::kDouble), at::zeros({2}, at::kDouble),
                             at::zeros({2}, at::kDouble), at::ones({}), {0.1, 0.5, 0.75, 0.0, 0.5});
  // m' / (1 - beta1) = g and v' / (1 - beta2) = g^2, so the step is lr sign(g) after the decay.
  CHECK_THAT(next.parameter,
             test::close_to(at::tensor({0.95 * 1.0 - 0.1, 0.95 * -2.0 + 0.1}, at::kDouble),
                            tolerance(Quantity::OneRounding, at::kDouble)));
  CHECK_THAT(next.exp_avg, test::close_to(at::tensor({0.25, -2.0}, at::kDouble),
                                          tolerance(Quantity::OneRounding, at::kDouble)));
  CHECK_THAT(next.exp_avg_sq, test::close_to(at::tensor({0.0625, 4.0}, at::kDouble),
                                             tolerance(Quantity::OneRounding, at::kDouble)));
}

TEST_CASE("adamw_step names what it cannot take", "[adamw][errors]") {
  const at::Tensor x = at::ones({2}), other = at::ones({3}), one = at::ones({});
  const auto step = [&](const at::Tensor& moment, const at::Tensor& t, double lr, double beta) {
    return root_optim::adamw_step(x, x, moment, x, t, {lr, beta, 0.9, 1e-8, 0});
  };
  CHECK_THROWS_WITH(step(other, one, 0.1, 0.9),
                    test::contains("root_optim::adamw_step: expected tensors of the gradient's "
                                   "shape [2], got [3]"));
  CHECK_THROWS_WITH(step(x, x, 0.1, 0.9),
                    test::contains("expected one number as step, got shape [2]"));
  CHECK_THROWS_WITH(step(x, one, 0.1, 1),
                    test::contains("expected betas in [0, 1), got 1 and 0.9"));
  CHECK_THROWS_WITH(step(x, one, -0.1, 0.9), test::contains("to be finite and >= 0, got -0.1"));
}

TEST_CASE("the AdamW rule follows torch::optim::AdamW", "[adamw]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  const double weight_decay = GENERATE(0.0, 0.1);
  const at::Tensor start = test::gaussian({64}, 41).to(on(device, dtype));
  const at::Tensor ours = parameter(start), theirs = parameter(start);
  Root root({ours}, RootOptions(3e-3).weight_decay(weight_decay));  // rank 1: AdamW by Rule::Auto
  torch::optim::AdamW adamw({theirs}, torch::optim::AdamWOptions(3e-3)
                                          .weight_decay(weight_decay)
                                          .betas(std::make_tuple(0.9, 0.95))
                                          .eps(1e-8));
  const at::Tensor scales = at::pow(10.0, at::linspace(-6, 4, 64, at::kDouble)).to(device);
  for (int t = 1; t <= kSteps; ++t) {
    const at::Tensor gradient =
        (test::gaussian({64}, static_cast<uint64_t>(1000 + t)).to(device) * scales).to(dtype);
    ours.mutable_grad() = gradient;
    theirs.mutable_grad() = gradient.clone();
    root.step();
    adamw.step();
    const double bound_of_all_steps = t * test::scale_of(theirs);
    CHECK_THAT(ours,
               test::close_to(theirs, tolerance(Quantity::AdamWStep, dtype), bound_of_all_steps));
  }
}

TEST_CASE("the AdamW rule follows the reference", "[adamw]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::Tensor start = test::gaussian({6, 5}, 42);
  const at::Tensor ours = parameter(start.to(device));
  Root root({ours}, RootOptions(1e-2)
                        .rule(Rule::AdamW)
                        .betas(std::make_tuple(0.8, 0.99))
                        .eps(1e-3)
                        .weight_decay(0.2));
  test::reference::AdamW reference{start};
  for (int t = 1; t <= kSteps; ++t) {
    const at::Tensor gradient = test::gaussian({6, 5}, static_cast<uint64_t>(2000 + t));
    ours.mutable_grad() = gradient.to(device);
    root.step();
    reference.step(gradient, 1e-2, 0.8, 0.99, 1e-3, 0.2);
    CHECK_THAT(ours,
               test::close_to(reference.parameter, tolerance(Quantity::AdamWStep, at::kDouble),
                              t * test::scale_of(reference.parameter)));
  }
}

TEST_CASE("the fused kernel and the plain form agree", "[adamw]") {
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  const at::Tensor start = test::gaussian({64}, 43).to(dtype);
  const at::Tensor packed = parameter(start);
  // Every second element of a longer tensor: not contiguous, which the kernel does not take.
  const at::Tensor strided = at::zeros({64, 2}, dtype).select(1, 0).requires_grad_(true);
  {
    const at::NoGradGuard no_grad;
    strided.copy_(start);
  }
  Root root(std::vector<torch::optim::OptimizerParamGroup>{{{packed}}, {{strided}}},
            RootOptions(3e-3));
  for (int t = 1; t <= kSteps; ++t) {
    at::Tensor gradient = test::gaussian({64}, static_cast<uint64_t>(3000 + t)).to(dtype);
    if (t % 7 == 0) gradient = gradient.fill_(std::nan(""));  // skipped by both
    packed.mutable_grad() = gradient.clone();
    strided.mutable_grad() = gradient.clone();
    root.step();
    CHECK_THAT(packed, test::close_to(strided, tolerance(Quantity::AdamWStep, dtype),
                                      t * test::scale_of(strided)));
  }
}
