// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The check that every rational schedule passes before use. Positive weights and poles already make it positive
// and bounded on every matrix in exact arithmetic; what is left is how large an output can be, whether the
// inverse can be computed at its poles, and how far rounding errors are lifted.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <root_optim/coefficients/rational.hpp>
#include <root_optim/coefficients/validation.hpp>  // Precision
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// The pole below which the inverse (kernels/spd_inverse.hpp) loses too much to rounding, in units of ‖R‖₂.
///
/// Measured in float32, √c (R + cI)⁻¹X against float64 on 64 hostile matrices of 64 to 256 rows with ‖R‖₂ = 1, the
/// largest error:
///   c          1e-2     1e-3     1e-4     1e-5     6.4e-6   2.2e-6   1e-6
///   refined    5.6e-6   7.5e-5   6.3e-4   7.1e-3   1.3e-2   3.8e-2   7.4e-2
///   LAPACK     4.3e-6   7.2e-5   6.8e-4   6.4e-3   1.3e-2   4.0e-2   6.6e-2
/// On other 64, unrefined, which is what poles from 1e-5 on take, beside LAPACK:
///   unrefined  5.5e-6   2.9e-5   3.0e-4   5.8e-3   7.4e-3   2.4e-2   .19, with failures from 2.2e-6 on
///   LAPACK     3.4e-6   2.5e-5   3.0e-4   3.3e-3   4.8e-3   1.3e-2   2.7e-2
/// With ‖R‖_F = 1, as in the first stage, about a third of these.
inline double smallest_pole(Precision precision) {
  return precision == Precision::Float64 ? 4e-15 : 2e-6;
}

/// What a rational schedule is checked against.
struct RationalValidationOptions {
  /// Of the inverses: Float64 or Float32, the least that carries them.
  Precision precision = Precision::Float32;
  /// u: rounding may leave a normalized singular value as large as 1 + u. ‖XXᵀ‖_F^½ of a computed Gram matrix
  /// is as near as the Schatten-8 norm is; see start_slack_of.
  double start_slack = 1e-3;
  /// Largest allowed output, rounding included.
  double output_bound = 1.25;
  /// Largest allowed product of the f′(0). Rounding errors of a rank-deficient matrix, about 1e-7 of its size in
  /// float32, are lifted by as much.
  double largest_gain = 1e6;

  /// The limits for inverses in a precision.
  /// @throws c10::Error for bfloat16.
  static RationalValidationOptions for_precision(Precision precision);
};

/// Figures of one stage.
struct RationalStageReport {
  double image_max = 0;      ///< largest value of the stage on its interval, in exact arithmetic
  double arg_max = 0;        ///< where it is taken
  double gain = 0;           ///< f′(0)
  double norm = 0;           ///< largest ‖X‖₂ it can meet, rounding included
  double rounding = 0;       ///< what rounding in its inverses may add to an output
  double relative_pole = 0;  ///< its smallest pole in units of norm²
};

/// Outcome of `validate_rational`.
struct RationalReport {
  bool valid = false;         ///< whether all limits are kept
  int64_t failing_stage = 0;  ///< 1-based; 0 if valid
  std::string reason;         ///< empty if valid
  double min_output = 0;      ///< smallest output over normalized σ in [low_sigma, 1 + u]
  double max_output = 0;      ///< largest output over [0, 1 + u], in exact arithmetic
  double rounding = 0;        ///< what rounding in all stages may add to it
  double gain = 0;            ///< product of the f′(0)
  std::vector<RationalStageReport> stages;  ///< one a stage

  static constexpr double low_sigma = 0.01;  ///< where `min_output` begins
};

/// Checks that a rational schedule is safe on every normalized matrix, whatever its singular values.
///
/// Math:       M_0 = 1 + u; M_t = sup f_t on [0, M_{t−1} + rounding of stage t − 1], found by bisection with
///             bounds of f′ (to 1e-12; no sampling). The images are intervals from 0, so M_T is the sup of the
///             composition itself, not a bound of it.
/// Also:       weights finite and >= 0, poles finite, > 0 and above `smallest_pole` in units of M²_{t−1} >= ‖R‖₂
///             (tested on bits: -ffast-math); the product of the gains at most `largest_gain`; M_T and its rounding
///             at most `output_bound`.
/// Complexity: some 50 µs a stage.
RationalReport validate_rational(const RationalStages& schedule,
                                 const RationalValidationOptions& options = {});

/// `validate_rational`, as a check.
/// @param who the caller, for the message.
/// @throws c10::Error that names the failing stage.
void check_rational(const RationalStages& schedule, const RationalValidationOptions& options,
                    const std::string& who);

/// Whether PX of the last stage may be multiplied in bfloat16.
///
/// P has eigenvalues up to its gain, and rounding leaks up to 2⁻⁹ of them onto σ near 1: what that may add to the
/// output must fit under the bound. Not in an only stage, nor in an earlier one, whose errors the next would lift.
/// Measured on 80 hostile matrices, 2 + 2 poles: the largest output rises by 1.5e-3 of the gain, the error by 1e-3.
bool allows_bfloat16_product(const RationalReport& report, double output_bound);

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/coefficients/detail/rational_validation_impl.hpp>
#endif
