// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The matrices that benchmarks orthogonalize, each with its exact polar factor: Gaussian ones, ones
// with singular values of captured momentum, and low rank plus noise; and what a design for each
// family is made from.
#pragma once

#include <torch/torch.h>
#include <root_optim/coefficients/spectrum.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "../tools/momentum_spectra.hpp"

namespace benchmarks {

using tools::MomentumSpectrum;
using tools::part_of;
using tools::read_momentum_spectra;

enum class Family {
  Gaussian,
  HeavyTail,       ///< momentum, U
  HeavyTailSplit,  ///< momentum behind the published outlier split, B
  LowRankNoise     ///< rank m/16 with σ from 1 to .1, over a floor of noise of 1e-3
};

inline std::string name_of(Family family) {
  switch (family) {
    case Family::Gaussian:
      return "gaussian";
    case Family::HeavyTail:
      return "heavy_tail";
    case Family::HeavyTailSplit:
      return "heavy_tail_split";
    case Family::LowRankNoise:
      return "low_rank_noise";
  }
  return "unknown";
}

/// Whether a captured matrix has about the aspect of rows × cols, in either orientation.
inline bool same_aspect(const MomentumSpectrum& s, int64_t rows, int64_t cols) {
  const auto aspect = [](int64_t m, int64_t n) {
    return static_cast<double>(std::max(m, n)) / static_cast<double>(std::min(m, n));
  };
  const double ratio = aspect(s.rows, s.cols) / aspect(rows, cols);
  return ratio > 0.7 && ratio < 1.4;
}

/// Captured spectra for a shape: of the kind that a family stands for, of that aspect if there are
/// any, else of all.
inline std::vector<MomentumSpectrum> captured(Family family, bool held_out, int64_t rows,
                                              int64_t cols) {
  static const std::vector<MomentumSpectrum> all = read_momentum_spectra(MOMENTUM_SPECTRA);
  const std::vector<MomentumSpectrum> part =
      part_of(all, held_out, family == Family::HeavyTail ? "U" : "B");
  std::vector<MomentumSpectrum> same;
  for (const MomentumSpectrum& s : part) {
    if (same_aspect(s, rows, cols)) same.push_back(s);
  }
  return same.empty() ? part : same;
}

inline std::vector<double> low_rank_noise(int64_t count) {
  std::vector<double> sigma;
  for (int64_t i = 0; i < count; ++i) {
    const double q = static_cast<double>(i) / static_cast<double>(count);
    sigma.push_back(q < 1.0 / 16 ? std::pow(10.0, -16 * q) : 1e-3 * (1 - 0.5 * q));
  }
  return sigma;
}

/// A matrix and its exact polar factor, float64, rows <= cols.
struct Sample {
  at::Tensor matrix;
  at::Tensor polar;
};

/// How many samples of a family its figures are a mean of.
inline int64_t samples_of(Family family, int64_t rows) {
  const bool measured = family == Family::HeavyTail || family == Family::HeavyTailSplit;
  if (!measured) return 1;
  return rows <= 1024 ? 6 : 1;
}

/// Random singular vectors of a rows × cols matrix, made once per shape: a QR factorization in
/// float64 takes longer than all that is measured.
inline std::pair<at::Tensor, at::Tensor> singular_vectors(int64_t rows, int64_t cols) {
  static std::map<std::pair<int64_t, int64_t>, std::pair<at::Tensor, at::Tensor>> made;
  const auto orthonormal = [rows = rows](int64_t n) {
    return std::get<0>(at::linalg_qr(at::randn({n, rows}, at::kDouble)));
  };
  auto& pair = made[{rows, cols}];
  if (!pair.first.defined()) pair = {orthonormal(rows), orthonormal(cols)};
  return pair;
}

/// Sample number `index` of a family. Of the captured ones: held-out spectra, evenly over their
/// list (runs, depths of training and layers in turn), with random singular vectors.
inline Sample sample(Family family, int64_t rows, int64_t cols, int64_t index) {
  if (family == Family::Gaussian) {
    const at::Tensor x = at::randn({rows, cols}, at::kDouble);
    // Through XXᵀ in float64: exact to 1e-10 at the condition of a Gaussian matrix, and much
    // faster than an SVD.
    const auto [lambda, q] = at::linalg_eigh(x.matmul(x.t()));
    return {x, (q * lambda.rsqrt()).matmul(q.t()).matmul(x)};
  }
  std::vector<double> sigma;
  if (family == Family::LowRankNoise) {
    sigma = low_rank_noise(rows);
  } else {
    const auto spectra = captured(family, /*held_out=*/true, rows, cols);
    const auto count = static_cast<int64_t>(spectra.size());
    const int64_t pick = (2 * index + 1) * count / (2 * samples_of(family, rows));
    sigma = spectra[static_cast<size_t>(pick)].singular_values(rows);
  }
  const auto [u, v] = singular_vectors(rows, cols);
  const at::Tensor values = at::tensor(sigma, at::kDouble);
  return {(u * values).matmul(v.t()), u.matmul(v.t())};
}

/// What a design for a family and a shape is made from: the model of the Gaussian, captured spectra
/// that are not held out, in four parts by their median, or the known singular values.
inline std::vector<std::pair<double, root_optim::Spectrum>> parts_of(Family family, int64_t rows,
                                                                     int64_t cols) {
  using root_optim::Normalization;
  if (family == Family::Gaussian) {
    return {{1.0, root_optim::gaussian_spectrum(rows, cols, Normalization::Schatten8)}};
  }
  const int64_t count = std::min<int64_t>(rows, 256);
  if (family == Family::LowRankNoise) {
    return {{1.0, root_optim::measured_spectrum(low_rank_noise(count), Normalization::Schatten8)}};
  }
  std::vector<MomentumSpectrum> spectra = captured(family, /*held_out=*/false, rows, cols);
  std::stable_sort(spectra.begin(), spectra.end(),
                   [](const auto& l, const auto& r) { return l.sigma(0.5) > r.sigma(0.5); });
  std::vector<std::pair<double, root_optim::Spectrum>> parts;
  const size_t groups = std::min<size_t>(4, spectra.size());
  for (size_t g = 0; g < groups; ++g) {
    std::vector<std::pair<double, root_optim::Spectrum>> group;
    for (size_t i = spectra.size() * g / groups; i < spectra.size() * (g + 1) / groups; ++i) {
      group.emplace_back(1.0, root_optim::measured_spectrum(spectra[i].singular_values(count),
                                                            Normalization::Schatten8));
    }
    parts.emplace_back(1.0, root_optim::condensed(root_optim::mixture(group)));
  }
  return parts;
}

}  // namespace benchmarks
