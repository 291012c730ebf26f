// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The scaled split of SoftThreshold on the CPU, where its operators would each read and write whole
// matrices: a pass reads the matrix once, and the last one writes it.
#pragma once

#include <ATen/Dispatch.h>  // AT_DISPATCH_FLOATING_TYPES
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>  // plus
#include <limits>
#include <numeric>
#include <type_traits>  // integral_constant
#include <vector>

#include <root_optim/kernels/parallel.hpp>
#include <root_optim/kernels/widest_vectors.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// What determines ε_ij = κ·r_i·c_j/mean|U| + floor; see SoftThreshold.
struct ScaledLimit {
  double kappa;
  int64_t passes;
  double floor;
};

constexpr int64_t clamp_lanes = 32;  // side by side, so that compilers vectorize them

/// body(j, count) for the entries j … j + count − 1 of a row, a count that compilers know and, at the end,
/// one that they don't.
template <class Body>
void for_each_lanes(int64_t n, const Body& body) {
  int64_t j = 0;
  for (; j + clamp_lanes <= n; j += clamp_lanes) {
    body(j, std::integral_constant<int64_t, clamp_lanes>());
  }
  body(j, n - j);
}

/// values ← min(|u|, factor·columns + floor), for `count` <= clamp_lanes entries of a row. NaN stays NaN; a
/// limit of NaN limits nothing.
template <class T, class Count>
void clip(const T* u, const T* columns, T factor, T floor, Count count, T* values) {
  for (int64_t l = 0; l < count; ++l) {
    const T limit = factor * columns[l] + floor;
    const T magnitude = std::abs(u[l]);
    values[l] = limit < magnitude ? limit : magnitude;
  }
}

/// The sum of a row's clipped magnitudes, each of which is also added to its column's sum.
template <class T>
T add_clipped(const T* u, int64_t n, T factor, const T* columns, T* sums) {
  T values[clamp_lanes], totals[clamp_lanes] = {};
  for_each_lanes(n, [&](int64_t j, auto count) {
    clip(u + j, columns + j, factor, T(0), count, values);
    for (int64_t l = 0; l < count; ++l) sums[j + l] += values[l];
    for (int64_t l = 0; l < count; ++l) totals[l] += values[l];
  });
  for (int64_t half = clamp_lanes / 2; half > 0; half /= 2) {
    for (int64_t l = 0; l < half; ++l) totals[l] += totals[l + half];
  }
  return totals[0];
}

/// out ← clamp(u, −ε, ε) for a matrix of m rows and n columns. The sums do not depend on the number of
/// threads. u and out may be the same.
template <class T>
void scaled_clamp(const T* u, int64_t m, int64_t n, const ScaledLimit& limit, T* out) {
  // Parts of at least 64K entries, so that a thread is worth it, and few, as each has sums of its own.
  const int64_t part_rows = (std::max)({int64_t{8}, (int64_t{1} << 16) / n, (m + 31) / 32});
  const int64_t parts = (m + part_rows - 1) / part_rows;
  const auto for_each_part = [&](const auto& body) {
    for_each_parallel(parts, [&](int64_t part) {
      by_widest_vectors(
          [&] { body(part, part * part_rows, (std::min)(m, (part + 1) * part_rows)); });
    });
  };
  // Sizes of vectors are unsigned, those of tensors are not.
  const auto zeros = [](int64_t size) { return std::vector<T>(static_cast<size_t>(size), T(0)); };
  std::vector<T> factor_storage = zeros(m), column_storage = zeros(n), sum_storage;
  T* const factors = factor_storage.data();  // κ·r_i/mean|U|
  T* const columns = column_storage.data();
  std::fill(factors, factors + m, std::numeric_limits<T>::infinity());  // the first pass: unlimited
  std::fill(columns, columns + n, T(1));
  for (int64_t pass = 0; pass < limit.passes; ++pass) {
    sum_storage = zeros(parts * n);
    T* const sums = sum_storage.data();
    for_each_part([&](int64_t part, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        factors[i] =
            add_clipped(u + i * n, n, factors[i], columns, sums + part * n) / static_cast<T>(n);
      }
    });
    for (int64_t part = 1; part < parts; ++part) {
      std::transform(sums, sums + n, sums + part * n, sums, std::plus<T>());
    }
    for (int64_t j = 0; j < n; ++j) columns[j] = sums[j] / static_cast<T>(m);
    const T mean = (std::max)(std::accumulate(factors, factors + m, T(0)) / static_cast<T>(m),
                              (std::numeric_limits<T>::min)());  // of a zero matrix, too
    for (int64_t i = 0; i < m; ++i) factors[i] = factors[i] * static_cast<T>(limit.kappa) / mean;
  }
  for_each_part([&](int64_t, int64_t begin, int64_t end) {
    T values[clamp_lanes];
    const auto floor = static_cast<T>(limit.floor);
    for (int64_t i = begin; i < end; ++i) {
      const T* const row = u + i * n;
      T* const result = out + i * n;
      for_each_lanes(n, [&](int64_t j, auto count) {
        clip(row + j, columns + j, factors[i], floor, count, values);
        for (int64_t l = 0; l < count; ++l) values[l] = std::copysign(values[l], row[j + l]);
        std::copy(values, values + count, result + j);
      });
    }
  });
}

/// The same for each matrix of u [k, m, n] into `out`; both contiguous, on the CPU, of one dtype, float32
/// or float64, and not empty.
inline void scaled_clamp(const at::Tensor& u, const ScaledLimit& limit, const at::Tensor& out) {
  const int64_t k = u.size(0), m = u.size(1), n = u.size(2);
  AT_DISPATCH_FLOATING_TYPES(u.scalar_type(), "root_optim::scaled_clamp", [&] {
    const scalar_t* const from = u.data_ptr<scalar_t>();
    scalar_t* const to = out.data_ptr<scalar_t>();
    for_each_parallel(
        k, [&](int64_t i) { scaled_clamp(from + i * m * n, m, n, limit, to + i * m * n); });
  });
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
