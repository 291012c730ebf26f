// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of coefficients/rational.hpp.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <root_optim/coefficients/rational.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

ROOT_OPTIM_INLINE double evaluate(const RationalStage& f, double x) {
  const double y = x * x;
  double factor = f.constant;
  for (size_t j = 0; j < f.poles.size(); ++j) factor += f.weights[j] / (y + f.poles[j]);
  return x * factor;
}

ROOT_OPTIM_INLINE double evaluate(const RationalStages& schedule, double x) {
  for (const RationalStage& f : schedule) x = evaluate(f, x);
  return x;
}

ROOT_OPTIM_INLINE std::vector<int64_t> poles_of(const RationalStages& schedule) {
  std::vector<int64_t> poles;
  for (const RationalStage& f : schedule) poles.push_back(static_cast<int64_t>(f.poles.size()));
  return poles;
}

ROOT_OPTIM_INLINE double gain(const RationalStage& f) {
  double factor = f.constant;
  for (size_t j = 0; j < f.poles.size(); ++j) factor += f.weights[j] / f.poles[j];
  return factor;
}

ROOT_OPTIM_INLINE double gain(const RationalStages& schedule) {
  double product = 1;
  for (const RationalStage& f : schedule) product *= gain(f);
  return product;
}

namespace detail {

/// The arithmetic-geometric mean of 1 and x, 0 < x <= 1.
inline double agm_with_one(double x) {
  double a = 1, b = x;
  for (int i = 0; i < 40 && a - b > 1e-16 * a; ++i) {
    const double mean = 0.5 * (a + b);
    b = std::sqrt(a * b);
    a = mean;
  }
  return a;
}

/// l² sc²(i K(l′) / (2r + 1); l′), i = 1 … 2r: zeros and poles of Zolotarev's function in −σ².
///
/// sc of a modulus l′ near 1 is √(1/l) θ₁/θ₄ of an imaginary argument with the nome of l: every term is
/// known to full precision from l itself, where 1 − l² would lose it. Beyond the half of K by
/// sc(K − u) = 1 / (l sc(u)).
inline std::vector<double> zolotarev_points(int64_t r, double l) {
  const double complement = std::sqrt((1 - l) * (1 + l));
  const double log_nome = -3.14159265358979323846 * agm_with_one(complement) / agm_with_one(l);
  const double q = std::exp(log_nome);
  std::vector<double> c(static_cast<size_t>(2 * r));
  for (int64_t i = 1; i <= r; ++i) {
    const double t = static_cast<double>(i) / static_cast<double>(2 * r + 1);
    const double y = -0.5 * t * log_nome;
    double odd = 0, even = 0.5, sign = 1;
    for (int n = 0; n < 12; ++n) {  // q < .2 for l < .99: far fewer count
      odd += sign * std::pow(q, n * (n + 1)) * std::sinh((2 * n + 1) * y);
      sign = -sign;
      even += sign * std::pow(q, (n + 1) * (n + 1)) * std::cosh(2 * (n + 1) * y);
      if ((n + 1) * (n + 1) * log_nome < -60) break;
    }
    const double ratio = odd / even;
    const double point = l * std::sqrt(q) * ratio * ratio;
    c[static_cast<size_t>(i - 1)] = point;
    c[static_cast<size_t>(2 * r - i)] = l * l / point;
  }
  return c;
}

}  // namespace detail

ROOT_OPTIM_INLINE RationalStage zolotarev_stage(const ZolotarevStage& stage, bool last) {
  TORCH_CHECK(stage.poles >= 1 && stage.poles <= 8 && stage.low >= 1e-8 && stage.low <= 0.9,
              "root_optim::zolotarev_stage: expected 1 to 8 poles and 1e-8 <= low <= 0.9, got ",
              stage.poles, " and ", stage.low);
  const auto r = static_cast<size_t>(stage.poles);
  const std::vector<double> c = detail::zolotarev_points(stage.poles, stage.low);
  RationalStage f;
  f.constant = 1;
  for (size_t j = 0; j < r; ++j) {
    double weight = c[2 * j + 1] - c[2 * j];
    for (size_t k = 0; k < r; ++k) {
      if (k != j) weight *= (c[2 * k + 1] - c[2 * j]) / (c[2 * k] - c[2 * j]);
    }
    f.weights.push_back(weight);
    f.poles.push_back(c[2 * j]);
  }
  // The extremes alternate, so the smallest is taken at low and the largest at 1.
  const double largest = evaluate(f, 1);
  const double factor = last ? 2 / (largest + evaluate(f, stage.low)) : 1 / largest;
  f.constant *= factor;
  for (double& weight : f.weights) weight *= factor;
  return f;
}

ROOT_OPTIM_INLINE RationalStages zolotarev_stages(const std::vector<ZolotarevStage>& stages) {
  TORCH_CHECK(!stages.empty(), "root_optim::zolotarev_stages: expected a stage, got none");
  RationalStages schedule;
  for (size_t t = 0; t < stages.size(); ++t) {
    schedule.push_back(zolotarev_stage(stages[t], t + 1 == stages.size()));
  }
  return schedule;
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
