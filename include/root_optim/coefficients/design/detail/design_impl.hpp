// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of coefficients/design/design.hpp.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <root_optim/coefficients/design/design.hpp>
#include <root_optim/coefficients/design/detail/levenberg_marquardt.hpp>
#include <root_optim/coefficients/quintic.hpp>
#include <root_optim/coefficients/spectrum.hpp>
#include <root_optim/coefficients/validation.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

ROOT_OPTIM_INLINE Quintic minimax_quintic(double low, double high, double* error) {
  TORCH_CHECK(low > 0 && low <= high, "root_optim::minimax_quintic: expected 0 < low <= high, got ",
              low, " and ", high);
  const double l = low / high;
  Quintic p{15.0 / 8, -10.0 / 8, 3.0 / 8};  // the limit l → 1, where the equations are singular
  double e = 0;
  if (l < 1 - 1e-4) {
    // Alternation at l < q < r < 1: p = 1 − e, 1 + e, 1 − e, 1 + e. With y = x², p(x)/x is a
    // parabola in y; divided differences eliminate it.
    double q = (3 * l + 1) / 4, r = (l + 3) / 4;
    double previous = -1;
    for (int iteration = 0; iteration < 100; ++iteration) {
      const double x[4] = {l, q, r, 1};
      double one = 0, sign = 0;  // third divided differences of 1/x and ∓1/x over y
      for (int i = 0; i < 4; ++i) {
        double denominator = x[i];
        for (int j = 0; j < 4; ++j) {
          if (j != i) denominator *= x[i] * x[i] - x[j] * x[j];
        }
        one += 1 / denominator;
        sign += (i % 2 == 0 ? -1 : 1) / denominator;
      }
      e = -one / sign;
      // Newton's form through the first three points.
      double y[3], f[3];
      for (int i = 0; i < 3; ++i) {
        y[i] = x[i] * x[i];
        f[i] = (1 + (i % 2 == 0 ? -e : e)) / x[i];
      }
      const double f01 = (f[1] - f[0]) / (y[1] - y[0]), f12 = (f[2] - f[1]) / (y[2] - y[1]);
      p.c = (f12 - f01) / (y[2] - y[0]);
      p.b = f01 - p.c * (y[0] + y[1]);
      p.a = f[0] - y[0] * (p.b + p.c * y[0]);
      double critical[2];
      if (detail::critical_points(p, critical) < 2) break;
      q = critical[0];
      r = critical[1];
      if (std::abs(e - previous) <= 1e-15) break;
      previous = e;
    }
  }
  if (error != nullptr) *error = e;
  const double s = 1 / high, s2 = s * s;
  return {p.a * s, p.b * s * s2, p.c * s * s2 * s2};
}

namespace detail {

/// The least-squares problem of a design, in the gauge where every step maps [0, 1] into
/// (0, limit]: the scale between two steps is free, and so chosen that forward invariance becomes
/// four bounds on each triple by itself.
class DesignProblem {
 public:
  DesignProblem(const Spectrum& spectrum, const DesignOptions& options)
      : steps_(static_cast<size_t>(options.steps)),
        inflate_(1 + options.validation.margin + 1e-6),  // more than rounding can eat
        floor_(2 * options.validation.sign_floor) {
    start_ = (1 + options.validation.start_slack) * inflate_;
    output_ = options.validation.output_bound / inflate_ * (1 - 1e-6);
    for (size_t i = 0; i < spectrum.sigma.size(); ++i) {
      // Weights below 1e-18 cannot move the fit.
      if (spectrum.weight[i] < 1e-18) continue;
      x_.push_back(spectrum.sigma[i] / start_);
      root_weight_.push_back(std::sqrt(spectrum.weight[i]));
    }
  }

  size_t dimension() const { return 3 * steps_; }

  /// theta after a step of the solver.
  double moved(double theta, double step) const { return theta - step; }

  /// The minimax composition for [low, 1]: Polar Express in this gauge.
  std::vector<double> start(double low) const {
    std::vector<double> theta;
    for (size_t t = 0; t < steps_; ++t) {
      const bool last = t + 1 == steps_;
      double e = 0;
      // Below this the local minimum would fall under the floor.
      const double l = (std::max)(low, 0.5 * floor_ + 1e-6);
      const Quintic p = minimax_quintic(l, 1, &e);
      const double top = 1 + e;
      const double scale = last ? (std::min)(1.0, output_ / top) : 1 / (top * inflate_);
      theta.insert(theta.end(), {p.a * scale, p.b * scale, p.c * scale});
      low = (std::min)(evaluate(p, (std::min)(low, 1.0)), 1 - e) * scale;
    }
    return theta;
  }

  /// The parameters of a schedule that maps the start interval into positive numbers.
  std::vector<double> parameters(const Quintics& schedule) const {
    std::vector<double> theta;
    double end = start_;
    for (size_t t = 0; t < steps_; ++t) {
      const Quintic& p = schedule[t];
      const double next = t + 1 == steps_ ? 1 : range_of(p, 0, end).max * inflate_;
      const double e2 = end * end, scale = end / next;
      theta.insert(theta.end(), {p.a * scale, p.b * scale * e2, p.c * scale * e2 * e2});
      end = next;
    }
    return theta;
  }

  /// Sum of squares: weighted errors plus penalty × squared violations. With `gradient` and
  /// `hessian` (lower triangle, Gauss–Newton) also JᵀR and JᵀJ.
  double evaluate_at(const std::vector<double>& theta, double penalty, double* gradient,
                     double* hessian) const {
    const size_t d = dimension();
    if (gradient != nullptr) {
      std::fill(gradient, gradient + d, 0.0);
      std::fill(hessian, hessian + d * d, 0.0);
    }
    double cost = 0;
    Rows rows{};  // the Jacobian of four nodes
    std::array<double, max_steps + 1> z{};
    for (size_t i = 0; i < x_.size(); ++i) {
      z[0] = x_[i];
      for (size_t t = 0; t < steps_; ++t) {
        const double y = z[t] * z[t];
        z[t + 1] = z[t] * (theta[3 * t] + y * (theta[3 * t + 1] + y * theta[3 * t + 2]));
      }
      const double residual = root_weight_[i] * (z[steps_] - 1);
      cost += residual * residual;
      if (gradient == nullptr) continue;
      double* row = rows[i % 4].data();
      double chain = root_weight_[i];
      for (size_t t = steps_; t-- > 0;) {
        const double y = z[t] * z[t];
        row[3 * t] = chain * z[t];
        row[3 * t + 1] = row[3 * t] * y;
        row[3 * t + 2] = row[3 * t + 1] * y;
        chain *= theta[3 * t] + y * (3 * theta[3 * t + 1] + y * 5 * theta[3 * t + 2]);
      }
      for (size_t j = 0; j < d; ++j) gradient[j] += row[j] * residual;
      if (i % 4 == 3 || i + 1 == x_.size()) {
        for (size_t k = i % 4 + 1; k < 4; ++k) rows[k].fill(0);
        add_rows(rows, hessian);
      }
    }
    for (size_t t = 0; t < steps_; ++t) {
      cost += bounds(theta, t, penalty, gradient, hessian);
    }
    return cost;
  }

  /// The schedule of theta, rescaled so that every interval fits exactly.
  Quintics quintics(const std::vector<double>& theta) const {
    Quintics result;
    double end = start_, scale = 1 / start_;
    for (size_t t = 0; t < steps_; ++t) {
      const double s2 = scale * scale;
      Quintic p{theta[3 * t] * scale, theta[3 * t + 1] * scale * s2,
                theta[3 * t + 2] * scale * s2 * s2};
      const double top = range_of(p, 0, end).max;
      if (t + 1 == steps_ && top > output_) {
        const double k = output_ / top;
        p = {p.a * k, p.b * k, p.c * k};
      }
      result.push_back(p);
      end = top * inflate_;
      scale = end > 1 ? 1 / end : 1;
      end = end > 1 ? end : 1;
    }
    return result;
  }

 private:
  static constexpr size_t max_steps = 16;
  using Rows = std::array<std::array<double, 3 * max_steps>, 4>;

  /// Four rows at a time: a quarter of the loads and stores of the matrix, which dominate.
  void add_rows(const Rows& rows, double* hessian) const {
    const size_t d = dimension();
    const double *r0 = rows[0].data(), *r1 = rows[1].data(), *r2 = rows[2].data(),
                 *r3 = rows[3].data();
    for (size_t i = 0; i < d; ++i) {
      double* h = hessian + i * d;
      const double a = r0[i], b = r1[i], c = r2[i], e = r3[i];
      for (size_t j = 0; j <= i; ++j) h[j] += (a * r0[j] + b * r1[j]) + (c * r2[j] + e * r3[j]);
    }
  }

  /// Bounds of step t on [0, 1]: local maximum and end below the limit, local minimum and end above
  /// the floor. By the envelope theorem the derivative at a critical point is that of the value.
  double bounds(const std::vector<double>& theta, size_t t, double penalty, double* gradient,
                double* hessian) const {
    const Quintic p{theta[3 * t], theta[3 * t + 1], theta[3 * t + 2]};
    const double limit = t + 1 == steps_ ? output_ : 1 / inflate_;
    double points[3] = {1, 0, 0};
    int count = critical_points(p, points + 1);
    double cost = 0;
    for (int i = 0; i <= count; ++i) {
      const double x = points[i];
      if (x > 1) continue;
      const double value = evaluate(p, x);
      double violation = 0;
      if (value > limit) violation = value - limit;
      if (value < floor_ * limit) violation = value - floor_ * limit;
      if (violation == 0) continue;
      const double root = std::sqrt(penalty), residual = root * violation;
      cost += residual * residual;
      if (gradient == nullptr) continue;
      const double row[3] = {root * x, root * x * x * x, root * x * x * x * x * x};
      for (size_t j = 0; j < 3; ++j) {
        gradient[3 * t + j] += row[j] * residual;
        for (size_t k = 0; k <= j; ++k) {
          hessian[(3 * t + j) * dimension() + 3 * t + k] += row[j] * row[k];
        }
      }
    }
    return cost;
  }

  size_t steps_;
  double inflate_, floor_, start_ = 1, output_ = 1;
  std::vector<double> x_, root_weight_;
};

inline void check_steps(int64_t steps) {
  TORCH_CHECK(steps >= 1 && steps <= 16,
              "root_optim::design_quintics: expected 1 to 16 steps, got ", steps);
}

/// options.max_iterations, or the number that takes about 20 ms.
inline int64_t iteration_limit(const DesignOptions& options, size_t nodes) {
  if (options.max_iterations > 0) return options.max_iterations;
  const double d = 3 * static_cast<double>(options.steps);
  const double nanoseconds = static_cast<double>(nodes) * d * (0.225 * d + 3);  // measured
  return std::max<int64_t>(60, static_cast<int64_t>(18e6 / nanoseconds));
}

}  // namespace detail

ROOT_OPTIM_INLINE Design design_quintics(const Spectrum& spectrum, const DesignOptions& options) {
  detail::check_steps(options.steps);
  detail::check_spectrum(spectrum, "design_quintics");
  const detail::DesignProblem problem(spectrum, options);
  Design best;
  const auto consider = [&](const std::vector<double>& theta) {
    Quintics schedule = problem.quintics(theta);
    const double mse = expected_mse(schedule, spectrum);
    if (!best.quintics.empty() && !(mse < best.mse)) return;
    ValidationReport report = validate_quintics(schedule, options.validation);
    if (!report.valid) return;
    best.quintics = std::move(schedule);
    best.mse = mse;
    best.report = std::move(report);
  };

  const int64_t limit = detail::iteration_limit(options, spectrum.sigma.size());

  // Starts by their lower end. A third of the iterations for all, a third for the best third, the
  // rest for the best two, under rising penalties.
  struct Candidate {
    double cost;
    std::vector<double> theta;
  };
  std::vector<Candidate> candidates;
  const double deepest = 0.3 * std::pow(4.0, -static_cast<double>(options.steps));
  const size_t most = static_cast<size_t>(std::max<int64_t>(4, limit / 24));
  for (double low = deepest; low < 0.9 && candidates.size() < most; low *= 1.8) {
    candidates.push_back({0, problem.start(low)});
    consider(candidates.back().theta);
  }
  if (options.warm_start.size() == static_cast<size_t>(options.steps) &&
      validate_quintics(options.warm_start, options.validation).valid) {
    candidates.push_back({0, problem.parameters(options.warm_start)});
    consider(candidates.back().theta);
  }
  int64_t used = 0;
  const auto refine = [&](double penalty, int64_t share, double tolerance) {
    for (Candidate& c : candidates) {
      int64_t left = std::max<int64_t>(share / static_cast<int64_t>(candidates.size()), 4);
      used += left;
      c.cost = detail::levenberg_marquardt(problem, penalty, c.theta, left, tolerance);
      used -= left;
      consider(c.theta);
    }
    std::sort(candidates.begin(), candidates.end(),
              [](const Candidate& l, const Candidate& r) { return l.cost < r.cost; });
  };
  const auto keep = [&](size_t count) {
    if (candidates.size() > count) candidates.resize(count);
  };
  refine(10, limit / 3, 1e-3);
  keep(std::max<size_t>(2, candidates.size() / 3));
  refine(10, limit / 3, 1e-4);
  keep(2);
  refine(100, limit / 6, 1e-5);
  refine(1e4, limit / 6, 1e-6);
  refine(1e6, limit / 6, 1e-6);
  TORCH_CHECK(!best.quintics.empty(),
              "root_optim::design_quintics: expected constraints that some schedule satisfies, got "
              "none that passes validation in ",
              options.steps, " steps");
  best.iterations = used;
  best.relative_error = std::sqrt(best.mse);
  return best;
}

ROOT_OPTIM_INLINE Design design_mixture(const std::vector<std::pair<double, Spectrum>>& parts,
                                        const DesignOptions& options) {
  detail::check_steps(options.steps);
  constexpr int64_t rounds = 4;
  constexpr double floor = 0.003;  // parts with less error than this count alike
  double total = 0;
  for (const auto& part : parts) total += part.first;
  const auto score = [&](Design& design) {
    design.mse = design.relative_error = 0;
    for (const auto& [weight, spectrum] : parts) {
      const double mse = expected_mse(design.quintics, spectrum);
      design.mse += weight / total * mse;
      design.relative_error += weight / total * std::sqrt(mse);
    }
  };
  std::vector<std::pair<double, Spectrum>> weighted = parts;
  const auto reweight = [&](const Quintics& schedule) {
    for (size_t i = 0; i < parts.size(); ++i) {
      const double error = std::sqrt(expected_mse(schedule, parts[i].second));
      weighted[i].first = parts[i].first / (std::max)(error, floor);
    }
  };
  // The first weights come from a minimax composition.
  const Spectrum nodes = mixture(parts);
  const detail::DesignProblem minimax(nodes, options);
  const Quintics start =
      minimax.quintics(minimax.start(0.5 * std::pow(4.0, -static_cast<double>(options.steps))));
  reweight(start);
  DesignOptions first = options;
  const int64_t limit = detail::iteration_limit(options, nodes.sigma.size());
  first.max_iterations = std::max<int64_t>(1, limit / 2);
  Design best = design_quintics(mixture(weighted), first);
  score(best);
  if (parts.size() == 1) return best;
  const auto consider = [&](const Quintics& schedule) {
    Design design;
    design.quintics = schedule;
    score(design);
    if (!(design.relative_error < best.relative_error)) return;
    design.report = validate_quintics(schedule, options.validation);
    if (design.report.valid) best = std::move(design);
  };
  int64_t used = best.iterations;
  consider(start);
  if (options.warm_start.size() == start.size()) consider(options.warm_start);

  Quintics current = best.quintics;
  for (int64_t round = 0; round < rounds; ++round) {
    reweight(current);
    const detail::DesignProblem problem(mixture(weighted), options);
    std::vector<double> theta = problem.parameters(current);
    for (const double penalty : {100.0, 1e4, 1e6}) {
      int64_t left = std::max<int64_t>(limit / (6 * rounds), 4);
      used += left;
      detail::levenberg_marquardt(problem, penalty, theta, left, 1e-5);
      used -= left;
    }
    current = problem.quintics(theta);
    consider(current);
  }
  best.iterations = used;
  return best;
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
