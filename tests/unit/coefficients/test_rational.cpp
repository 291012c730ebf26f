// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Zolotarev's stages against a table of the literature's formulas and against what defines them: a best
// approximation in the maximum norm takes its largest deviation 2r + 2 times, with alternating signs.
#include "support/catch_torch.hpp"

#include <root_optim/coefficients/rational.hpp>

#include <cmath>
#include <vector>

using root_optim::evaluate;
using root_optim::gain;
using root_optim::RationalStage;
using root_optim::zolotarev_stage;
using root_optim::zolotarev_stages;

namespace {

long double in_long_double(const RationalStage& f, long double x) {
  long double sum = f.constant;
  for (size_t j = 0; j < f.poles.size(); ++j) {
    sum += static_cast<long double>(f.weights[j]) / (x * x + static_cast<long double>(f.poles[j]));
  }
  return x * sum;
}

/// The local extremes on [low, 1] with its ends, each by ternary search in long double.
std::vector<long double> extremes(const RationalStage& f, long double low) {
  constexpr int count = 20000;
  const long double depth = std::log(low);
  const auto at = [&](int i) {
    return std::exp(depth * (1 - static_cast<long double>(i) / count));
  };
  std::vector<long double> values{in_long_double(f, low)};
  for (int i = 1; i < count; ++i) {
    const long double l = in_long_double(f, at(i - 1)), c = in_long_double(f, at(i)),
                      r = in_long_double(f, at(i + 1));
    if ((c > l) == (r > c)) continue;
    const long double sign = c > l ? 1 : -1;
    long double x0 = at(i - 1), x1 = at(i + 1);
    for (int k = 0; k < 60; ++k) {
      const long double a = x0 + (x1 - x0) / 3, b = x1 - (x1 - x0) / 3;
      (sign * in_long_double(f, a) < sign * in_long_double(f, b) ? x0 : x1) =
          sign * in_long_double(f, a) < sign * in_long_double(f, b) ? a : b;
    }
    values.push_back(in_long_double(f, (x0 + x1) / 2));
  }
  values.push_back(in_long_double(f, 1));
  return values;
}

}  // namespace

TEST_CASE("Zolotarev's stages have the published ranges and poles", "[rational]") {
  struct Row {
    double low;
    int64_t poles;
    double least, most, first_pole;
  };
  const Row rows[] = {{.03, 1, .808, 1.192, 5.4e-3},  {.03, 2, .974, 1.026, 1.2e-3},
                      {.03, 3, .997, 1.003, 5.2e-4},  {.03, 4, 1.000, 1.000, 2.9e-4},
                      {.01, 1, .671, 1.329, 1.3e-3},  {.01, 2, .935, 1.065, 2.3e-4},
                      {.01, 3, .987, 1.013, 9.3e-5},  {.01, 4, .998, 1.002, 5.1e-5},
                      {.003, 1, .520, 1.480, 2.7e-4}, {.003, 2, .871, 1.129, 3.6e-5},
                      {.003, 3, .967, 1.033, 1.3e-5}, {.003, 4, .992, 1.008, 7.1e-6},
                      {.001, 1, .397, 1.603, 6.2e-5}, {.001, 2, .798, 1.202, 6.4e-6},
                      {.001, 3, .938, 1.062, 2.2e-6}, {.001, 4, .981, 1.019, 1.1e-6}};
  for (const Row& row : rows) {
    CAPTURE(row.low, row.poles);
    const RationalStage f = zolotarev_stage({row.poles, row.low});
    CHECK(std::abs(evaluate(f, row.low) - row.least) < 6e-4);
    CHECK(std::abs(evaluate(f, 1) - row.most) < 6e-4);
    CHECK(std::abs(f.poles[0] / row.first_pole - 1) < 0.05);
  }
}

TEST_CASE("Zolotarev's stages deviate evenly at 2r + 2 points", "[rational]") {
  for (const double low : {1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 0.1, 0.5, 0.9}) {
    for (const int64_t poles : {1, 2, 3, 4, 6, 8}) {
      CAPTURE(low, poles);
      const RationalStage f = zolotarev_stage({poles, low});
      const auto deviation = static_cast<double>(in_long_double(f, 1) - 1);
      if (deviation < 1e-9) continue;  // in the rounding of the doubles themselves
      const std::vector<long double> values = extremes(f, low);
      REQUIRE(values.size() == static_cast<size_t>(2 * poles + 2));
      for (size_t i = 0; i < values.size(); ++i) {
        const auto error = static_cast<double>(values[i] - 1);
        // Rounded weights and poles, 2^-53 each, times the condition of the sum; measured 7e-15.
        CHECK(std::abs(error - (i % 2 == 0 ? -deviation : deviation)) < 3e-14);
      }
      for (const double a : f.weights) CHECK(a > 0);
    }
  }
}

TEST_CASE("one pole is the Halley step of QDWH", "[rational]") {
  // Nakatsukasa, Bai & Gygi 2010: x (a + b x²) / (1 + c x²), c = a + b − 1, b = (a − 1)²/4.
  for (const double l : {1e-6, 1e-3, 0.1, 0.5}) {
    const double d = std::cbrt(4 * (1 - l * l) / (l * l * l * l));
    const double a = std::sqrt(1 + d) +
                     0.5 * std::sqrt(8 - 4 * d + 8 * (2 - l * l) / (l * l * std::sqrt(1 + d)));
    const double b = (a - 1) * (a - 1) / 4, c = a + b - 1;
    const RationalStage f = zolotarev_stage({1, l}, /*last=*/false);
    for (const double x : {l, 3 * l, 0.3, 0.9, 1.0}) {
      CHECK(std::abs(evaluate(f, x) / (x * (a + b * x * x) / (1 + c * x * x)) - 1) < 1e-7);
    }
  }
}

TEST_CASE("stages before the last end at 1, and gains multiply", "[rational]") {
  const auto schedule = zolotarev_stages({{2, 1e-3}, {3, 1e-2}});
  REQUIRE(schedule.size() == 2);
  CHECK(std::abs(evaluate(schedule[0], 1) - 1) < 1e-14);
  CHECK(std::abs(evaluate(schedule[1], 1) + evaluate(schedule[1], 1e-2) - 2) < 1e-14);
  CHECK(std::abs(evaluate(schedule, 1e-9) / 1e-9 / gain(schedule) - 1) < 1e-6);
  CHECK(evaluate(schedule, 0) == 0);
  CHECK(schedule[0] != schedule[1]);
}

TEST_CASE("Zolotarev's stages refuse numbers out of range", "[rational]") {
  CHECK_THROWS_WITH(zolotarev_stage({0, 0.1}), test::contains("expected 1 to 8 poles"));
  CHECK_THROWS_WITH(zolotarev_stage({9, 0.1}), test::contains("expected 1 to 8 poles"));
  CHECK_THROWS_WITH(zolotarev_stage({2, 1e-9}), test::contains("1e-8 <= low"));
  CHECK_THROWS_WITH(zolotarev_stage({2, 0.95}), test::contains("low <= 0.9"));
  CHECK_THROWS_WITH(zolotarev_stages({}), test::contains("expected a stage"));
}
