// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The ground truths of diagnostics.hpp and the report of a step.
#include "support/catch_torch.hpp"

#include <root_optim/diagnostics.hpp>
#include <root_optim/muon.hpp>
#include <root_optim/root.hpp>

#include <limits>
#include <vector>

#include "support/devices.hpp"
#include "support/optimizer_state.hpp"
#include "support/reference.hpp"
#include "support/tolerances.hpp"
#include "support/training.hpp"

using namespace root_optim;
using test::on;
using test::Quantity;
using test::tolerance;

namespace {
auto is_close(double expected) {
  return Catch::Matchers::WithinRel(expected, tolerance(Quantity::Diagnostics, at::kDouble).bound);
}
}  // namespace

TEST_CASE("relative_error by hand", "[diagnostics]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::Tensor truth = at::eye(4, on(device, at::kFloat));
  CHECK(relative_error(truth, truth) == 0);
  CHECK_THAT(relative_error(truth * 1.5, truth), is_close(0.5));
  CHECK_THAT(relative_error(truth, at::zeros_like(truth)), is_close(2));
  CHECK_THROWS_WITH(relative_error(truth, at::eye(3)),
                    test::contains("expected tensors of one shape, got [4, 4] and [3, 3]"));
}

TEST_CASE("singular values and their mean squared error by hand", "[diagnostics]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::Tensor sigma = at::tensor({1.5, 1.0, 0.5, 0.0}, at::kDouble);
  const at::Tensor x = test::with_singular_values(4, 7, sigma, 71).to(device);
  CHECK_THAT(singular_values(x),
             test::close_to(sigma, tolerance(Quantity::Diagnostics, at::kDouble)));
  CHECK_THAT(singular_value_mse(x), is_close((0.25 + 0 + 0.25 + 1) / 4));
  CHECK(singular_values(at::stack({x, x})).sizes() == at::IntArrayRef({2, 4}));
}

TEST_CASE("relative error is the root of the MSE where singular vectors agree", "[diagnostics]") {
  const at::Tensor x = test::gaussian({16, 40}, 72);
  const at::Tensor y = root_optim::orthogonalize(x, CoefficientSet::jordan().quintics(16, 40, 5));
  CHECK_THAT(relative_error(y, exact_polar(x)), is_close(std::sqrt(singular_value_mse(y))));
}

TEST_CASE("tail statistics of known distributions", "[diagnostics]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::Tensor normal = test::gaussian({400, 500}, 70).to(device);
  const TailStatistics of_normal = tail_statistics(normal);
  CHECK(std::abs(of_normal.excess_kurtosis) < 0.05);  // standard deviation √(24/200,000) = .011
  CHECK(of_normal.max_over_rms > 4);
  CHECK(of_normal.max_over_rms < 6);
  CHECK(of_normal.tail_index > 5);
  // P(x > t) = t^−2 of 1/√uniform: Hill's estimate from 2,000 has a standard deviation of 2/√2000.
  const at::Tensor uniform = normal.div(std::sqrt(2.0)).erf().abs().clamp_min(1e-12);
  const at::Tensor pareto = uniform.rsqrt().mul(normal.sign());
  const TailStatistics of_pareto = tail_statistics(pareto.unsqueeze(0));
  CHECK(std::abs(of_pareto.tail_index - 2) < 4 * 2 / std::sqrt(2000.0));
  CHECK(of_pareto.excess_kurtosis > 100);
  CHECK_THAT(tail_statistics(pareto * 1e150).max_over_rms, is_close(of_pareto.max_over_rms));
  // A pattern of scales has no outliers; one entry ten times too large among 400 by 500 has.
  at::Tensor pattern = (at::logspace(-3, 3, 400, 10.0, at::kDouble).unsqueeze(1) *
                        at::logspace(2, -2, 500, 10.0, at::kDouble))
                           .to(device);
  CHECK_THAT(tail_statistics(pattern).max_over_pattern, is_close(1));
  CHECK(tail_statistics(pattern).max_over_rms > 20);
  pattern[200][250] *= 10;
  CHECK(tail_statistics(pattern).max_over_pattern > 9);
  CHECK(tail_statistics(pattern).max_over_pattern < 10);

  const TailStatistics of_zero = tail_statistics(at::zeros({3, 4}, device));
  CHECK(of_zero.excess_kurtosis == 0);
  CHECK(of_zero.max_over_rms == 0);
  CHECK(of_zero.max_over_pattern == 0);
  CHECK(std::isinf(of_zero.tail_index));
  CHECK(std::isinf(tail_statistics(at::ones({1, 1}, device)).tail_index));
  CHECK_THROWS_WITH(tail_statistics(at::ones({2, 3, 4})),
                    test::contains("root_optim::tail_statistics: expected one matrix"));
}

TEST_CASE("step_report says what the next step does, and does not do it", "[diagnostics]") {
  const auto published_split = [] {
    return RootOptions().filter(SoftThreshold().quantile(0.90)).filter_place(FilterPlace::Momentum);
  };
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::Tensor w = test::parameter({20, 30}, 73, on(device, at::kDouble));
  const at::Tensor qkv = test::parameter({36, 12}, 74, on(device, at::kDouble));
  const at::Tensor bias = test::parameter({30}, 75, on(device, at::kDouble));
  const at::Tensor unused = test::parameter({20, 30}, 76, on(device, at::kDouble));
  std::vector<Root::Group> groups;
  groups.emplace_back(
      std::vector<at::Tensor>{w, bias, unused},
      std::make_unique<RootOptions>(published_split().names({"w", "bias", "unused"})));
  groups.emplace_back(
      std::vector<at::Tensor>{qkv},
      std::make_unique<RootOptions>(published_split().layout(MatrixLayout().split_rows(3))));
  Root root(groups);
  test::train(root, {w, bias, qkv}, 0, 3);
  for (const at::Tensor& p : {w, bias, qkv}) test::set_gradient(p, test::gradient_of(p.sizes(), 4));

  const at::Tensor before = w.detach().clone();
  const auto reports = step_report(root);
  CHECK_THAT(w, test::same_as(before));
  REQUIRE(reports.size() == 4);  // w and three blocks of qkv
  CHECK(reports[0].name == "w");
  CHECK(reports[1].name == "group 1, index 0");
  for (size_t i = 0; i < 4; ++i) {
    CHECK(reports[i].block == (i == 0 ? 0 : static_cast<int64_t>(i) - 1));
    CHECK(reports[i].rows == (i == 0 ? 20 : 12));
    CHECK(reports[i].cols == (i == 0 ? 30 : 12));
    CHECK(reports[i].outlier_share > 0.05);
    CHECK(reports[i].outlier_share < 0.15);
    CHECK(reports[i].spectral_norm <= 1.35);
    CHECK(reports[i].relative_error < 0.5);
    CHECK(reports[i].direction_cosine > 0);
    CHECK(reports[i].direction_cosine <= 1 + 1e-12);
  }
  CHECK_THAT(reports[0].learning_rate_scale, is_close(0.2 * std::sqrt(30.0)));

  // The same figures by way of the reference.
  const ParamState& state = test::state_of(root, w);
  const at::Tensor gradient = w.grad().to(at::kCPU);
  const double mu = RootOptions().momentum();
  const at::Tensor u = gradient + mu * (mu * state.momentum_buffer().to(at::kCPU) + gradient);
  const double epsilon = test::reference::quantile_of_abs(u, 0.90);
  CHECK_THAT(reports[0].threshold, is_close(epsilon));
  const at::Tensor outliers = u - u.clamp(-epsilon, epsilon);
  CHECK_THAT(reports[0].outlier_share,
             is_close(outliers.ne(0).to(at::kDouble).mean().item<double>()));
  CHECK_THAT(reports[0].outlier_norm, is_close((outliers.norm() / u.norm()).item<double>()));
  CHECK_THAT(reports[0].tails.max_over_rms,
             is_close((u.abs().max() / u.square().mean().sqrt()).item<double>()));

  const std::string table = to_string(reports);
  CHECK_THAT(table, test::contains("sigma_max"));
  CHECK(std::count(table.begin(), table.end(), '\n') == 5);
}

TEST_CASE("the next matrices follow a momentum that rises, whoever counts the steps",
          "[diagnostics][capturable]") {
  const auto next_body = [](bool capturable, int64_t warmup) {
    at::Tensor parameter = test::gaussian({12, 20}, 73).requires_grad_();
    Root optimizer({parameter},
                   RootOptions(1e-3).momentum(0.95).capturable(capturable).momentum_warmup(warmup));
    for (uint64_t step = 0; step < 4; ++step) {
      parameter.mutable_grad() = test::gaussian({12, 20}, 74 + step);
      if (step < 3) optimizer.step();
    }
    return next_matrices(optimizer, 0, 0).at(0).body.to(at::kDouble);
  };
  const at::Tensor rising = next_body(false, 6);
  CHECK(relative_error(next_body(true, 6), rising) < 1e-5);  // measured: 0
  // What follows another momentum is another matrix.
  CHECK(relative_error(next_body(false, 5), rising) > 1e-3);
}

TEST_CASE("a matrix that is not finite spoils no other's report", "[diagnostics]") {
  std::vector<at::Tensor> parameters{test::parameter({20, 30}, 77), test::parameter({20, 30}, 78)};
  Root root(parameters);
  for (const at::Tensor& p : parameters) test::set_gradient(p, test::gradient_of(p.sizes(), 1));
  parameters[0].mutable_grad()[3][4] = std::numeric_limits<float>::infinity();
  const auto reports = step_report(root);
  REQUIRE(reports.size() == 2);
  CHECK(std::isnan(reports[0].relative_error));
  CHECK(std::isnan(reports[0].tails.max_over_pattern));
  CHECK(reports[0].learning_rate_scale == reports[1].learning_rate_scale);
  CHECK(reports[1].relative_error < 0.5);
  CHECK_THAT(to_string(reports), test::contains("nan"));
}

TEST_CASE("diagnostics name what they cannot take", "[diagnostics][errors]") {
  CHECK_THROWS_WITH(root_optim::relative_error(at::Tensor(), at::ones({2})),
                    test::contains("relative_error: expected real tensors, got an undefined one"));
  CHECK_THROWS_WITH(root_optim::relative_error(at::ones({2}), at::ones({2}, at::kComplexFloat)),
                    test::contains("got ComplexFloat"));
  CHECK_THROWS_WITH(root_optim::singular_value_mse(at::ones({0, 3})),
                    test::contains("expected a matrix that is not empty, got shape [0, 3]"));
}

TEST_CASE("a report without a filter shows no outliers", "[diagnostics]") {
  const at::Tensor w = test::parameter({20, 30}, 77);
  test::set_gradient(w, test::gradient_of(w.sizes(), 1));
  Muon muon({w});
  const auto reports = step_report(muon);
  REQUIRE(reports.size() == 1);
  CHECK(reports[0].outlier_share == 0);
  CHECK(reports[0].outlier_norm == 0);
  CHECK_THAT(reports[0].direction_cosine, is_close(1));
  CHECK(std::isinf(reports[0].threshold));
  CHECK(reports[0].name == "group 0, index 0");
}
