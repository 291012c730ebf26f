// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A slow, obvious float64 transcription of everything an optimizer step computes, one matrix at a
// time and line by line as docs/algorithm.md writes it. It shares no code with the library: that is
// its use. All tensors are float64 on the CPU.
#pragma once

#include "catch_torch.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

namespace test::reference {

using Triple = std::array<double, 3>;

inline const Triple kJordan{3.4445, -4.7750, 2.0315};

/// A stage of the iteration by inverses.
struct Stage {
  double constant;
  std::vector<double> weights, poles;
};

/// How the iteration is started.
enum class Start {
  FrobeniusFloor,  // X / max(|X|_F, eps)
  FrobeniusPlus,   // X / (|X|_F + eps)
  Schatten8,       // X / |X|_S8, the 8-norm of the singular values
  Schatten4        // the same of their 4-norm
};

enum class Split { None, Quantile, Absolute, RelativeToRms, Scaled };

enum class Scale { MatchRmsAdamW, Original, Spectral, None };

/// The settings of one matrix parameter.
struct MatrixRule {
  double lr = 1e-3;
  double weight_decay = 0.1;
  double momentum = 0.95;
  bool ema = false;
  bool nesterov = true;
  Split split = Split::Quantile;
  double split_value = 0.90;
  double split_offset = 0.0;
  int64_t split_passes = 1;
  bool split_gradient = false;  // else U
  Start start = Start::FrobeniusPlus;
  double eps = 1e-7;
  std::vector<Triple> schedule = std::vector<Triple>(5, kJordan);
  std::vector<Stage> stages;  // in place of the triples, if there are any
  Scale scale = Scale::MatchRmsAdamW;
  double update_beta = 0;  // of the balance; 0: none
};

/// The value at rank q (N - 1) of the sorted |U|, interpolated linearly between its neighbors.
inline double quantile_of_abs(const at::Tensor& u, double q) {
  const at::Tensor sorted = std::get<0>(u.abs().flatten().sort());
  const double rank = q * static_cast<double>(sorted.numel() - 1);
  const auto below = static_cast<int64_t>(std::floor(rank));
  const auto above = static_cast<int64_t>(std::ceil(rank));
  const double low = sorted[below].item<double>();
  const double high = sorted[above].item<double>();
  return low + (rank - std::floor(rank)) * (high - low);
}

/// The scaled split, entry by entry: limits of kappa r_i c_j / mean, from what the pass before has left.
inline at::Tensor split_by_scales(const at::Tensor& u, double kappa, int64_t passes) {
  const int64_t rows = u.size(0), cols = u.size(1);
  const at::Tensor body = u.clone();
  const auto from = u.accessor<double, 2>();
  auto to = body.accessor<double, 2>();
  for (int64_t pass = 0; pass < passes; ++pass) {
    std::vector<double> row(static_cast<size_t>(rows)), column(static_cast<size_t>(cols));
    double mean = 0;
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < cols; ++j) {
        const double size = std::abs(to[i][j]);
        row[static_cast<size_t>(i)] += size / static_cast<double>(cols);
        column[static_cast<size_t>(j)] += size / static_cast<double>(rows);
      }
      mean += row[static_cast<size_t>(i)] / static_cast<double>(rows);
    }
    if (mean == 0) return u;  // zero
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < cols; ++j) {
        const double limit =
            kappa * row[static_cast<size_t>(i)] * column[static_cast<size_t>(j)] / mean;
        to[i][j] = std::max(-limit, std::min(limit, from[i][j]));
      }
    }
  }
  return body;
}

/// B, what the split leaves for the orthogonalizer.
inline at::Tensor split_off_outliers(const at::Tensor& u, const MatrixRule& rule) {
  double epsilon = 0.0;
  switch (rule.split) {
    case Split::None:
      return u;
    case Split::Quantile:
      epsilon = quantile_of_abs(u, rule.split_value) + rule.split_offset;
      break;
    case Split::Absolute:
      epsilon = rule.split_value;
      break;
    case Split::RelativeToRms:
      epsilon = rule.split_value * std::sqrt((u * u).mean().item<double>());
      break;
    case Split::Scaled:
      return split_by_scales(u, rule.split_value, rule.split_passes);
  }
  if (epsilon == 0.0) return u;  // more than q zeros: no split
  // B itself, not U − O, which beside a large entry would round it away.
  return at::sign(u) * at::clamp_max(u.abs(), epsilon);
}

inline double norm_of(const at::Tensor& x) { return std::sqrt((x * x).sum().item<double>()); }

inline at::Tensor start_of(const at::Tensor& x, Start start, double eps) {
  switch (start) {
    case Start::FrobeniusFloor:
      return x / std::max(norm_of(x), eps);
    case Start::FrobeniusPlus:
      return x / (norm_of(x) + eps);
    case Start::Schatten4:
    case Start::Schatten8: {
      const double order = start == Start::Schatten4 ? 4 : 8;
      const double largest = x.numel() == 0 ? 0.0 : x.abs().max().item<double>();
      if (largest == 0.0) return x;
      const at::Tensor scaled = x / largest;
      const at::Tensor sigma = at::linalg_svdvals(scaled);
      return scaled / std::pow(sigma.pow(order).sum().item<double>(), 1 / order);
    }
  }
  throw std::logic_error("unreachable");
}

/// Newton-Schulz: X <- a X + (b A + c A^2) X with A = X X^T, one triple a step.
inline at::Tensor orthogonalize(const at::Tensor& matrix, const std::vector<Triple>& schedule,
                                Start start, double eps) {
  const bool tall = matrix.size(0) > matrix.size(1);
  at::Tensor x = start_of(tall ? matrix.t() : matrix, start, eps);
  for (const auto& [a, b, c] : schedule) {
    const at::Tensor gram = x.matmul(x.t());
    x = a * x + (b * gram + c * gram.matmul(gram)).matmul(x);
  }
  return tall ? x.t() : x;
}

/// By inverses: X <- a_0 X + sum_j a_j (X X^T + c_j I)^-1 X, one stage a step.
inline at::Tensor orthogonalize(const at::Tensor& matrix, const std::vector<Stage>& stages) {
  const bool tall = matrix.size(0) > matrix.size(1);
  at::Tensor x = start_of(tall ? matrix.t() : matrix, Start::Schatten4, 0);
  for (const Stage& f : stages) {
    const at::Tensor gram = x.matmul(x.t()), one = at::eye(x.size(0), at::kDouble);
    at::Tensor next = f.constant * x;
    for (size_t j = 0; j < f.poles.size(); ++j) {
      next = next + f.weights[j] * at::linalg_solve(gram + f.poles[j] * one, x);
    }
    x = next;
  }
  return tall ? x.t() : x;
}

/// What `orthogonalize` computes in exact arithmetic, without iterating on matrices: each singular
/// value goes through the polynomials, the singular vectors stay.
inline at::Tensor map_singular_values(const at::Tensor& matrix, const std::vector<Triple>& schedule,
                                      Start start, double eps) {
  if (matrix.numel() == 0) return matrix.clone();
  auto [u, sigma, vh] = at::linalg_svd(start_of(matrix, start, eps), /*full_matrices=*/false);
  for (const auto& [a, b, c] : schedule) {
    sigma = a * sigma + b * sigma.pow(3) + c * sigma.pow(5);
  }
  return (u * sigma).matmul(vh);
}

inline double scale_of(Scale scale, int64_t rows, int64_t cols) {
  const auto m = static_cast<double>(rows);
  const auto n = static_cast<double>(cols);
  switch (scale) {
    case Scale::MatchRmsAdamW:
      return 0.2 * std::sqrt(std::max(m, n));
    case Scale::Original:
      return std::sqrt(std::max(1.0, m / n));
    case Scale::Spectral:
      return std::sqrt(m / n);
    case Scale::None:
      return 1.0;
  }
  throw std::logic_error("unreachable");
}

/// One matrix parameter and its state.
struct Matrix {
  at::Tensor parameter;
  at::Tensor momentum = at::zeros_like(parameter);
  at::Tensor row_moment = at::zeros({parameter.size(0)}, at::kDouble);
  at::Tensor column_moment = at::zeros({parameter.size(1)}, at::kDouble);

  /// Y_ij = X_ij / sqrt(R_i C_j / mean R), as long as X, with the moments R and C of its rows and columns.
  at::Tensor balanced(const at::Tensor& x, double beta) {
    row_moment = beta * row_moment + (1.0 - beta) * (x * x).mean(1);
    column_moment = beta * column_moment + (1.0 - beta) * (x * x).mean(0);
    const at::Tensor y =
        x / at::sqrt(row_moment.unsqueeze(1) * column_moment.unsqueeze(0) / row_moment.mean());
    return y * (norm_of(x) / norm_of(y));
  }

  void step(const at::Tensor& raw, const MatrixRule& rule) {
    const double mu = rule.momentum;
    const at::Tensor gradient = rule.split_gradient ? split_off_outliers(raw, rule) : raw;
    if (rule.ema) {
      momentum = mu * momentum + (1.0 - mu) * gradient;
    } else {
      momentum = mu * momentum + gradient;
    }
    at::Tensor u = momentum;
    if (rule.nesterov) {
      u = rule.ema ? (1.0 - mu) * gradient + mu * momentum : gradient + mu * momentum;
    }
    const at::Tensor body = rule.split_gradient ? u : split_off_outliers(u, rule);
    at::Tensor x = rule.stages.empty() ? orthogonalize(body, rule.schedule, rule.start, rule.eps)
                                       : orthogonalize(body, rule.stages);
    if (rule.update_beta > 0) x = balanced(x, rule.update_beta);
    const double scale = scale_of(rule.scale, parameter.size(0), parameter.size(1));
    parameter = (1.0 - rule.lr * rule.weight_decay) * parameter - rule.lr * scale * x;
  }
};

/// One AdamW parameter and its moments.
struct AdamW {
  at::Tensor parameter;
  at::Tensor m = at::zeros_like(parameter);
  at::Tensor v = at::zeros_like(parameter);
  int64_t t = 0;

  void step(const at::Tensor& gradient, double lr, double beta1, double beta2, double eps,
            double weight_decay) {
    ++t;
    m = beta1 * m + (1.0 - beta1) * gradient;
    v = beta2 * v + (1.0 - beta2) * gradient * gradient;
    const at::Tensor m_hat = m / (1.0 - std::pow(beta1, static_cast<double>(t)));
    const at::Tensor v_hat = v / (1.0 - std::pow(beta2, static_cast<double>(t)));
    parameter = (1.0 - lr * weight_decay) * parameter - lr * m_hat / (v_hat.sqrt() + eps);
  }
};

/// The partial isometry U_r V_r^T over the singular values above tolerance * the largest.
inline at::Tensor polar_factor(const at::Tensor& x, double tolerance) {
  if (x.numel() == 0) return x.clone();
  const double largest = x.abs().max().item<double>();
  if (largest == 0.0) return at::zeros_like(x);
  const auto [u, sigma, vh] = at::linalg_svd(x / largest, /*full_matrices=*/false);
  const at::Tensor kept = sigma.gt(tolerance * sigma.max()).to(x.scalar_type());
  return (u * kept).matmul(vh);
}

}  // namespace test::reference
