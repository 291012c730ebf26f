// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Matrices for the tests: random ones from a private seed, ones with given singular values, and the
// list of inputs that are hard to orthogonalize.
#pragma once

#include "catch_torch.hpp"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace test {

/// Standard normal numbers, float64 on the CPU, from a generator of their own: tests neither depend
/// on the global seed nor change it.
inline at::Tensor gaussian(at::IntArrayRef sizes, uint64_t seed) {
  return at::randn(sizes, at::detail::createCPUGenerator(seed), at::kDouble);
}

/// A matrix with orthonormal rows or columns, whichever are fewer.
inline at::Tensor orthonormal(int64_t rows, int64_t cols, uint64_t seed) {
  const bool tall = rows >= cols;
  const at::Tensor q =
      std::get<0>(at::linalg_qr(gaussian({std::max(rows, cols), std::min(rows, cols)}, seed)));
  return tall ? q : q.t().contiguous();
}

/// A rows x cols matrix with the singular values `sigma` (min(rows, cols) of them).
inline at::Tensor with_singular_values(int64_t rows, int64_t cols, const at::Tensor& sigma,
                                       uint64_t seed) {
  const int64_t rank = std::min(rows, cols);
  const at::Tensor u = orthonormal(rows, rank, seed);
  const at::Tensor v = orthonormal(cols, rank, seed + 1);
  return (u * sigma).matmul(v.t());
}

/// What training makes momentum look like: singular values from 1 down to 1 / condition, evenly
/// spaced in the logarithm.
inline at::Tensor heavy_tailed(int64_t rows, int64_t cols, double condition, uint64_t seed) {
  const int64_t rank = std::min(rows, cols);
  const at::Tensor exponents = at::linspace(0.0, -std::log10(condition), rank, at::kDouble);
  return with_singular_values(rows, cols, at::pow(10.0, exponents), seed);
}

/// Rank `rank` exactly up to rounding: a product of two thin Gaussian factors.
inline at::Tensor low_rank(int64_t rows, int64_t cols, int64_t rank, uint64_t seed) {
  return gaussian({rows, rank}, seed).matmul(gaussian({rank, cols}, seed + 1));
}

struct Spectrum {
  std::string name;
  at::Tensor matrix;  // float64 on the CPU
};

/// Inputs that break orthogonalizers. Every one has a polar factor (of zero: zero).
inline std::vector<Spectrum> hard_spectra() {
  const at::Tensor wide = gaussian({24, 64}, 1);
  return {
      {"Gaussian wide", wide},
      {"Gaussian tall", gaussian({64, 24}, 2)},
      {"Gaussian square", gaussian({48, 48}, 3)},
      {"heavy-tailed, condition 1e10", heavy_tailed(32, 96, 1e10, 4)},
      {"heavy-tailed square, condition 1e10", heavy_tailed(48, 48, 1e10, 5)},
      {"rank 1", low_rank(24, 64, 1, 6)},
      {"rank 5 of 24", low_rank(24, 64, 5, 7)},
      {"orthogonal", orthonormal(32, 32, 8)},
      {"orthonormal rows", orthonormal(16, 48, 9)},
      {"one large singular value",
       with_singular_values(
           24, 40, at::cat({at::full({1}, 1e4, at::kDouble), at::ones({23}, at::kDouble)}), 10)},
      {"zero", at::zeros({12, 20}, at::kDouble)},
      {"scale 1e-30", wide * 1e-30},
      {"scale 1e+30", wide * 1e+30},
      {"1 x n", gaussian({1, 40}, 11)},
      {"n x 1", gaussian({40, 1}, 12)},
      {"1 x 1", at::full({1, 1}, -3.0, at::kDouble)},
      {"0 x n", at::empty({0, 16}, at::kDouble)},
      {"n x 0", at::empty({16, 0}, at::kDouble)},
      {"transposed view", gaussian({64, 24}, 13).t()},
      {"strided view", gaussian({48, 128}, 14).slice(0, 0, 48, 2).slice(1, 0, 128, 2)},
  };
}

}  // namespace test
