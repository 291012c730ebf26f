// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The check that every schedule passes before use: exact interval propagation through the critical
// points of each step, no sampling. Coefficients are untrusted input: one of the sets published
// with ROOT (arXiv 2511.20626, 2048x2048) sends some singular values to 3 after five steps and to
// 679 after six. The sets are in coefficients/published.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <root_optim/coefficients/normalization.hpp>
#include <root_optim/coefficients/precision.hpp>
#include <root_optim/coefficients/quintic.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// What a schedule is checked against.
struct ValidationOptions {
  /// u: rounding may leave a normalized singular value as large as 1 + u. See `start_slack_of`.
  double start_slack = 1e-3;
  /// Every interval must end below its escape point by this fraction, since every step rounds.
  double margin = 0.005;
  /// Largest allowed output.
  double output_bound = 1.35;
  /// Behind its first local maximum a step must stay above this fraction of what follows may take:
  /// below it rounding could flip signs, and what is left of a large singular value be small.
  double sign_floor = 3e-3;
  /// δ: a computed Gram matrix has eigenvalues as low as −δ‖X‖². On [−δ‖X‖², 0] the factor
  /// a + bλ + cλ² must stay within (0, 2a].
  double negative_eigenvalue = 1e-6;

  /// The limits for products of this precision and this normalization.
  static ValidationOptions for_precision(Precision precision, Normalization norm);
};

/// u, the relative error of the computed norm plus that of the rounded quotient.
///
/// Frobenius: norm accumulated in float64 (or float32 by blocks), quotient rounded to float32:
/// a few ε = 6e-8, taken as 1e-6. bfloat16: the quotient's entries round by 2⁻⁹ = .002, the norm's
/// value by as much: 0.01 leaves a factor of two.
/// Schatten8: ‖(XXᵀ)²‖_F^¼ of a computed Gram matrix G + E. To first order its relative error is at
/// most ½‖E‖_S4/‖G‖_S4. With random rounding of size kε, ‖E‖_S4 ≈ kε·m^-¼ for ‖X‖_F = 1 and
/// ‖G‖_S4 >= m^-¾, so ½kε√m: 3e-4 for k = 40, m = 65536 in float32. Taken as 1e-3; in float64 as
/// 1e-6; in bfloat16 (G and G² rounded by 2⁻⁹ per entry: ¾·2⁻⁹·2, then X by 2⁻⁹) as 0.01.
double start_slack_of(Precision precision, Normalization norm);

/// Figures of one step. Intervals are (0, end].
struct StepReport {
  double image_max = 0;  ///< largest value of the step on its (inflated) input interval
  double arg_max = 0;    ///< where it is taken
  double escape = 0;     ///< largest input up to which this and all later steps stay safe
};

/// Outcome of `validate_quintics`.
struct ValidationReport {
  bool valid = false;        ///< whether the schedule may be run
  int64_t failing_step = 0;  ///< 1-based; 0 if valid
  double failing_sigma = 0;  ///< input of the failing step at which it fails
  std::string reason;        ///< empty if valid
  double min_output = 0;     ///< smallest output over normalized σ in [low_sigma, 1 + u]
  double max_output = 0;     ///< largest output over [0, 1 + u]
  double margin = 0;         ///< smallest escape / interval end − 1 over start and all steps
  double slope = 0;          ///< product of the a's: how far small σ are lifted
  /// One for each step.
  std::vector<StepReport> steps;

  static constexpr double low_sigma = 0.01;  ///< where `min_output` begins
};

namespace detail {

/// Beyond this nothing is called safe, and no sum of products below can overflow.
inline constexpr double coefficient_limit = 1e4;
inline constexpr double sigma_limit = 1e6;

/// Positive critical points of p in ascending order; returns how many.
int critical_points(const Quintic& p, double out[2]);

/// Largest value of p on (0, end] and where; smallest value on [from, end].
struct Range {
  double max, arg_max, min;
};
Range range_of(const Quintic& p, double from, double end);

}  // namespace detail

/// Checks that a schedule is safe on every normalized matrix, whatever its singular values.
///
/// Math:       escape point e_t = largest σ with 0 < p_T∘…∘p_t <= output bound on (0, σ],
///             e_{T+1} = output bound, found backward. Then forward from M_0 = 1 + u,
///             M_t = max p_t on (0, (1 + margin) M_{t−1}]: every (1 + margin) M_t must not exceed
///             e_{t+1}. The margin is carried along, so it may be lost at every step at once.
/// Also:       finite coefficients of magnitude <= 1e4 (tested on bits: -ffast-math), a > 0, and
///             the condition of ValidationOptions::negative_eigenvalue on each step. That one is
///             for Gram matrices formed anew at every step; for more steps on one Gram matrix see
///             `gram_run_length`.
/// Guarantee:  exact up to rounding in float64 (~1e-14), far inside the margin.
/// Complexity: about 0.3 µs per step; one allocation.
ValidationReport validate_quintics(const Quintics& schedule, const ValidationOptions& options);

/// `validate_quintics`, as a check.
/// @param who the caller, for the message: "AdaNewton", "coefficients.txt:7", …
/// @throws c10::Error that names the failing step and the σ at which it fails.
void check_quintics(const Quintics& schedule, const ValidationOptions& options,
                    const std::string& who);

/// How many steps, beginning with `first` (0-based), may share one Gram matrix.
///
/// In Gram space λ ← λ (a + bλ + cλ²)², so an eigenvalue −δ that rounding left grows with the
/// square of the product of the a's and finally diverges. Counts the steps until it passes
/// `tolerance` (in units of the squared largest singular value); at least 1, at most
/// schedule.size() − first; 0 after the last step.
int64_t gram_run_length(const Quintics& schedule, size_t first, double negative_eigenvalue,
                        double tolerance = 0.01);

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/coefficients/detail/validation_impl.hpp>
#endif
