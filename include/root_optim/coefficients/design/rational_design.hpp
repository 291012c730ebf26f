// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The generator of rational schedules: stages with as many poles as asked for that minimize the expected
// singular-value error on spectra and pass validation (rational_validation.hpp).
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include <root_optim/coefficients/rational.hpp>
#include <root_optim/coefficients/rational_validation.hpp>
#include <root_optim/coefficients/spectrum.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// The spectrum of a matrix with `count` singular values, in whatever scale, after division by its Schatten-4 norm,
/// which the rational iteration starts with.
/// @throws c10::Error for an empty spectrum, one with values out of range, and zeros only.
Spectrum schatten4_spectrum(const Spectrum& spectrum, double count);

/// Expected singular-value error E(σ_out − 1)² of a rational schedule, in exact arithmetic.
/// @throws c10::Error for an empty spectrum and one with values out of range.
double expected_mse(const RationalStages& schedule, const Spectrum& spectrum);

/// What `design_rational` is asked for beside the spectra.
struct RationalDesignOptions {
  /// Poles of each stage, first stage first: 1 to 3 stages, 1 to 6 poles each.
  std::vector<int64_t> poles = {2};
  /// The check that the result passes.
  RationalValidationOptions validation = {};
  /// Largest output on [0, 1 + u] in exact arithmetic.
  double largest_output = 1.2;
  /// Largest gain of the last stage of several: a bound for one that is multiplied in bfloat16. Default: none.
  double last_gain = 1e30;
};

/// A designed schedule with its figures.
struct RationalDesign {
  RationalStages schedule;    ///< the stages, first one first
  double mse = 0;             ///< the parts' weighted mean of expected_mse
  double relative_error = 0;  ///< the parts' weighted mean of its roots
  RationalReport report;      ///< of `validate_rational` with the options' limits
};

/// Designs a rational schedule for several spectra: least weighted mean of relative errors.
///
/// Math:       minimize Σ_p w_p (E_p (f_T∘…∘f_1(σ) − 1)²)^½ over all weights >= 0 and poles, subject to the sup of
///             the composition, the gains and poles of `options`, and `validate_rational`.
/// Algorithm:  Zolotarev's stages for a grid of lower ends; the best are refined by Levenberg–Marquardt with analytic
///             derivatives, in logarithms, with bounds as quadratic penalties and each part's weight divided by its
///             root error, in rounds; then intervals are scaled to fit exactly, and the best valid one is
///             returned.
/// Complexity: 2 to 16 ms of a 4 GHz core, for one to three stages; O(iterations × nodes × parameters²). Spectra of
///             many nodes are `condensed`.
/// Determinism: float64, sequential, no random numbers; the result is rounded to 24 bits.
/// @param parts Schatten-4 normalized (schatten4_spectrum) spectra with weights > 0, at least one.
/// @throws c10::Error as `mixture`, for numbers of stages and poles out of range, and if nothing valid is found.
RationalDesign design_rational(const std::vector<std::pair<double, Spectrum>>& parts,
                               const RationalDesignOptions& options = {});

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/coefficients/design/detail/rational_design_impl.hpp>
#endif
