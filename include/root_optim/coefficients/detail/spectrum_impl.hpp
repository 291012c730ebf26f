// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of coefficients/spectrum.hpp.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/coefficients/normalization.hpp>
#include <root_optim/coefficients/quintic.hpp>
#include <root_optim/coefficients/spectrum.hpp>
#include <root_optim/core/finite.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE std::string problem_of(const Spectrum& spectrum) {
  if (spectrum.sigma.size() != spectrum.weight.size()) return "a weight for every sigma";
  double sum = 0;
  for (size_t i = 0; i < spectrum.sigma.size(); ++i) {
    const double sigma = spectrum.sigma[i], weight = spectrum.weight[i];
    if (!is_finite(sigma) || sigma < 0 || sigma > 1.001) return "sigma in [0, 1]";
    if (!is_finite(weight) || !(weight > 0)) return "weights > 0";
    sum += weight;
  }
  if (!spectrum.sigma.empty() && !(std::abs(sum - 1) < 1e-6)) return "weights that sum to one";
  return "";
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void check_spectrum(const Spectrum& spectrum, const char* who) {
  const std::string problem = spectrum.sigma.empty() ? "nodes" : problem_of(spectrum);
  TORCH_CHECK(problem.empty(), "root_optim::", who, ": expected a spectrum with ", problem,
              ", got another with ", spectrum.sigma.size(), " nodes and ", spectrum.weight.size(),
              " weights");
}

inline constexpr double pi = 3.14159265358979323846;

/// Nodes and weights of Gauss–Legendre quadrature on [−1, 1].
inline std::pair<std::vector<double>, std::vector<double>> gauss_legendre(int count) {
  const auto size = static_cast<size_t>(count);
  std::vector<double> x(size), w(size);
  for (int i = 0; i < count; ++i) {
    double z = std::cos(pi * (i + 0.75) / (count + 0.5)), derivative = 1;
    for (int iteration = 0; iteration < 50; ++iteration) {
      double p0 = 1, p1 = z;
      for (int k = 2; k <= count; ++k) {
        const double p2 = ((2 * k - 1) * z * p1 - (k - 1) * p0) / k;
        p0 = p1;
        p1 = p2;
      }
      derivative = count * (z * p1 - p0) / (z * z - 1);
      const double step = p1 / derivative;
      z -= step;
      if (std::abs(step) < 1e-15) break;
    }
    x[static_cast<size_t>(i)] = z;
    w[static_cast<size_t>(i)] = 2 / ((1 - z * z) * derivative * derivative);
  }
  return {std::move(x), std::move(w)};
}

/// (count Σ weight σ^p)^(1/p), at least the largest σ: the norm of a matrix with `count` singular
/// values so distributed.
inline double norm_of(const Spectrum& s, double count, Normalization norm) {
  const double p = norm == Normalization::Schatten8 ? 8 : 2;
  double largest = 0, sum = 0;
  for (const double v : s.sigma) largest = (std::max)(largest, v);
  if (!(largest > 0)) return 0;
  for (size_t i = 0; i < s.sigma.size(); ++i) {
    sum += s.weight[i] * std::pow(s.sigma[i] / largest, p);
  }
  return largest * (std::max)(1.0, std::pow(count * sum, 1 / p));
}

inline void normalize_weights(Spectrum& s) {
  double sum = 0;
  for (const double w : s.weight) sum += w;
  for (double& w : s.weight) w /= sum;
}

}  // namespace detail

ROOT_OPTIM_INLINE Spectrum gaussian_spectrum(int64_t rows, int64_t cols, Normalization norm,
                                             int nodes) {
  TORCH_CHECK(rows >= 1 && cols >= 1 && nodes >= 2 && nodes <= 64,
              "root_optim::gaussian_spectrum: expected rows, cols >= 1 and 2 to 64 nodes, got ",
              rows, ", ", cols, ", ", nodes);
  const auto m = static_cast<double>((std::min)(rows, cols));
  const auto n = static_cast<double>((std::max)(rows, cols));
  if ((std::min)(rows, cols) == 1) return {{1.0}, {1.0}};
  const double gamma = m / n, root = std::sqrt(gamma);
  const double scale = norm == Normalization::Schatten8
                           ? 1 / std::pow(m * (1 + gamma * (6 + gamma * (6 + gamma))), 0.125)
                           : 1 / std::sqrt(m);
  Spectrum s;
  const auto add = [&](double lambda, double weight) {
    s.sigma.push_back((std::min)(1.0, std::sqrt(lambda) * scale));
    s.weight.push_back(weight);
  };

  // Below φ = (1 − √γ)/γ^¼ the lower edge is flat; for γ = 1 σ is proportional to φ down to zero.
  const double lower_edge = (1 - root) * (1 - root);
  const double finest = (std::max)(1e-7, 0.2 * (1 - root) / std::sqrt(root));
  const auto [x, w] = detail::gauss_legendre(nodes);
  const double ratio = 1.5;
  for (double hi = detail::pi; hi > 0;) {
    const double lo = hi / ratio > finest ? hi / ratio : 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double phi = 0.5 * (lo + hi) + 0.5 * (hi - lo) * x[i];
      const double half = std::sin(0.5 * phi), sine = std::sin(phi);
      const double lambda = lower_edge + 4 * root * half * half;
      double density = 2 / detail::pi * sine * sine / lambda;
      if (rows == cols) {
        const double t = n * std::sqrt(lambda) / 0.65;
        density *= 1 + 0.55 * std::exp(-t * t);
      }
      add(lambda, 0.5 * (hi - lo) * w[i] * density);
    }
    hi = lo;
  }

  // Soft edges; ξ is the distance beyond the edge in units of the Tracy–Widom scale.
  const auto tail = [&](double edge, double width) {
    const auto [xi, wi] = detail::gauss_legendre(6);
    for (size_t i = 0; i < xi.size(); ++i) {
      const double z = 2 + 2 * xi[i];
      add(edge + z * width, 2 * wi[i] * 0.185 * std::exp(-z * (0.565 + 0.435 * std::sqrt(z))) / m);
    }
  };
  const double sm = std::sqrt(m), sn = std::sqrt(n);
  tail((1 + root) * (1 + root), (sn + sm) * std::cbrt(1 / sn + 1 / sm) / n);
  const double lower_width = (sn - sm) * std::cbrt(1 / sm - 1 / sn) / n;
  if (lower_edge > 8 * lower_width) tail(lower_edge, -lower_width);
  detail::normalize_weights(s);
  return s;
}

ROOT_OPTIM_INLINE Spectrum heavy_tailed_spectrum(int64_t count, Normalization norm,
                                                 const HeavyTail& shape, int nodes, int panels) {
  TORCH_CHECK(count >= 1 && nodes >= 2 && nodes <= 64 && panels >= 1,
              "root_optim::heavy_tailed_spectrum: expected count, panels >= 1 and 2 to 64 nodes, "
              "got ",
              count, ", ", panels, ", ", nodes);
  TORCH_CHECK(
      shape.median > 0 && shape.median < 1 && shape.condition > 1 / shape.median,
      "root_optim::heavy_tailed_spectrum: expected 0 < median < 1 < median * condition, got ",
      shape.median, " and ", shape.condition);
  const double depth = -std::log(shape.median);
  const double k = std::log2(std::log(shape.condition) / depth);
  const auto [x, w] = detail::gauss_legendre(nodes);
  Spectrum s;
  for (int panel = 0; panel < panels; ++panel) {
    for (size_t i = 0; i < x.size(); ++i) {
      const double q = (panel + 0.5 + 0.5 * x[i]) / panels;
      s.sigma.push_back(std::exp(-depth * std::pow(2 * q, k)));
      s.weight.push_back(0.5 * w[i] / panels);
    }
  }
  const double total = detail::norm_of(s, static_cast<double>(count), norm);
  for (double& v : s.sigma) v = (std::min)(1.0, v / total);
  return s;
}

ROOT_OPTIM_INLINE Spectrum measured_spectrum(std::vector<double> singular_values,
                                             Normalization norm) {
  const size_t count = singular_values.size();
  TORCH_CHECK(count > 0, "root_optim::measured_spectrum: expected singular values, got none");
  for (const double v : singular_values) {
    TORCH_CHECK(detail::is_finite(v) && v >= 0,
                "root_optim::measured_spectrum: expected finite values >= 0, got ", v);
  }
  Spectrum s;
  s.sigma = std::move(singular_values);
  s.weight.assign(count, 1.0 / static_cast<double>(count));
  const double total = detail::norm_of(s, static_cast<double>(count), norm);
  TORCH_CHECK(total > 0, "root_optim::measured_spectrum: expected a value > 0, got zeros only");
  for (double& v : s.sigma) v /= total;
  return s;
}

ROOT_OPTIM_INLINE Spectrum mixture(const std::vector<std::pair<double, Spectrum>>& parts) {
  TORCH_CHECK(!parts.empty(), "root_optim::mixture: expected at least one spectrum, got none");
  Spectrum s;
  for (const auto& [weight, part] : parts) {
    TORCH_CHECK(detail::is_finite(weight) && weight > 0,
                "root_optim::mixture: expected finite weights > 0, got ", weight);
    detail::check_spectrum(part, "mixture");
    s.sigma.insert(s.sigma.end(), part.sigma.begin(), part.sigma.end());
    for (const double w : part.weight) s.weight.push_back(weight * w);
  }
  detail::normalize_weights(s);
  return s;
}

ROOT_OPTIM_INLINE Spectrum condensed(const Spectrum& spectrum) {
  detail::check_spectrum(spectrum, "condensed");
  constexpr double per_decade = 12, decades = 9;
  std::vector<double> weight(static_cast<size_t>(per_decade * decades) + 1), sum(weight.size());
  for (size_t i = 0; i < spectrum.sigma.size(); ++i) {
    const double below_one = -std::log10((std::max)(spectrum.sigma[i], 1e-30)) * per_decade;
    const double bin = (std::min)((std::max)(below_one, 0.0), per_decade * decades);
    weight[static_cast<size_t>(bin)] += spectrum.weight[i];
    sum[static_cast<size_t>(bin)] += spectrum.weight[i] * spectrum.sigma[i];
  }
  Spectrum s;
  for (size_t bin = 0; bin < weight.size(); ++bin) {
    if (weight[bin] <= 0) continue;
    s.sigma.push_back(sum[bin] / weight[bin]);
    s.weight.push_back(weight[bin]);
  }
  detail::normalize_weights(s);
  return s;
}

ROOT_OPTIM_INLINE double expected_mse(const Quintics& schedule, const Spectrum& spectrum) {
  detail::check_spectrum(spectrum, "expected_mse");
  double sum = 0;
  for (size_t i = 0; i < spectrum.sigma.size(); ++i) {
    const double error = evaluate(schedule, spectrum.sigma[i]) - 1;
    sum += spectrum.weight[i] * error * error;
  }
  return sum;
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
