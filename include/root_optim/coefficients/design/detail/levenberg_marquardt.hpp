// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Levenberg–Marquardt, which the designs of quintics and of rational stages share.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Solves (H + damping · diag) s = g by Cholesky; H is the lower triangle, kept. False if H is not
/// positive definite to rounding.
inline bool solve_damped(const std::vector<double>& hessian, const std::vector<double>& gradient,
                         double damping, size_t d, std::vector<double>& factor,
                         std::vector<double>& step) {
  factor = hessian;
  double largest = 0;
  for (size_t i = 0; i < d; ++i) largest = (std::max)(largest, hessian[i * d + i]);
  for (size_t i = 0; i < d; ++i) {
    factor[i * d + i] += damping * (hessian[i * d + i] + 1e-9 * largest);
  }
  for (size_t i = 0; i < d; ++i) {
    double* fi = factor.data() + i * d;
    for (size_t j = 0; j <= i; ++j) {
      const double* fj = factor.data() + j * d;
      double sum = fi[j];
      for (size_t k = 0; k < j; ++k) sum -= fi[k] * fj[k];
      if (j < i) {
        fi[j] = sum / fj[j];
      } else {
        if (!(sum > 1e-300)) return false;
        fi[i] = std::sqrt(sum);
      }
    }
  }
  step = gradient;
  for (size_t i = 0; i < d; ++i) {
    for (size_t k = 0; k < i; ++k) step[i] -= factor[i * d + k] * step[k];
    step[i] /= factor[i * d + i];
  }
  for (size_t i = d; i-- > 0;) {
    for (size_t k = i + 1; k < d; ++k) step[i] -= factor[k * d + i] * step[k];
    step[i] /= factor[i * d + i];
  }
  return true;
}

/// Minimizes a sum of squares from theta, in place; returns it. Counts iterations down in `budget`.
///
/// Problem: dimension(); evaluate_at(theta, penalty, gradient, hessian), the sum with JᵀR and the lower triangle of
/// JᵀJ unless they are null; moved(parameter, step), a parameter after a step of the solver.
/// @param tolerance of the relative decrease: the fourth smaller one in a row ends the search.
template <class Problem>
double levenberg_marquardt(const Problem& problem, double penalty, std::vector<double>& theta,
                           int64_t& budget, double tolerance) {
  const size_t d = problem.dimension();
  std::vector<double> gradient(d), hessian(d * d), factor, step, trial(d);
  double damping = 1e-3;
  double cost = problem.evaluate_at(theta, penalty, gradient.data(), hessian.data());
  int stalled = 0;
  while (budget > 0 && cost > 1e-18) {
    --budget;
    bool accepted = false;
    for (int attempt = 0; attempt < 12 && !accepted; ++attempt) {
      if (attempt % 2 == 1) --budget;  // a trial costs about half an iteration
      if (solve_damped(hessian, gradient, damping, d, factor, step)) {
        for (size_t i = 0; i < d; ++i) trial[i] = problem.moved(theta[i], step[i]);
        const double next = problem.evaluate_at(trial, penalty, nullptr, nullptr);
        if (next < cost) {
          accepted = true;
          stalled = cost - next < tolerance * cost ? stalled + 1 : 0;
          theta.swap(trial);
          damping = (std::max)(1e-12, damping * 0.2);
          break;
        }
      }
      damping *= 4;
    }
    if (!accepted || stalled >= 4) break;
    cost = problem.evaluate_at(theta, penalty, gradient.data(), hessian.data());
  }
  return problem.evaluate_at(theta, penalty, nullptr, nullptr);
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
