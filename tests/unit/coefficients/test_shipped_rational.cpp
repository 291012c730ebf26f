// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The shipped rational plans: valid, better than Muon's quintics, and safe on hostile spectra.
#include "support/catch_torch.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <root_optim/coefficients/rational_validation.hpp>
#include <root_optim/coefficients/shipped_rational.hpp>
#include <root_optim/orthogonalizers/rational.hpp>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

using root_optim::Precision;
using root_optim::RationalPlan;
using root_optim::RationalReport;
using root_optim::RationalStages;
using root_optim::RationalValidationOptions;
using root_optim::shipped_rational;
using root_optim::shipped_rational_error;

namespace {

const std::vector<std::pair<int64_t, int64_t>> kShapes = {
    {64, 64}, {64, 128}, {192, 64}, {64, 256}, {64, 1024}};

const std::vector<std::vector<int64_t>> kPlans = {{2},    {3},    {1, 1},   {1, 2},
                                                  {2, 2}, {2, 3}, {1, 2, 2}};

}  // namespace

TEST_CASE("the shipped rational plans are valid", "[rational]") {
  for (const auto& [rows, cols] : kShapes) {
    for (const auto& poles : kPlans) {
      CAPTURE(rows, cols, poles);
      const RationalStages stages = shipped_rational(rows, cols, poles);
      REQUIRE(stages.size() == poles.size());
      for (size_t t = 0; t < poles.size(); ++t) {
        CHECK(static_cast<int64_t>(stages[t].poles.size()) == poles[t]);
      }
      for (const Precision precision : {Precision::Float32, Precision::Float64}) {
        const RationalReport report =
            validate_rational(stages, RationalValidationOptions::for_precision(precision));
        CHECK(report.valid);
        CHECK(report.max_output <= 1.2);
        CHECK(report.max_output + report.rounding <= 1.25);
        CHECK(report.gain <= 1e6);
      }
    }
  }
}

TEST_CASE("a dearer shipped plan is more exact", "[rational]") {
  for (const auto& [rows, cols] : kShapes) {
    double before = 1;
    for (const auto& poles : kPlans) {
      CAPTURE(rows, cols, poles);
      const auto error = shipped_rational_error(rows, cols, poles);
      CHECK(error.training < before);
      before = error.training;
    }
    const auto of = [&, r = rows, c = cols](RationalPlan plan) {
      std::vector<int64_t> poles;
      for (const auto& f : shipped_rational(r, c, plan)) {
        poles.push_back(static_cast<int64_t>(f.poles.size()));
      }
      return shipped_rational_error(r, c, poles);
    };
    const auto fast = of(RationalPlan::Fast), standard = of(RationalPlan::Default);
    CHECK(fast.training <= fast.muon_training);
    CHECK(fast.held_out <= fast.muon_held_out);
    CHECK(standard.training <= 0.75 * standard.muon_training);
    CHECK(standard.held_out <= 0.75 * standard.muon_held_out);
    CHECK(of(RationalPlan::Precise).training == before);
    CHECK(shipped_rational(rows, cols) == shipped_rational(rows, cols, RationalPlan::Default));
  }
}

TEST_CASE("the class of a shape is that of its aspect ratio", "[rational]") {
  const auto of = [](int64_t rows, int64_t cols) { return shipped_rational(rows, cols, {2, 2}); };
  CHECK(of(64, 256) == of(1024, 256));
  CHECK(of(100, 141) == of(64, 64));
  CHECK(of(100, 142) == of(64, 128));
  CHECK(of(100, 240) == of(64, 128));
  CHECK(of(100, 250) == of(64, 192));
  CHECK(of(100, 350) == of(64, 256));
  CHECK(of(100, 560) == of(64, 256));
  CHECK(of(100, 570) == of(1, 100000));
  CHECK(of(64, 64) != of(64, 256));
}

TEST_CASE("shipped rational plans refuse what there is none for", "[rational]") {
  CHECK_THROWS_WITH(shipped_rational(0, 4), test::contains("rows, cols >= 1"));
  CHECK_THROWS_WITH(shipped_rational(4, 4, {4}), test::contains("expected the poles"));
  CHECK_THROWS_WITH(shipped_rational(4, 4, std::vector<int64_t>{}),
                    test::contains("expected the poles"));
}

TEST_CASE("shipped rational plans keep their bound on adversarial spectra", "[rational]") {
  // Up to 5 clusters of singular values anywhere in [1e-8, 1], spread by up to a decade: 700 matrices. With a batch of
  // 300 they are 10,500, which keep the same bounds.
  const at::NoGradGuard no_grad;
  at::Generator random = at::detail::createCPUGenerator(11);
  constexpr int64_t batch = 20;
  for (const auto& [rows, cols] : kShapes) {
    const int64_t count = std::min<int64_t>({rows, cols, 32}),
                  longer = count * (std::max(rows, cols) / std::min(rows, cols));
    for (const auto& poles : kPlans) {
      CAPTURE(rows, cols, poles);
      const RationalStages stages = shipped_rational(rows, cols, poles);
      const RationalReport report = validate_rational(stages);
      const auto options = at::TensorOptions().dtype(at::kDouble);
      const at::Tensor u =
          std::get<0>(at::linalg_qr(at::randn({batch, count, count}, random, options)));
      const at::Tensor v =
          std::get<0>(at::linalg_qr(at::randn({batch, longer, count}, random, options)));
      const at::Tensor centers = at::rand({batch, 5}, random, options).mul(-8);
      const at::Tensor which =
          at::rand({batch, count}, random, options).pow(2).mul(5).to(at::kLong);
      const at::Tensor exponent =
          centers.gather(1, which) -
          at::rand({batch, count}, random, options) * at::rand({batch, 1}, random, options);
      const at::Tensor sigma = at::pow(10.0, exponent);
      const at::Tensor x = at::matmul(u * sigma.unsqueeze(1), v.transpose(1, 2)).to(at::kFloat);
      const auto out = root_optim::orthogonalize_rational(x, stages);
      CHECK_FALSE(out.failed.any().item<bool>());
      const at::Tensor outputs = at::linalg_svdvals(out.x.to(at::kDouble));
      CHECK(outputs.max().item<double>() <= report.max_output + report.rounding);
    }
  }
}
