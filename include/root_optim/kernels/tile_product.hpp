// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Products of tiles that fit into the first cache, by the widest vectors of the CPU: what spd_inverse.hpp is made of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Rows and columns of a tile are multiples of this, a column the product of two vectors of any CPU.
inline constexpr int64_t tile_unit = 32;

/// c ← c + αab, or c ← αab, for c of `rows` × `columns`; both are multiples of `tile_unit`.
///
/// The rows of c and b are contiguous; a may have any strides, so that it may be a transposed matrix.
template <class T>
struct TileProduct {
  T* c;
  int64_t c_row;
  const T* a;
  int64_t a_row, a_column;
  const T* b;
  int64_t b_row;
  int64_t rows, columns, depth;
  T alpha;
  bool add;
};

// Compilers make wide vectors of loops only where the user's options name the CPU. So the loop is written in vectors
// of a given length, once for each kind of CPU, whose attribute a template cannot take as a parameter. sizeof...(R)
// rows and two vectors are summed in registers.
#if defined(__GNUC__)
#define ROOT_OPTIM_VECTOR(T, bytes) typedef T Vector __attribute__((vector_size(bytes)))
#else
#define ROOT_OPTIM_VECTOR(T, bytes) using Vector = T
#endif
#define ROOT_OPTIM_TILE_PRODUCT(name, attribute, bytes)                                            \
  template <class T, size_t... R>                                                                  \
  attribute void name(const TileProduct<T>& p, std::index_sequence<R...>) {                        \
    ROOT_OPTIM_VECTOR(T, bytes);                                                                   \
    constexpr int64_t width = sizeof(Vector) / sizeof(T);                                          \
    for (int64_t j = 0; j < p.columns; j += 2 * width) {                                           \
      for (int64_t i = 0; i < p.rows; i += int64_t{sizeof...(R)}) {                                \
        Vector sum[sizeof...(R)][2] = {}, y0, y1;                                                  \
        const T *a = p.a + i * p.a_row, *b = p.b + j;                                              \
        for (int64_t q = 0; q < p.depth; ++q, a += p.a_column, b += p.b_row) {                     \
          std::memcpy(&y0, b, sizeof(Vector));                                                     \
          std::memcpy(&y1, b + width, sizeof(Vector));                                             \
          ((sum[R][0] += a[int64_t{R} * p.a_row] * y0, sum[R][1] += a[int64_t{R} * p.a_row] * y1), \
           ...);                                                                                   \
        }                                                                                          \
        for (int64_t r = 0; r < int64_t{sizeof...(R)}; ++r) {                                      \
          T* const c = p.c + (i + r) * p.c_row + j;                                                \
          for (int half = 0; half < 2; ++half) {                                                   \
            Vector x = p.alpha * sum[r][half];                                                     \
            if (p.add) {                                                                           \
              std::memcpy(&y0, c + half * width, sizeof(Vector));                                  \
              x += y0;                                                                             \
            }                                                                                      \
            std::memcpy(c + half * width, &x, sizeof(Vector));                                     \
          }                                                                                        \
        }                                                                                          \
      }                                                                                            \
    }                                                                                              \
  }

ROOT_OPTIM_TILE_PRODUCT(tile_product_any, , 16)
#if defined(__GNUC__) && defined(__x86_64__)
ROOT_OPTIM_TILE_PRODUCT(tile_product_avx2, __attribute__((target("avx2,fma"))), 32)
ROOT_OPTIM_TILE_PRODUCT(tile_product_avx512, __attribute__((target("avx512f"))), 64)
#endif
#undef ROOT_OPTIM_TILE_PRODUCT
#undef ROOT_OPTIM_VECTOR

template <class T>
void tile_product(const TileProduct<T>& p) {
#if defined(__GNUC__) && defined(__x86_64__)
  static const bool avx512 = __builtin_cpu_supports("avx512f");
  static const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx512) return tile_product_avx512(p, std::make_index_sequence<8>());
  if (avx2) return tile_product_avx2(p, std::make_index_sequence<4>());
#endif
  tile_product_any(p, std::make_index_sequence<4>());
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
