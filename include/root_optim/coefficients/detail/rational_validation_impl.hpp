// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of coefficients/rational_validation.hpp.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/coefficients/rational.hpp>
#include <root_optim/coefficients/rational_validation.hpp>
#include <root_optim/coefficients/validation.hpp>  // Precision
#include <root_optim/core/finite.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

ROOT_OPTIM_INLINE RationalValidationOptions
RationalValidationOptions::for_precision(Precision precision) {
  TORCH_CHECK(precision != Precision::BFloat16,
              "root_optim::RationalValidationOptions: expected float32 or float64, got bfloat16, "
              "which carries no inverse");
  RationalValidationOptions options;
  options.precision = precision;
  options.start_slack = start_slack_of(precision, Normalization::Schatten8);
  if (precision == Precision::Float64) options.largest_gain = 1e14;
  return options;
}

namespace detail {

inline constexpr size_t most_poles = 16;

/// Bounds of f′ on [from, to]: each term's, (c − x²)/(x² + c)², which falls to −1/8c at x² = 3c and then rises.
struct Slopes {
  double least, largest;
};

ROOT_OPTIM_COLD inline Slopes slopes_of(const RationalStage& f, double from, double to) {
  Slopes s{f.constant, f.constant};
  const double y0 = from * from, y1 = to * to;
  for (size_t j = 0; j < f.poles.size(); ++j) {
    const double a = f.weights[j], c = f.poles[j];
    const double h0 = (c - y0) / ((c + y0) * (c + y0)), h1 = (c - y1) / ((c + y1) * (c + y1));
    const bool turns = y0 < 3 * c && 3 * c < y1;
    s.least += a * (turns ? -1 / (8 * c) : (std::min)(h0, h1));
    s.largest += a * (std::max)(h0, h1);
  }
  return s;
}

/// The largest value of ±f on [from, to] and where, by bisection: where f′ has one sign the ends decide, and
/// elsewhere its bounds say what may be missed, which shrinks with the square of the interval.
struct Extreme {
  double value, at;
};

ROOT_OPTIM_COLD inline Extreme extreme_of(const RationalStage& f, double from, double to,
                                          double sign) {
  Extreme best{sign * evaluate(f, to), to};
  const auto meet = [&](double x) {
    const double value = sign * evaluate(f, x);
    if (value > best.value) best = {value, x};
    return value;
  };
  struct Interval {
    double x0, x1, f0, f1;
  };
  std::vector<Interval> open{{from, to, meet(from), best.value}};
  for (int count = 0; !open.empty() && count < 100000; ++count) {
    const Interval i = open.back();
    open.pop_back();
    Slopes s = slopes_of(f, i.x0, i.x1);
    if (sign < 0) s = {-s.largest, -s.least};
    if (s.least >= 0 || s.largest <= 0) continue;
    // Two lines with the extreme slopes through the ends meet at the highest point that f can have.
    const double bound = (i.f1 * s.largest - i.f0 * s.least - s.least * s.largest * (i.x1 - i.x0)) /
                         (s.largest - s.least);
    if (bound <= best.value + 1e-12 * std::abs(best.value) || i.x1 - i.x0 < 1e-14 * i.x1) continue;
    const double middle =
        4 * i.x0 < i.x1 ? (i.x0 > 0 ? std::sqrt(i.x0 * i.x1) : 0.1 * i.x1) : 0.5 * (i.x0 + i.x1);
    const double f_middle = meet(middle);
    open.push_back({i.x0, middle, i.f0, f_middle});
    open.push_back({middle, i.x1, f_middle, i.f1});
  }
  return {sign * best.value, best.at};
}

/// The rounding error of a stage's output in the largest direction, at ‖X‖₂ <= norm.
///
/// √c (R + cI)⁻¹X is computed with an error of up to 1e-7 ‖R‖₂/c in float32, in the first stage, where ‖R‖_F = 1, of
/// 4e-8/c (measured: see `smallest_pole`), so that the stage's is Σ_j a_j/√c_j of that.
ROOT_OPTIM_COLD inline double rounding_of(const RationalStage& f, double norm, bool first,
                                          Precision precision) {
  const double unit = (first ? 4e-8 : 1e-7) * (precision == Precision::Float64 ? 0x1p-29 : 1);
  double sum = 0;
  for (size_t j = 0; j < f.poles.size(); ++j) {
    sum += f.weights[j] / std::sqrt(f.poles[j]) * unit * norm * norm / f.poles[j];
  }
  return sum;
}

/// What is wrong with a stage by itself; empty if nothing.
ROOT_OPTIM_COLD inline std::string problem_of(const RationalStage& f) {
  if (f.weights.size() != f.poles.size()) return "it needs a weight for every pole";
  if (f.poles.empty() || f.poles.size() > most_poles) return "it needs 1 to 16 poles";
  const auto usable = [](double v) { return is_finite(v) && v >= 0 && v <= 1e8; };
  if (!usable(f.constant)) return "its constant is negative, too large or not finite";
  for (const double a : f.weights) {
    if (!usable(a)) return "a weight is negative, too large or not finite";
  }
  for (const double c : f.poles) {
    if (!usable(c) || !(c > 0)) return "a pole is not positive, too large or not finite";
  }
  if (!(gain(f) > 0)) return "it sends everything to zero";
  return "";
}

}  // namespace detail

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE RationalReport
validate_rational(const RationalStages& schedule, const RationalValidationOptions& options) {
  RationalReport report;
  const auto fail = [&](size_t stage, std::string reason) {
    report.valid = false;
    report.failing_stage = static_cast<int64_t>(stage);
    report.reason = std::move(reason);
    return report;
  };
  for (const double v : {options.start_slack, options.output_bound, options.largest_gain}) {
    TORCH_CHECK(detail::is_finite(v) && v >= 0,
                "root_optim::validate_rational: expected finite options >= 0, got ", v);
  }
  TORCH_CHECK(options.precision != Precision::BFloat16,
              "root_optim::validate_rational: expected float32 or float64 inverses, got bfloat16");
  if (schedule.empty()) return fail(1, "the schedule has no stages");

  const double deepest = smallest_pole(options.precision);
  report.gain = 1;
  double start = 1 + options.start_slack;  // the end of a stage's interval, with rounding
  double low = RationalReport::low_sigma,
         exact = start;  // of the image of [low_sigma, 1 + u], without
  for (size_t t = 0; t < schedule.size(); ++t) {
    const RationalStage& f = schedule[t];
    std::string problem = detail::problem_of(f);
    if (!problem.empty()) return fail(t + 1, std::move(problem));
    RationalStageReport stage;
    stage.gain = gain(f);
    stage.norm = start;
    report.gain *= stage.gain;
    stage.relative_pole = *std::min_element(f.poles.begin(), f.poles.end()) / (start * start);
    if (stage.relative_pole < deepest) {
      return fail(t + 1, "its pole " + c10::str(stage.relative_pole) + " ‖R‖₂ lies below " +
                             c10::str(deepest) + " ‖R‖₂, where the inverse is lost in rounding");
    }
    if (report.gain > options.largest_gain) {
      return fail(t + 1, "the gain at zero reaches " + c10::str(report.gain) +
                             ", which lifts rounding errors; the largest allowed is " +
                             c10::str(options.largest_gain));
    }
    const detail::Extreme top = detail::extreme_of(f, 0, start, 1);
    stage.image_max = top.value;
    stage.arg_max = top.at;
    stage.rounding = detail::rounding_of(f, start, t == 0, options.precision);
    report.stages.push_back(stage);
    low = detail::extreme_of(f, low, exact, -1).value;
    exact = detail::extreme_of(f, 0, exact, 1).value;
    start = top.value + stage.rounding;
  }
  report.min_output = low;
  report.max_output = exact;
  report.rounding = start - exact;
  if (start > options.output_bound) {
    return fail(schedule.size(), "its output reaches " + c10::str(report.max_output) +
                                     " and rounding may add " + c10::str(report.rounding) +
                                     ", which together must stay below " +
                                     c10::str(options.output_bound));
  }
  report.valid = true;
  return report;
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void check_rational(const RationalStages& schedule,
                                                      const RationalValidationOptions& options,
                                                      const std::string& who) {
  const RationalReport report = validate_rational(schedule, options);
  TORCH_CHECK(report.valid, "root_optim::", who,
              ": expected a rational schedule that is safe for every matrix, "
              "got one whose stage ",
              report.failing_stage, " of ", schedule.size(), " fails: ", report.reason);
}

ROOT_OPTIM_INLINE bool allows_bfloat16_product(const RationalReport& report, double output_bound) {
  return report.valid && report.stages.size() >= 2 &&
         report.max_output + report.rounding + report.stages.back().gain / 512 <= output_bound;
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
