// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of coefficients/validation.hpp.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/coefficients/normalization.hpp>
#include <root_optim/coefficients/precision.hpp>
#include <root_optim/coefficients/quintic.hpp>
#include <root_optim/coefficients/validation.hpp>
#include <root_optim/core/finite.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

ROOT_OPTIM_INLINE double start_slack_of(Precision precision, Normalization norm) {
  if (precision == Precision::BFloat16) return 0.01;
  if (precision == Precision::Float32 && norm == Normalization::Schatten8) return 1e-3;
  return 1e-6;
}

ROOT_OPTIM_INLINE ValidationOptions ValidationOptions::for_precision(Precision precision,
                                                                     Normalization norm) {
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

namespace detail {

ROOT_OPTIM_INLINE int critical_points(const Quintic& p, double out[2]) {
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

ROOT_OPTIM_INLINE Range range_of(const Quintic& p, double from, double end) {
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

}  // namespace detail

ROOT_OPTIM_INLINE ValidationReport validate_quintics(const Quintics& schedule,
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
                  "its slope at zero, " + c10::str(p.a) +
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
                std::string("the start interval [0, ") + c10::str(start) + "] must end " +
                    c10::str(100 * options.margin) + " % below σ = " + c10::str(step[0].escape) +
                    leaves(0));
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
                  "it sends σ = " + c10::str(image.arg_max) + " to " + c10::str(image.max) +
                      ", which must stay " + c10::str(100 * options.margin) + " % below " +
                      c10::str(limit) + (last ? ", the output bound" : leaves(t + 1)));
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
                  "a negative Gram eigenvalue of " + c10::str(lambda) +
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

ROOT_OPTIM_INLINE void check_quintics(const Quintics& schedule, const ValidationOptions& options,
                                      const std::string& who) {
  const ValidationReport report = validate_quintics(schedule, options);
  TORCH_CHECK(report.valid, "root_optim::", who, ": expected coefficients that stay within (0, ",
              options.output_bound, "] for every matrix, got a schedule whose step ",
              report.failing_step, " of ", schedule.size(), " fails at σ = ", report.failing_sigma,
              ": ", report.reason);
}

ROOT_OPTIM_INLINE int64_t gram_run_length(const Quintics& schedule, size_t first,
                                          double negative_eigenvalue, double tolerance) {
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
