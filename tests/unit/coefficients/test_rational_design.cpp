// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The generator of rational schedules.
#include "support/catch_torch.hpp"

#include <root_optim/coefficients/design/rational_design.hpp>
#include <root_optim/coefficients/design/shape_model.hpp>

#include <cmath>
#include <ctime>

using root_optim::design_rational;
using root_optim::RationalDesign;
using root_optim::RationalDesignOptions;
using root_optim::schatten4_spectrum;
using root_optim::Spectrum;

namespace {

std::vector<std::pair<double, Spectrum>> parts_of(int64_t rows, int64_t cols) {
  auto parts = root_optim::shape_spectra(rows, cols);
  for (auto& part : parts) {
    part.second = schatten4_spectrum(part.second, static_cast<double>(std::min(rows, cols)));
  }
  return parts;
}

double error_of(const root_optim::RationalStages& schedule,
                const std::vector<std::pair<double, Spectrum>>& parts) {
  double sum = 0, total = 0;
  for (const auto& [weight, spectrum] : parts) {
    sum += weight * std::sqrt(expected_mse(schedule, spectrum));
    total += weight;
  }
  return sum / total;
}

}  // namespace

TEST_CASE("designs are valid, repeatable and better than Zolotarev's", "[rational]") {
  using Poles = std::vector<int64_t>;
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{64, 64}, {768, 3072}, {1, 40}}) {
    const auto parts = parts_of(rows, cols);
    for (const Poles& poles :
         {Poles{1}, Poles{2}, Poles{3}, Poles{1, 1}, Poles{2, 2}, Poles{2, 2, 1}}) {
      CAPTURE(rows, cols, poles.size(), poles[0]);
      RationalDesignOptions options;
      options.poles = poles;
      const RationalDesign design = design_rational(parts, options);
      CHECK(design.report.valid);
      CHECK(validate_rational(design.schedule, options.validation).valid);
      CHECK(design.report.max_output <= 1.2);
      CHECK(design.report.gain <= 1e6);
      CHECK(std::abs(design.relative_error - error_of(design.schedule, parts)) < 1e-12);
      REQUIRE(design.schedule.size() == poles.size());
      for (size_t t = 0; t < poles.size(); ++t) {
        CHECK(design.schedule[t].poles.size() == static_cast<size_t>(poles[t]));
      }
      CHECK(design_rational(parts, options).schedule == design.schedule);
      for (const double low : {1e-3, 3e-3, 1e-2, 3e-2}) {
        std::vector<root_optim::ZolotarevStage> stages;
        for (const int64_t count : poles) stages.push_back({count, stages.empty() ? low : 0.1});
        const auto zolotarev = root_optim::zolotarev_stages(stages);
        if (!validate_rational(zolotarev).valid || validate_rational(zolotarev).max_output > 1.2)
          continue;
        CHECK(design.relative_error <= error_of(zolotarev, parts) + 1e-6);
      }
    }
  }
}

TEST_CASE("a design obeys its bounds", "[rational]") {
  const auto parts = parts_of(256, 256);
  RationalDesignOptions options;
  options.poles = {2, 2};
  const RationalDesign free = design_rational(parts, options);
  options.validation.largest_gain = 2e3;
  options.largest_output = 1.05;
  const RationalDesign bound = design_rational(parts, options);
  CHECK(bound.report.gain <= 2e3);
  CHECK(bound.report.max_output <= 1.05);
  CHECK(bound.relative_error > free.relative_error);
  options = {};
  options.poles = {2, 2};
  options.last_gain = 20;
  const RationalDesign flat = design_rational(parts, options);
  CHECK(gain(flat.schedule.back()) <= 20);
  CHECK(root_optim::allows_bfloat16_product(flat.report, 1.25));
}

TEST_CASE("a design of a flat spectrum is nearly exact", "[rational]") {
  const Spectrum flat{{0.25}, {1}};
  CHECK(design_rational({{1, flat}}).relative_error < 1e-5);
}

TEST_CASE("a design takes less than 50 ms", "[rational]") {
  const auto parts = parts_of(1024, 1024);
  RationalDesignOptions options;
  options.poles = {2, 2};
  const std::clock_t start = std::clock();
  design_rational(parts, options);
  // 8 ms optimized: the rest is for other compilers and machines.
  CHECK(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC < 0.05);
}

TEST_CASE("a spectrum in its Schatten-4 norm", "[rational]") {
  const Spectrum s = schatten4_spectrum({{0.5, 0.25}, {0.5, 0.5}}, 2);
  CHECK(std::abs(std::pow(s.sigma[0], 4) + std::pow(s.sigma[1], 4) - 1) < 1e-12);
  CHECK(s.sigma[0] == 2 * s.sigma[1]);
  CHECK_THROWS_WITH(schatten4_spectrum({{0.0}, {1.0}}, 3), test::contains("zeros only"));
}

TEST_CASE("designs refuse numbers out of range", "[rational]") {
  const auto parts = parts_of(8, 8);
  const auto with = [&](std::vector<int64_t> poles) {
    RationalDesignOptions options;
    options.poles = std::move(poles);
    return design_rational(parts, options);
  };
  CHECK_THROWS_WITH(with({}), test::contains("1 to 3 stages"));
  CHECK_THROWS_WITH(with({1, 1, 1, 1}), test::contains("1 to 3 stages"));
  CHECK_THROWS_WITH(with({0}), test::contains("1 to 6 poles"));
  CHECK_THROWS_WITH(with({7}), test::contains("1 to 6 poles"));
  CHECK_THROWS_WITH(design_rational({}), test::contains("at least one spectrum"));
}
