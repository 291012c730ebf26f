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
#include <limits>
#include <numeric>
#include <vector>

#include <root_optim/kernels/parallel.hpp>
#include <root_optim/kernels/row_parts.hpp>
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

/// values ← min(|u|, factor·columns + floor), for `count` <= row_lanes entries of a row. NaN stays NaN; a
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
  T values[row_lanes], totals[row_lanes] = {};
  for_each_lanes(n, [&](int64_t j, auto count) {
    clip(u + j, columns + j, factor, T(0), count, values);
    for (int64_t l = 0; l < count; ++l) sums[j + l] += values[l];
    for (int64_t l = 0; l < count; ++l) totals[l] += values[l];
  });
  return sum_of_lanes(totals);
}

/// out ← clamp(u, −ε, ε) for a matrix of m rows and n columns. The sums do not depend on the number of
/// threads. u and out may be the same.
template <class T>
void scaled_clamp(const T* u, int64_t m, int64_t n, const ScaledLimit& limit, T* out) {
  const RowParts parts(m, n);
  std::vector<T> factor_storage(static_cast<size_t>(m), std::numeric_limits<T>::infinity());
  T* const factors = factor_storage.data();  // κ·r_i/mean|U|; the first pass: unlimited
  std::vector<T> columns(static_cast<size_t>(n), T(1));
  for (int64_t pass = 0; pass < limit.passes; ++pass) {
    columns = parts.column_sums<T>([&, before = columns.data()](int64_t i, T* sums) {
      factors[i] = add_clipped(u + i * n, n, factors[i], before, sums) / static_cast<T>(n);
    });
    for (T& column : columns) column /= static_cast<T>(m);
    const T mean = (std::max)(std::accumulate(factors, factors + m, T(0)) / static_cast<T>(m),
                              (std::numeric_limits<T>::min)());  // of a zero matrix, too
    for (int64_t i = 0; i < m; ++i) factors[i] = factors[i] * static_cast<T>(limit.kappa) / mean;
  }
  const auto floor = static_cast<T>(limit.floor);
  parts.for_each([&, limits = columns.data()](int64_t i) {
    T values[row_lanes];
    const T* const row = u + i * n;
    T* const result = out + i * n;
    for_each_lanes(n, [&](int64_t j, auto count) {
      clip(row + j, limits + j, factors[i], floor, count, values);
      for (int64_t l = 0; l < count; ++l) values[l] = std::copysign(values[l], row[j + l]);
      std::copy(values, values + count, result + j);
    });
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
