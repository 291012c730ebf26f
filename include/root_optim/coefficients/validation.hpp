// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The check that every schedule passes before use: exact interval propagation through the critical
// points of each step, no sampling. Coefficients are untrusted input: one of the sets published
// with ROOT (arXiv 2511.20626, 2048x2048) sends some singular values to 3 after five steps and to
// 679 after six. The sets are in coefficients/published.hpp.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/coefficients/normalization.hpp>
#include <root_optim/coefficients/precision.hpp>
#include <root_optim/coefficients/quintic.hpp>
#include <root_optim/core/finite.hpp>
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
inline double start_slack_of(Precision precision, Normalization norm) {
  if (precision == Precision::BFloat16) return 0.01;
  if (precision == Precision::Float32 && norm == Normalization::Schatten8) return 1e-3;
  return 1e-6;
}

inline ValidationOptions ValidationOptions::for_precision(Precision precision, Normalization norm) {
  ValidationOptions options;
  options.start_slack = start_slack_of(precision, norm);
  if (precision == Precision::BFloat16) {
    options.margin = 0.02;  // with .01, of 10,000 adversarial spectra one came out as Inf
    // bA + cA² rounds by 2⁻⁹ of entries up to 10. Of well-conditioned matrices, whose singular values
    // a design may send to twice this floor at once, .001 flipped all directions and .02 some.
    options.sign_floor = 0.04;
    options.negative_eigenvalue = 1e-2;  // entries of G rounded by 2⁻⁹, ‖E‖₂ up to twice that
  } else if (precision == Precision::Float64) {
    options.negative_eigenvalue = 1e-14;
  }
  return options;
}

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
inline int critical_points(const Quintic& p, double out[2]) {
  // 5c y² + 3b y + a = 0 with y = x², by the form of the root formula that does not cancel.
  const double disc = 9 * p.b * p.b - 20 * p.a * p.c;
  if (!(disc > 0)) return 0;
  const double q = -0.5 * (3 * p.b + (p.b < 0 ? -std::sqrt(disc) : std::sqrt(disc)));
  const double limit = sigma_limit * sigma_limit;
  double y[2] = {-1, -1};
  if (std::abs(q) * limit > std::abs(p.a)) y[0] = p.a / q;
  if (std::abs(5 * p.c) * limit > std::abs(q)) y[1] = q / (5 * p.c);
  if (y[1] < y[0]) {
    const double t = y[0];
    y[0] = y[1];
    y[1] = t;
  }
  int count = 0;
  for (const double v : y) {
    if (v > 0) out[count++] = std::sqrt(v);
  }
  return count;
}

/// x in [lo, hi] with p(x) = level, for p monotone there and crossing the level; the end where p is
/// still on lo's side. Newton, kept in the bracket by bisection.
inline double crossing(const Quintic& p, double level, double lo, double hi) {
  const bool lo_below = evaluate(p, lo) < level;
  double x = 0.5 * (lo + hi);
  for (int i = 0; i < 80 && hi - lo > 4e-16 * hi; ++i) {
    const double value = evaluate(p, x) - level;
    if ((value < 0) == lo_below) {
      lo = x;
    } else {
      hi = x;
    }
    const double y = x * x;
    const double slope = p.a + y * (3 * p.b + y * 5 * p.c);
    double next = 0.5 * (lo + hi);
    if (std::abs(slope) * (hi - lo) > std::abs(value)) {
      const double newton = x - value / slope;
      if (std::abs(newton - x) <= 1e-15 * x) return newton < lo ? lo : (newton > hi ? hi : newton);
      if (newton > lo && newton < hi) next = newton;
    }
    x = next;
  }
  return lo;
}

struct Escape {
  double sigma = 0;
  bool low = false;  ///< by falling to the floor (true) or by exceeding the limit (false)
};

/// Largest σ such that on (0, σ] p does not exceed `limit` and, once past its first local maximum,
/// not fall to `floor`. Requires p.a > 0.
inline Escape escape_point(const Quintic& p, double limit, double floor) {
  double critical[2];
  const int count = critical_points(p, critical);
  double lo = 0;
  bool rising = true;
  for (int piece = 0; piece <= count; ++piece) {
    const bool last = piece == count;
    double hi = last ? (lo > 0.5 ? 2 * lo : 1) : critical[piece];
    if (last) {
      while (hi < sigma_limit && (rising ? evaluate(p, hi) <= limit : evaluate(p, hi) > floor)) {
        hi *= 2;
      }
    }
    const double end = evaluate(p, hi);
    if (rising && end > limit) return {crossing(p, limit, lo, hi), false};
    if (!rising && end <= floor) {
      const bool starts_above = evaluate(p, lo) > floor;  // else the maximum itself is too low
      return {starts_above ? crossing(p, floor, lo, hi) : lo, true};
    }
    lo = hi;
    rising = !rising;
  }
  return {sigma_limit, false};
}

/// Largest value of p on (0, end] and where; smallest value on [from, end].
struct Range {
  double max, arg_max, min;
};
inline Range range_of(const Quintic& p, double from, double end) {
  double critical[2];
  const int count = critical_points(p, critical);
  const double at_end = evaluate(p, end), at_from = evaluate(p, from);
  Range r{at_end, end, at_end < at_from ? at_end : at_from};
  for (int i = 0; i < count; ++i) {
    if (critical[i] >= end) break;
    const double value = evaluate(p, critical[i]);
    if (value > r.max) {
      r.max = value;
      r.arg_max = critical[i];
    }
    if (critical[i] > from && value < r.min) r.min = value;
  }
  return r;
}

inline std::string format_sigma(double value) {
  std::ostringstream out;
  out.precision(6);
  out << value;
  return out.str();
}

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
inline ValidationReport validate_quintics(const Quintics& schedule,
                                          const ValidationOptions& options) {
  ValidationReport report;
  const auto fail = [&](size_t step, double sigma, std::string reason) {
    report.valid = false;
    report.failing_step = static_cast<int64_t>(step);
    report.failing_sigma = sigma;
    report.reason = std::move(reason);
    return report;
  };
  const size_t steps = schedule.size();
  if (steps == 0) return fail(1, 0, "the schedule has no steps");

  for (const double v : {options.start_slack, options.margin, options.output_bound,
                         options.sign_floor, options.negative_eigenvalue}) {
    TORCH_CHECK(detail::is_finite(v) && v >= 0 && v <= detail::coefficient_limit,
                "root_optim::validate_quintics: expected options within [0, 1e4], got ", v);
  }
  report.slope = 1;
  for (size_t t = 0; t < steps; ++t) {
    const Quintic& p = schedule[t];
    for (const double v : {p.a, p.b, p.c}) {
      if (!detail::is_finite(v)) return fail(t + 1, 0, "a coefficient is not finite");
      if (std::abs(v) > detail::coefficient_limit) {
        return fail(t + 1, 0, "a coefficient exceeds 1e4 in magnitude");
      }
    }
    if (!(p.a > 0)) {
      return fail(t + 1, 0,
                  "its slope at zero, " + detail::format_sigma(p.a) +
                      ", is not positive: it flips or erases small singular values");
    }
    report.slope *= p.a;
  }

  // Backward: escape points.
  report.steps.resize(steps);
  std::vector<StepReport>& step = report.steps;
  std::vector<char> low(steps);
  double limit = options.output_bound;
  for (size_t t = steps; t-- > 0;) {
    const detail::Escape e = detail::escape_point(schedule[t], limit, options.sign_floor * limit);
    step[t].escape = limit = e.sigma;
    low[t] = e.low ? 1 : 0;
  }

  // What happens beyond the escape point of step t.
  const auto leaves = [&](size_t t) {
    while (!low[t] && t + 1 < steps) ++t;
    return ", from where step " + std::to_string(t + 1) +
           (low[t] ? " falls to zero or changes sign" : " exceeds the output bound");
  };

  // Forward: intervals with their margin.
  const double inflate = 1 + options.margin;
  const double start = 1 + options.start_slack;
  report.margin = step[0].escape / start - 1;
  if (start * inflate > step[0].escape) {
    return fail(1, step[0].escape,
                std::string("the start interval [0, ") + detail::format_sigma(start) +
                    "] must end " + detail::format_sigma(100 * options.margin) +
                    " % below σ = " + detail::format_sigma(step[0].escape) + leaves(0));
  }
  double end = start * inflate;
  double low_end = ValidationReport::low_sigma, exact_end = start;
  for (size_t t = 0; t < steps; ++t) {
    const Quintic& p = schedule[t];
    const detail::Range image = detail::range_of(p, 0, end);
    const bool last = t + 1 == steps;
    limit = last ? options.output_bound : step[t + 1].escape;
    step[t].image_max = image.max;
    step[t].arg_max = image.arg_max;
    if (limit / image.max - 1 < report.margin) report.margin = limit / image.max - 1;
    if (image.max * inflate > limit) {
      return fail(t + 1, image.arg_max,
                  "it sends σ = " + detail::format_sigma(image.arg_max) + " to " +
                      detail::format_sigma(image.max) + ", which must stay " +
                      detail::format_sigma(100 * options.margin) + " % below " +
                      detail::format_sigma(limit) + (last ? ", the output bound" : leaves(t + 1)));
    }
    // λ in [−δ end², 0]: the parabola's ends and, where inside, its vertex.
    const double lambda = -options.negative_eigenvalue * end * end;
    double lowest = p.a + lambda * (p.b + lambda * p.c), highest = lowest;
    if (2 * std::abs(p.c) * -lambda > std::abs(p.b) && p.b * p.c > 0) {
      const double vertex = p.a - p.b * p.b / (4 * p.c);
      if (vertex < lowest) lowest = vertex;
      if (vertex > highest) highest = vertex;
    }
    if (lowest <= 0 || highest > 2 * p.a) {
      return fail(t + 1, 0,
                  "a negative Gram eigenvalue of " + detail::format_sigma(lambda) +
                      ", which rounding can leave, would grow out of bounds");
    }
    // For the report: [low_end, exact_end] is the image of [low_sigma, 1 + u], without the margin.
    const detail::Range exact = detail::range_of(p, low_end, exact_end);
    low_end = exact.min;
    exact_end = exact.max;
    end = image.max * inflate;
  }
  report.min_output = low_end;
  report.max_output = exact_end;
  report.valid = true;
  return report;
}

/// `validate_quintics`, as a check.
/// @param who the caller, for the message: "AdaNewton", "coefficients.txt:7", …
/// @throws c10::Error that names the failing step and the σ at which it fails.
inline void check_quintics(const Quintics& schedule, const ValidationOptions& options,
                           const std::string& who) {
  const ValidationReport report = validate_quintics(schedule, options);
  TORCH_CHECK(report.valid, "root_optim::", who, ": expected coefficients that stay within (0, ",
              options.output_bound, "] for every matrix, got a schedule whose step ",
              report.failing_step, " of ", schedule.size(), " fails at σ = ", report.failing_sigma,
              ": ", report.reason);
}

/// How many steps, beginning with `first` (0-based), may share one Gram matrix.
///
/// In Gram space λ ← λ (a + bλ + cλ²)², so an eigenvalue −δ that rounding left grows with the
/// square of the product of the a's and finally diverges. Counts the steps until it passes
/// `tolerance` (in units of the squared largest singular value); at least 1, at most
/// schedule.size() − first; 0 behind the last step.
inline int64_t gram_run_length(const Quintics& schedule, size_t first, double negative_eigenvalue,
                               double tolerance = 0.01) {
  int64_t count = 0;
  double lambda = -negative_eigenvalue;
  for (size_t t = first; t < schedule.size(); ++t) {
    const Quintic& p = schedule[t];
    const double factor = p.a + lambda * (p.b + lambda * p.c);
    lambda *= factor * factor;
    if (count > 0 && -lambda > tolerance) break;
    ++count;
    if (-lambda > tolerance) break;
  }
  return count;
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
