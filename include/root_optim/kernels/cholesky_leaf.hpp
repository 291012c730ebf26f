// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The inverse Cholesky factor of one matrix that fits into the first cache: the leaves of tiled_inverse.hpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include <root_optim/core/finite.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

inline constexpr int64_t leaf_size = 64;

/// x[j] −= Σ_q g[q] u[q][j] for j < count, a multiple of 16 (chunks of known length, which compilers vectorize).
template <class T>
void subtract_rows(T* __restrict x, const T* __restrict u, const T g[4], int64_t count) {
  const T g0 = g[0], g1 = g[1], g2 = g[2], g3 = g[3];
  for (int64_t first = 0; first < count; first += 16) {
    T* __restrict const to = x + first;
    const T* __restrict const u0 = u + first;
    for (int j = 0; j < 16; ++j) {
      to[j] -= (g0 * u0[j] + g1 * u0[leaf_size + j]) +
               (g2 * u0[2 * leaf_size + j] + g3 * u0[3 * leaf_size + j]);
    }
  }
}

/// u ← v u, v unit lower triangular 4 × 4, u four rows of `count` numbers, a multiple of 16.
template <class T>
void combine_rows(T* __restrict u, const T v[4][4], int64_t count) {
  for (int64_t first = 0; first < count; first += 16) {
    T* __restrict const u0 = u + first;
    for (int j = 0; j < 16; ++j) {
      const T x0 = u0[j], x1 = u0[leaf_size + j], x2 = u0[2 * leaf_size + j];
      u0[leaf_size + j] += v[1][0] * x0;
      u0[2 * leaf_size + j] += v[2][0] * x0 + v[2][1] * x1;
      u0[3 * leaf_size + j] += v[3][0] * x0 + v[3][1] * x1 + v[3][2] * x2;
    }
  }
}

/// a ← L⁻¹ and, unless it is null, `factor` ← L with a = LLᵀ, n × n, n <= 64, their rows `stride` and `factor_stride`
/// apart; the lower triangle of a is read, zeros are written above the diagonals.
///
/// Math: elimination of four rows at a time turns [A | I] into [D Lᵀ | V], V unit lower triangular; both share one
///       square, since a column of V begins where one of A ends. L⁻¹ = D^−½ V, L = (D^−½ · D Lᵀ)ᵀ.
/// Pivots: `floor` > 0 is a lower bound of the eigenvalues, so of the pivots, which rounding may have missed: smaller
///       ones are raised to it. False, and the identity in both, if one is not finite or not above −floor.
/// Complexity: 2/3 n³ FLOP.
template <class T>
bool factor_leaf(T* a, int64_t stride, int64_t n, T floor, T* factor, int64_t factor_stride) {
  constexpr int64_t size = leaf_size;
  alignas(64)
      T b[size * size] = {};  // below the diagonal of A to the right of the panel, V to its left
  alignas(64) T u[4 * size] = {};  // the panel's rows
  T pivots[size];
  for (int64_t i = 0; i < n; ++i) std::copy(a + i * stride, a + i * stride + i + 1, b + i * size);
  const int64_t padded = (n + 3) / 4 * 4;
  for (int64_t i = n; i < padded; ++i) b[i * size + i] = 1;

  bool valid = true;
  for (int64_t p = 0; p < padded; p += 4) {
    T* const panel = b + p * size;
    // Cholesky without roots of the 4 × 4 block: l unit lower triangular, d its pivots; v = l⁻¹.
    T l[4][4] = {}, d[4], v[4][4] = {};
    for (int i = 0; i < 4; ++i) {
      for (int j = 0; j <= i; ++j) {
        T sum = panel[i * size + p + j];
        for (int k = 0; k < j; ++k) sum -= l[i][k] * d[k] * l[j][k];
        if (j < i) {
          l[i][j] = sum / d[j];
        } else {
          valid = valid && is_finite(static_cast<double>(sum)) && sum > -floor;
          d[i] = (std::max)(sum, floor);
        }
      }
      l[i][i] = v[i][i] = 1;
      for (int j = 0; j < i; ++j) {
        T sum = 0;
        for (int k = j; k < i; ++k) sum -= l[i][k] * v[k][j];
        v[i][j] = sum;
      }
      pivots[p + i] = d[i];
    }
    if (!valid) break;
    // The panel's rows [V | block | columns below, which are rows by symmetry], eliminated: times v.
    const int64_t whole = (padded + 15) / 16 * 16;
    for (int i = 0; i < 4; ++i) std::copy(panel + i * size, panel + i * size + p, u + i * size);
    for (int64_t j = p + 4; j < padded; ++j) {
      for (int i = 0; i < 4; ++i) u[i * size + j] = b[j * size + p + i];
    }
    combine_rows(u, v, whole);
    for (int i = 0; i < 4; ++i) {
      std::copy(v[i], v[i] + 4, u + i * size + p);
      std::copy(u + i * size, u + i * size + p + 4, panel + i * size);
    }
    for (int i = 0; factor != nullptr && i < 4 && p + i < n; ++i) {
      const T scale = 1 / std::sqrt(d[i]);
      T* const column = factor + p + i;
      for (int64_t j = 0; j < p; ++j) column[j * factor_stride] = 0;
      for (int j = 0; j < 4 && p + j < n; ++j)
        column[(p + j) * factor_stride] = j < i ? 0 : l[j][i] * d[i] * scale;
      for (int64_t j = p + 4; j < n; ++j) column[j * factor_stride] = u[i * size + j] * scale;
    }
    for (int64_t i = p + 4; i < padded; ++i) {
      T* const row = b + i * size;
      T g[4];
      for (int q = 0; q < 4; ++q) {
        g[q] = u[q * size + i] / d[q];
        row[p + q] = 0;
      }
      subtract_rows(row, u, g, (i + 16) / 16 * 16);
    }
  }
  for (int64_t i = 0; i < n; ++i) {
    T* const row = a + i * stride;
    const T scale = valid ? 1 / std::sqrt(pivots[i]) : 0;
    for (int64_t j = 0; j <= i; ++j) row[j] = b[i * size + j] * scale;
    std::fill(row + i + 1, row + n, T(0));
    if (valid) continue;
    row[i] = 1;
    if (factor != nullptr) {
      std::fill(factor + i * factor_stride, factor + i * factor_stride + n, T(0));
      factor[i * factor_stride + i] = 1;
    }
  }
  return valid;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
