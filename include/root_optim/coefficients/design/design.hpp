// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The generator of coefficients: per-step quintics that minimize the expected singular-value error
// on a spectrum (spectrum.hpp) and pass validation (coefficients/validation.hpp). ROOT, arXiv
// 2511.20626, "AdaNewton", says that coefficients should fit the shape, not how to find them.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include <root_optim/coefficients/quintic.hpp>
#include <root_optim/coefficients/spectrum.hpp>
#include <root_optim/coefficients/validation.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// The odd quintic closest to 1 on [low, high] in the maximum norm, by Remez exchange.
/// @param error set to the largest deviation, if given
/// @throws c10::Error unless 0 < low <= high.
Quintic minimax_quintic(double low, double high, double* error = nullptr);

/// What `design_quintics` is asked for beside the spectrum.
struct DesignOptions {
  int64_t steps = 5;  ///< 1 to 16
  /// The check that the result passes. The default serves float32 and bfloat16 alike.
  ValidationOptions validation =
      ValidationOptions::for_precision(Precision::BFloat16, Normalization::Schatten8);
  /// Largest number of Levenberg–Marquardt iterations over all starts; 0: what takes about 20 ms on
  /// one core of 2.7 GHz.
  int64_t max_iterations = 0;
  /// A schedule of as many steps to start from as well, such as the one in use; empty: none. It
  /// must pass the validation, or it is left out.
  Quintics warm_start = {};
};

/// A designed schedule with its figures.
struct Design {
  Quintics quintics;          ///< one per step
  double mse = 0;             ///< expected_mse on the spectrum, or the parts' weighted mean
  double relative_error = 0;  ///< its root, or the weighted mean of the parts' roots
  ValidationReport report;    ///< of `validate_quintics` with the options' limits
  int64_t iterations = 0;     ///< Levenberg–Marquardt iterations over all starts
};

/// Designs per-step coefficients for a spectrum.
///
/// Math:       minimize Σ w_i (p_T∘…∘p_1(σ_i) − 1)² over the 3T coefficients, subject to
///             `validate_quintics`.
/// Algorithm:  minimax compositions (Polar Express, arXiv 2505.16932) for several lower ends, each
///             refined by Levenberg–Marquardt with analytic derivatives, bounds as quadratic
///             penalties in three rounds; then intervals are rescaled to fit exactly, validated,
///             and the best valid one returned.
/// Degenerate: if no refined candidate is valid, the best minimax composition is returned.
/// Complexity: O(iterations × nodes × (3T)²).
/// Determinism: float64, sequential, no random numbers: repeatable for the same compiler flags.
/// @throws c10::Error for other than 1 to 16 steps, for a spectrum that is empty or has values out of
/// range, and if nothing valid is found.
Design design_quintics(const Spectrum& spectrum, const DesignOptions& options = {});

/// Designs per-step coefficients for several spectra: least weighted mean of relative errors.
///
/// The mean of the roots, not the root of the mean: a deep spectrum, most of whose singular values
/// no schedule of that length can lift, has a large error whatever is done, and would otherwise buy
/// a little less of it with ripple on all the others.
/// Algorithm:  `design_quintics` for the mixture with each part's weight divided by its root error, at
///             first that of a minimax composition, then four times again from its result with the
///             weights of that; the best valid schedule is returned.
/// @param parts weights > 0, at least one; weights need not sum to one
/// @throws c10::Error as `design_quintics` and `mixture`.
Design design_mixture(const std::vector<std::pair<double, Spectrum>>& parts,
                      const DesignOptions& options = {});

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/coefficients/design/detail/design_impl.hpp>
#endif
