// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Reads momentum_spectra.csv, the summary of real momentum that capture_spectra.cpp wrote, and fits
// the heavy-tailed families of the shipped design to it.
#pragma once

#include <root_optim/coefficients/spectrum.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace tools {

/// Quantiles of log10(σ/σ_max) of one momentum matrix, from the largest σ (0) to the smallest.
struct MomentumSpectrum {
  std::string run, matrix, kind;  ///< kind: U before the published split, B behind it
  int64_t step, rows, cols;
  bool held_out;
  std::vector<double> quantiles;

  /// σ/σ_max at the quantile q in [0, 1], counted from the largest; linear in the logarithm.
  double sigma(double q) const {
    const double at = q * static_cast<double>(quantiles.size() - 1);
    const auto below = std::min(static_cast<size_t>(at), quantiles.size() - 2);
    const double t = at - static_cast<double>(below);
    return std::pow(10.0, (1 - t) * quantiles[below] + t * quantiles[below + 1]);
  }

  /// `count` singular values, as of a matrix with that smaller side.
  std::vector<double> singular_values(int64_t count) const {
    std::vector<double> values;
    for (int64_t i = 0; i < count; ++i) {
      values.push_back(
          sigma(count == 1 ? 0 : static_cast<double>(i) / static_cast<double>(count - 1)));
    }
    return values;
  }
};

/// All lines of a summary.
inline std::vector<MomentumSpectrum> read_momentum_spectra(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot open " + path);
  std::vector<MomentumSpectrum> spectra;
  std::string line;
  std::getline(file, line);  // header
  while (std::getline(file, line)) {
    std::istringstream fields(line);
    MomentumSpectrum s;
    std::string text;
    const auto next = [&] {
      std::getline(fields, text, ',');
      return text;
    };
    s.run = next();
    s.matrix = next();
    s.kind = next();
    s.step = std::stoll(next());
    s.rows = std::stoll(next());
    s.cols = std::stoll(next());
    s.held_out = next() == "1";
    while (std::getline(fields, text, ',')) s.quantiles.push_back(std::stod(text));
    spectra.push_back(std::move(s));
  }
  return spectra;
}

/// The part that designs are made from (`held_out` false) or reported on; of one kind, or of both.
inline std::vector<MomentumSpectrum> part_of(const std::vector<MomentumSpectrum>& all,
                                             bool held_out, const std::string& kind = "") {
  std::vector<MomentumSpectrum> part;
  for (const MomentumSpectrum& s : all) {
    if (s.held_out == held_out && (kind.empty() || s.kind == kind)) part.push_back(s);
  }
  return part;
}

/// Those of some runs.
inline std::vector<MomentumSpectrum> of_runs(const std::vector<MomentumSpectrum>& all,
                                             const std::vector<std::string>& runs) {
  std::vector<MomentumSpectrum> part;
  for (const MomentumSpectrum& s : all) {
    if (std::find(runs.begin(), runs.end(), s.run) != runs.end()) part.push_back(s);
  }
  return part;
}

/// The family σ(q) = 10^−(d (2q)^k) nearest to the mean log-quantiles of `group`: least squares on a
/// grid of d and k, without the ends, which are single values.
inline root_optim::HeavyTail fit_heavy_tail(const std::vector<MomentumSpectrum>& group) {
  const size_t count = group.front().quantiles.size();
  std::vector<double> mean(count);
  for (const MomentumSpectrum& s : group) {
    for (size_t i = 0; i < count; ++i) {
      mean[i] += std::max(s.quantiles[i], -9.0) / static_cast<double>(group.size());
    }
  }
  double least = 1e300, depth = 1, power = 1;
  for (double d = 0.3; d < 6; d += 0.01) {
    for (double k = 0.2; k < 3; k += 0.02) {
      double error = 0;
      for (size_t i = 1; i + 1 < count; ++i) {
        const double q = static_cast<double>(i) / static_cast<double>(count - 1);
        const double e = mean[i] + d * std::pow(2 * q, k);
        error += e * e;
      }
      if (error < least) {
        least = error;
        depth = d;
        power = k;
      }
    }
  }
  return {std::pow(10.0, -depth), std::pow(10.0, depth * std::pow(2.0, power))};
}

/// Families for quarters of the spectra, from the shallowest to the deepest by their median.
inline std::vector<root_optim::HeavyTail> fit_heavy_tails(std::vector<MomentumSpectrum> spectra) {
  std::stable_sort(spectra.begin(), spectra.end(),
                   [](const auto& l, const auto& r) { return l.sigma(0.5) > r.sigma(0.5); });
  constexpr size_t groups = 4;
  std::vector<root_optim::HeavyTail> tails;
  for (size_t g = 0; g < groups; ++g) {
    const auto at = [&](size_t i) {
      return spectra.begin() + static_cast<std::ptrdiff_t>(spectra.size() * i / groups);
    };
    tails.push_back(fit_heavy_tail({at(g), at(g + 1)}));
  }
  return tails;
}

}  // namespace tools
