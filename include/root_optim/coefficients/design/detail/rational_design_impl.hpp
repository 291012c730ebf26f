// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of coefficients/design/rational_design.hpp.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <root_optim/coefficients/design/detail/levenberg_marquardt.hpp>
#include <root_optim/coefficients/design/rational_design.hpp>
#include <root_optim/coefficients/detail/rational_validation_impl.hpp>  // extreme_of
#include <root_optim/coefficients/rational.hpp>
#include <root_optim/coefficients/rational_validation.hpp>
#include <root_optim/coefficients/spectrum.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

ROOT_OPTIM_INLINE Spectrum schatten4_spectrum(const Spectrum& spectrum, double count) {
  detail::check_spectrum(spectrum, "schatten4_spectrum");
  const double largest = *std::max_element(spectrum.sigma.begin(), spectrum.sigma.end());
  TORCH_CHECK(largest > 0, "root_optim::schatten4_spectrum: expected a value > 0, got zeros only");
  double sum = 0;
  for (size_t i = 0; i < spectrum.sigma.size(); ++i) {
    const double y = spectrum.sigma[i] / largest * (spectrum.sigma[i] / largest);
    sum += spectrum.weight[i] * y * y;
  }
  const double norm = largest * std::sqrt(std::sqrt((std::max)(1.0, count * sum)));
  Spectrum scaled = spectrum;
  for (double& sigma : scaled.sigma) sigma /= norm;
  return scaled;
}

ROOT_OPTIM_INLINE double expected_mse(const RationalStages& schedule, const Spectrum& spectrum) {
  detail::check_spectrum(spectrum, "expected_mse");
  double sum = 0;
  for (size_t i = 0; i < spectrum.sigma.size(); ++i) {
    const double error = evaluate(schedule, spectrum.sigma[i]) - 1;
    sum += spectrum.weight[i] * error * error;
  }
  return sum;
}

namespace detail {

/// The least-squares problem of a design in θ = (log a₀, log a_j, log(c_j − least pole)) of every stage, which keeps
/// weights positive and poles above their bound.
class RationalProblem {
 public:
  RationalProblem(const Spectrum& spectrum, const RationalDesignOptions& options)
      : poles_(options.poles), options_(options) {
    const double end = 1 + options.validation.start_slack;
    // Stages are scaled in the end so that every interval ends at 1: 2 % for rounding and slack.
    least_pole_ = 1.02 * end * end * smallest_pole(options.validation.precision);
    for (const int64_t count : poles_) dimension_ += static_cast<size_t>(2 * count + 1);
    for (size_t i = 0; i < spectrum.sigma.size(); ++i) {
      if (spectrum.weight[i] < 1e-18) continue;  // cannot move the fit
      nodes_.push_back({spectrum.sigma[i], std::sqrt(spectrum.weight[i])});
    }
    // Where the output must stay below its bound: 16 points a decade down to 1e-6.
    for (double x = end; x > 1e-6; x *= 0.8659643233600653) nodes_.push_back({x, 0});
  }

  size_t dimension() const { return dimension_; }

  /// theta after a step of the solver: by a factor of e³ at most, and where its exponential is finite.
  double moved(double theta, double step) const {
    const double next = theta - (std::min)((std::max)(step, -3.0), 3.0);
    return (std::min)((std::max)(next, -30.0), 15.0);
  }

  std::vector<double> parameters(const RationalStages& schedule) const {
    std::vector<double> theta;
    const auto logarithm = [](double v) { return std::log((std::max)(v, 1e-12)); };
    for (const RationalStage& f : schedule) {
      theta.push_back(logarithm(f.constant));
      for (const double a : f.weights) theta.push_back(logarithm(a));
      for (const double c : f.poles) theta.push_back(logarithm(c - least_pole_));
    }
    return theta;
  }

  RationalStages schedule(const std::vector<double>& theta) const {
    RationalStages result;
    const double* next = theta.data();
    for (const int64_t count : poles_) {
      RationalStage f;
      f.constant = std::exp(*next++);
      for (int64_t j = 0; j < count; ++j) f.weights.push_back(std::exp(*next++));
      for (int64_t j = 0; j < count; ++j) f.poles.push_back(least_pole_ + std::exp(*next++));
      result.push_back(std::move(f));
    }
    return result;
  }

  /// Sum of squares: weighted errors plus penalty × squared violations. With `gradient` and `hessian` (lower
  /// triangle, Gauss–Newton) also JᵀR and JᵀJ.
  double evaluate_at(const std::vector<double>& theta, double penalty, double* gradient,
                     double* hessian) const {
    const size_t d = dimension_;
    if (gradient != nullptr) {
      std::fill(gradient, gradient + d, 0.0);
      std::fill(hessian, hessian + d * d, 0.0);
    }
    const RationalStages stages = schedule(theta);
    const double root = std::sqrt(penalty);
    double cost = 0;
    std::vector<double> row(d), x(stages.size() + 1), top(x.size());
    const auto add = [&](double residual, double factor) {  // of ∂residual = factor × row
      cost += residual * residual;
      if (gradient == nullptr) return;
      for (size_t i = 0; i < d; ++i) {
        const double v = factor * row[i];
        gradient[i] += v * residual;
        for (size_t j = 0; j <= i; ++j) hessian[i * d + j] += v * (factor * row[j]);
      }
    };
    for (const Node& node : nodes_) {
      x[0] = node.sigma;
      for (size_t t = 0; t < stages.size(); ++t) x[t + 1] = evaluate(stages[t], x[t]);
      if (x[stages.size() - 1] > top[stages.size() - 1]) top = x;
      const double excess = x.back() - options_.largest_output;
      if (node.weight == 0 && excess <= 0) continue;
      if (gradient != nullptr) derivatives(stages, x, stages.size(), row);
      if (node.weight > 0) add(node.weight * (x.back() - 1), node.weight);
      if (node.weight == 0) add(root * excess, root);
    }
    // Logarithms of the gains, which are held a percent below their bounds.
    const auto limit_gain = [&](size_t from, double largest) {
      double excess = 0.01 - std::log(largest);
      std::fill(row.begin(), row.end(), 0.0);
      if (from > 0) {  // the stages before are scaled to a largest value of 1 in the end
        excess += std::log(top[from]);
        derivatives(stages, top, from, row);
        for (double& v : row) v /= top[from];
      }
      for (size_t t = 0, first = 0; t < stages.size(); ++t) {
        const RationalStage& f = stages[t];
        const size_t count = f.poles.size();
        if (t >= from) {
          const double g = gain(f);
          excess += std::log(g);
          row[first] = f.constant / g;
          for (size_t j = 0; j < count; ++j) {
            const double c = f.poles[j], term = f.weights[j] / c / g;
            row[first + 1 + j] = term;
            row[first + 1 + count + j] = -term * (c - least_pole_) / c;
          }
        }
        first += 2 * count + 1;
      }
      if (excess > 0) add(root * excess, root);
    };
    limit_gain(0, options_.validation.largest_gain);
    if (stages.size() > 1) limit_gain(stages.size() - 1, options_.last_gain);
    return cost;
  }

 private:
  struct Node {
    double sigma, weight;  // weight 0: for the bound alone
  };

  /// ∂x[count]/∂θ, x[t + 1] = f_t(x[t]): zero for later stages.
  void derivatives(const RationalStages& stages, const std::vector<double>& x, size_t count,
                   std::vector<double>& row) const {
    double chain = 1;
    size_t end = dimension_;
    for (size_t t = stages.size(); t-- > 0;) {
      const RationalStage& f = stages[t];
      const size_t poles = f.poles.size(), first = end - (2 * poles + 1);
      end = first;
      if (t >= count) continue;
      const double y = x[t] * x[t];
      double slope = f.constant;
      row[first] = chain * f.constant * x[t];
      for (size_t j = 0; j < poles; ++j) {
        const double c = f.poles[j], term = f.weights[j] / (y + c);
        row[first + 1 + j] = chain * term * x[t];
        row[first + 1 + poles + j] = -chain * term * x[t] * (c - least_pole_) / (y + c);
        slope += term * (c - y) / (c + y);
      }
      chain *= slope;
    }
  }

  std::vector<int64_t> poles_;
  RationalDesignOptions options_;
  double least_pole_ = 0;
  size_t dimension_ = 0;
  std::vector<Node> nodes_;
};

/// The same function with every stage but the last scaled to a largest value of 1, and the last down to the bound.
/// To 24 bits: compilers differ in the last ones of a double.
inline RationalStages rescaled(RationalStages schedule, const RationalDesignOptions& options) {
  double end = 1 + options.validation.start_slack,
         scale = 1;  // x of this stage × scale = x of the old one
  const auto round = [](double v) { return static_cast<double>(static_cast<float>(v)); };
  for (size_t t = 0; t < schedule.size(); ++t) {
    RationalStage& f = schedule[t];
    f.constant *= scale;
    for (double& a : f.weights) a /= scale;
    for (double& c : f.poles) c /= scale * scale;
    const double top = extreme_of(f, 0, end, 1).value;
    const bool last = t + 1 == schedule.size();
    const double factor =
        last ? (std::min)(1.0, options.largest_output * (1 - 1e-6) / top) : 1 / top;
    f.constant = round(f.constant * factor);
    for (double& a : f.weights) a = round(a * factor);
    for (double& c : f.poles) c = round(c);
    scale = top;
    end = 1;
  }
  return schedule;
}

/// Zolotarev's stages with poles above the least one: lows of a fixed grid for every stage.
inline std::vector<RationalStages> rational_starts(const RationalDesignOptions& options) {
  std::vector<double> lows;
  for (double low = 3e-4; low < 0.5; low *= 2.2) lows.push_back(low);
  const double least = smallest_pole(options.validation.precision);
  std::vector<RationalStages> starts{{}};
  for (size_t t = 0; t < options.poles.size(); ++t) {
    std::vector<RationalStages> longer;
    for (const double low : lows) {
      const RationalStage f =
          zolotarev_stage({options.poles[t], low}, t + 1 == options.poles.size());
      if (f.poles.front() < 1.1 * least) continue;
      for (const RationalStages& start : starts) {
        longer.push_back(start);
        longer.back().push_back(f);
      }
    }
    starts = std::move(longer);
  }
  return starts;
}

}  // namespace detail

ROOT_OPTIM_INLINE RationalDesign design_rational(
    const std::vector<std::pair<double, Spectrum>>& parts, const RationalDesignOptions& options) {
  TORCH_CHECK(!options.poles.empty() && options.poles.size() <= 3,
              "root_optim::design_rational: expected 1 to 3 stages, got ", options.poles.size());
  for (const int64_t count : options.poles) {
    TORCH_CHECK(count >= 1 && count <= 6,
                "root_optim::design_rational: expected 1 to 6 poles, got ", count);
  }
  double total = 0;
  for (const auto& part : parts) total += part.first;
  RationalDesign best;
  std::vector<std::pair<double, Spectrum>> weighted = parts;
  const auto score = [&](const RationalStages& schedule, RationalDesign& design) {
    design.mse = design.relative_error = 0;
    for (const auto& [weight, spectrum] : parts) {
      const double mse = expected_mse(schedule, spectrum);
      design.mse += weight / total * mse;
      design.relative_error += weight / total * std::sqrt(mse);
    }
    return design.relative_error;
  };
  const auto consider = [&](RationalStages schedule) {
    RationalDesign design;
    schedule = detail::rescaled(std::move(schedule), options);
    if (!best.schedule.empty() && !(score(schedule, design) < best.relative_error)) return;
    score(schedule, design);
    design.report = validate_rational(schedule, options.validation);
    if (!design.report.valid || design.report.max_output > options.largest_output) return;
    if (schedule.size() > 1 && gain(schedule.back()) > options.last_gain) return;
    design.schedule = std::move(schedule);
    best = std::move(design);
  };
  const auto reweight = [&](const RationalStages& schedule) {
    constexpr double floor = 0.003;  // parts with less error than this count alike
    for (size_t i = 0; i < parts.size(); ++i) {
      const double error = std::sqrt(expected_mse(schedule, parts[i].second));
      weighted[i].first = parts[i].first / (std::max)(error, floor);
    }
  };

  struct Candidate {
    double cost;
    std::vector<double> theta;
  };
  std::vector<Candidate> candidates;
  {
    const detail::RationalProblem problem(condensed(mixture(parts)), options);
    for (const RationalStages& start : detail::rational_starts(options)) {
      candidates.push_back({0, problem.parameters(start)});
      candidates.back().cost = problem.evaluate_at(candidates.back().theta, 10, nullptr, nullptr);
    }
  }
  const auto keep = [&](size_t count) {
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const Candidate& l, const Candidate& r) { return l.cost < r.cost; });
    if (candidates.size() > count) candidates.resize(count);
  };
  keep(24);
  const std::pair<double, int> rounds[] = {{10, 20}, {10, 40}, {100, 40}, {1e4, 40}, {1e6, 40}};
  for (const auto& [penalty, iterations] : rounds) {
    for (Candidate& c : candidates) {
      const detail::RationalProblem shape(parts.front().second, options);
      reweight(shape.schedule(c.theta));
      const detail::RationalProblem problem(condensed(mixture(weighted)), options);
      int64_t left = iterations;
      detail::levenberg_marquardt(problem, penalty, c.theta, left, 1e-5);
      RationalDesign design;
      const RationalStages schedule = problem.schedule(c.theta);
      c.cost = score(schedule, design);
      consider(schedule);
    }
    keep(8);
  }
  TORCH_CHECK(
      !best.schedule.empty(),
      "root_optim::design_rational: expected constraints that some schedule satisfies, got none "
      "that passes validation");
  return best;
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
