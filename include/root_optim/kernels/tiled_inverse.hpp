// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The inverse Cholesky factors of large matrices, in place, tile by tile: the CPU's part of spd_inverse.hpp.
#pragma once

#include <algorithm>
#include <cstdint>

#include <root_optim/kernels/cholesky_leaf.hpp>
#include <root_optim/kernels/parallel.hpp>
#include <root_optim/kernels/tile_product.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Matrices [count, side, side] in tiles of 64 × 64, the last of a row or column smaller. side is a multiple of
/// `tile_unit`; rows are `row` apart.
template <class T>
struct Tiles {
  T* data;
  int64_t count, side, row;

  /// Tiles in a row or column of a matrix.
  int64_t tiles() const { return (side + leaf_size - 1) / leaf_size; }
  /// Rows of tile row i, columns of tile column i.
  int64_t size(int64_t i) const { return (std::min)(leaf_size, side - i * leaf_size); }
  T* at(int64_t matrix, int64_t i, int64_t j) const {
    return data + (matrix * side + i * leaf_size) * row + j * leaf_size;
  }
};

/// a ← R + cI, continued by the identity, with zeros below the tiles of the diagonal. r: [count, m, m], contiguous; the
/// upper triangles are read.
template <class T>
void load_shifted(const Tiles<T>& a, const T* r, int64_t m, T c) {
  for_each_in_turn(a.count * a.side, [&](int64_t task) {
    const int64_t matrix = task / a.side, i = task % a.side, tile = i / leaf_size * leaf_size;
    const T* const from = r + matrix * m * m;
    T* const to = a.at(matrix, 0, 0) + i * a.row;
    std::fill(to, to + a.side, T(0));
    if (i < m) {
      for (int64_t j = tile; j < i; ++j) to[j] = from[j * m + i];
      std::copy(from + i * m + i, from + i * m + m, to + i);
      to[i] += c;
    } else {
      to[i] = 1;
    }
  });
}

/// a ← L⁻¹ below and on the diagonal, LLᵀ = a, of what `load_shifted` left; see `factor_leaf` for `floor` and failures.
/// factor: [count, 64, 64], only used with `refine`, and not for one tile.
///
/// Math: elimination of 64 rows at a time turns [A | I] into [Lᵀ | L⁻¹]; both share one square, since a column of L⁻¹
///       begins where one of A ends. With W = L_pp⁻¹ the rows p are multiplied by W, which makes them L_ip ᵀ to the
///       right and final to the left of the diagonal, and L_ip times them is subtracted from the rows i > p.
/// Accuracy: multiplication by W leaves a residual of κ(L_pp) ε in L_ip, which grows into an error of the inverse of
///       (‖R‖₂/c)^1.5 ε or more; taken back once (`refine`), the error is LAPACK's.
/// Complexity: 2/3 m³ FLOP.
template <class T>
void invert_factor(const Tiles<T>& a, int64_t m, T floor, bool refine, T* factor, bool* failed) {
  constexpr int64_t n = leaf_size;
  const int64_t tiles = a.tiles(), row = a.row;
  for (int64_t p = 0; p < tiles; ++p) {
    const int64_t size = a.size(p);
    for_each_in_turn(a.count, [&](int64_t matrix) {
      if (!factor_leaf(a.at(matrix, p, p), row, (std::min)(n, m - p * n), floor,
                       refine && tiles > 1 ? factor + matrix * n * n : nullptr, n)) {
        failed[matrix] = true;
      }
    });
    for_each_in_turn(a.count * tiles, [&](int64_t task) {
      const int64_t matrix = task / tiles, j = task % tiles, columns = a.size(j);
      if (j == p) return;
      T* const x = a.at(matrix, p, j);
      const T* const w = a.at(matrix, p, p);
      alignas(64) T y[n * n];
      tile_product<T>({y, n, w, row, 1, x, row, size, columns, size, 1, false});
      if (refine && j > p) {
        const T* const l = factor + matrix * n * n;
        tile_product<T>({x, row, l, n, 1, y, n, size, columns, size, -1, true});
        tile_product<T>({y, n, w, row, 1, x, row, size, columns, size, 1, true});
      }
      for (int64_t i = 0; i < size; ++i) std::copy(y + i * n, y + i * n + columns, x + i * row);
    });
    const int64_t rest = tiles - p - 1;
    for_each_in_turn(a.count * rest * tiles, [&](int64_t task) {
      const int64_t matrix = task / (rest * tiles), i = p + 1 + task / tiles % rest,
                    j = task % tiles;
      if (p < j && j < i) return;  // by symmetry
      tile_product<T>({a.at(matrix, i, j), row, a.at(matrix, p, i), 1, row, a.at(matrix, p, j), row,
                       a.size(i), a.size(j), size, -1, true});
    });
  }
}

/// The upper triangle of sum ← sum + α WᵀW, W what `invert_factor` left in a. sum: [count, m, m], contiguous.
template <class T>
void add_gram_of_factor(T* sum, int64_t m, T alpha, const Tiles<T>& a) {
  constexpr int64_t n = leaf_size;
  const int64_t tiles = a.tiles();
  for_each_in_turn(a.count * tiles * tiles, [&](int64_t task) {
    const int64_t matrix = task / (tiles * tiles), i = task / tiles % tiles, j = task % tiles;
    if (j < i) return;
    alignas(64) T x[n * n];
    tile_product<T>({x, n, a.at(matrix, j, i), 1, a.row, a.at(matrix, j, j), a.row, a.size(i),
                     a.size(j), m - j * n, alpha, false});
    const int64_t rows = (std::min)(n, m - i * n), columns = (std::min)(n, m - j * n);
    for (int64_t k = 0; k < rows; ++k) {
      T* const to = sum + (matrix * m + i * n + k) * m + j * n;
      for (int64_t l = 0; l < columns; ++l) to[l] += x[k * n + l];
    }
  });
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
