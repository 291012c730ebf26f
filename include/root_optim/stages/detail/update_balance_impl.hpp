// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of stages/update_balance.hpp.
#pragma once

#include <ATen/Dispatch.h>  // AT_DISPATCH_FLOATING_TYPES
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include <root_optim/kernels/parallel.hpp>
#include <root_optim/kernels/reduce.hpp>
#include <root_optim/kernels/row_parts.hpp>
#include <root_optim/kernels/workspace.hpp>
#include <root_optim/stages/update_balance.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

constexpr double least_moment =
    1e-30;  // the square of what rounds to nothing beside entries of an X

/// The sum of a row's squares, each of which is also added to its column's sum.
template <class T>
T add_squares(const T* x, int64_t n, T* sums) {
  T totals[row_lanes] = {};
  for_each_lanes(n, [&](int64_t j, auto count) {
    for (int64_t l = 0; l < count; ++l) sums[j + l] += x[j + l] * x[j + l];
    for (int64_t l = 0; l < count; ++l) totals[l] += x[j + l] * x[j + l];
  });
  return sum_of_lanes(totals);
}

/// Σ_j (x_j w_j)².
template <class T>
T weighed_squares(const T* x, const T* w, int64_t n) {
  T totals[row_lanes] = {};
  for_each_lanes(n, [&](int64_t j, auto count) {
    for (int64_t l = 0; l < count; ++l) {
      const T y = x[j + l] * w[j + l];
      totals[l] += y * y;
    }
  });
  return sum_of_lanes(totals);
}

/// moments ← β·old + (1 − β)·sums/count; returns 1/√(moments/their mean).
template <class T>
std::vector<T> next_moments(const std::vector<T>& sums, int64_t count, double beta, const T* old,
                            T* moments) {
  const auto size = static_cast<int64_t>(sums.size());
  for (int64_t i = 0; i < size; ++i) {
    moments[i] = static_cast<T>(beta) * old[i] +
                 static_cast<T>(1 - beta) * (sums.data()[i] / static_cast<T>(count));
  }
  const auto least = static_cast<T>(least_moment);
  const T mean =
      (std::max)(std::accumulate(moments, moments + size, T(0)) / static_cast<T>(size), least);
  std::vector<T> weights(sums.size());
  std::transform(moments, moments + size, weights.begin(),
                 [&](T moment) { return 1 / std::sqrt((std::max)(moment / mean, least)); });
  return weights;
}

/// One matrix of m rows and n columns; x and y may be the same.
template <class T>
void balance(const T* x, int64_t m, int64_t n, double beta, const T* old_rows, const T* old_columns,
             T* rows, T* columns, T* y) {
  const RowParts parts(m, n);
  std::vector<T> row_storage = zeros<T>(m);
  T* const row_values = row_storage.data();
  const std::vector<T> column_sums = parts.column_sums<T>(
      [&](int64_t i, T* sums) { row_values[i] = add_squares(x + i * n, n, sums); });
  const T before = std::accumulate(row_values, row_values + m, T(0));
  std::vector<T> row_weights = next_moments(row_storage, n, beta, old_rows, rows);
  const std::vector<T> column_weights = next_moments(column_sums, m, beta, old_columns, columns);
  T* const a = row_weights.data();
  const T* const b = column_weights.data();
  parts.for_each(
      [&](int64_t i) { row_values[i] = a[i] * a[i] * weighed_squares(x + i * n, b, n); });
  const T after =
      (std::max)(std::accumulate(row_values, row_values + m, T(0)), static_cast<T>(least_moment));
  const T factor = std::sqrt(before / after);
  parts.for_each([&](int64_t i) {
    const T weight = a[i] * factor;
    const T* const from = x + i * n;
    T* const to = y + i * n;
    for_each_lanes(n, [&](int64_t j, auto count) {
      for (int64_t l = 0; l < count; ++l) to[j + l] = weight * b[j + l] * from[j + l];
    });
  });
}

/// balance_update of matrices that have their entries in one piece (cpu_entries).
inline BalancedUpdate balance_on_cpu(const at::Tensor& x, const at::Tensor& entries,
                                     const UpdateMoments& moments, double beta,
                                     const Scratch& scratch) {
  const bool transposed = !x.is_contiguous();
  const UpdateMoments old{moments.rows.contiguous(), moments.cols.contiguous()};
  BalancedUpdate result{{at::empty_like(old.rows), at::empty_like(old.cols)},
                        scratch.overwrite ? x : temporary_like(scratch.workspace, x)};
  const at::Tensor to = cpu_entries(result.matrices);
  const int64_t m = entries.size(1), n = entries.size(2);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "root_optim::balance_update", [&] {
    const scalar_t* from_rows = old.rows.data_ptr<scalar_t>();
    const scalar_t* from_columns = old.cols.data_ptr<scalar_t>();
    scalar_t* to_rows = result.moments.rows.data_ptr<scalar_t>();
    scalar_t* to_columns = result.moments.cols.data_ptr<scalar_t>();
    if (transposed) {  // rows and columns have equal parts, but for a factor that the norm takes out
      std::swap(from_rows, from_columns);
      std::swap(to_rows, to_columns);
    }
    const scalar_t* const from = entries.data_ptr<scalar_t>();
    scalar_t* const y = to.data_ptr<scalar_t>();
    for_each_parallel(entries.size(0), [&](int64_t k) {
      balance(from + k * m * n, m, n, beta, from_rows + k * m, from_columns + k * n,
              to_rows + k * m, to_columns + k * n, y + k * m * n);
    });
  });
  return result;
}

}  // namespace detail

ROOT_OPTIM_INLINE BalancedUpdate balance_update(const at::Tensor& x, const UpdateMoments& moments,
                                                double beta, const Scratch& scratch) {
  TORCH_CHECK(x.dim() == 3 && moments.rows.sizes() == x.sizes().slice(0, 2) &&
                  moments.cols.dim() == 2 && moments.cols.size(0) == x.size(0) &&
                  moments.cols.size(1) == x.size(2),
              "root_optim::balance_update: expected moments of the rows and columns of ", x.sizes(),
              ", got ", moments.rows.sizes(), " and ", moments.cols.sizes());
  for (const at::Tensor& moment : {moments.rows, moments.cols}) {
    TORCH_CHECK(moment.scalar_type() == x.scalar_type() && moment.device() == x.device(),
                "root_optim::balance_update: expected moments in ", x.scalar_type(), " on ",
                x.device(), ", as the matrices, got ", moment.scalar_type(), " on ",
                moment.device());
  }
  TORCH_CHECK(beta >= 0 && beta < 1, "root_optim::balance_update: expected 0 <= beta < 1, got ",
              beta);
  const at::Tensor entries = detail::cpu_entries(x);
  if (entries.defined() && x.numel() > 0) {
    return detail::balance_on_cpu(x, entries, moments, beta, scratch);
  }
  constexpr double least = detail::least_moment;
  const at::Tensor square = x.square();
  BalancedUpdate result;
  result.moments.rows = moments.rows.mul(beta).add_(square.mean(2), 1 - beta);
  result.moments.cols = moments.cols.mul(beta).add_(square.mean(1), 1 - beta);
  const auto shorten = [](const at::Tensor& r) {  // the square of the weight
    return r.div(r.mean(1, /*keepdim=*/true).clamp_min_(least)).clamp_min_(least).reciprocal_();
  };
  const at::Tensor rows = shorten(result.moments.rows).unsqueeze(2);
  const at::Tensor cols = shorten(result.moments.cols).unsqueeze(1);
  const at::Tensor before = square.sum({1, 2}, /*keepdim=*/true);
  const at::Tensor after = square.mul_(rows).mul_(cols).sum({1, 2}, /*keepdim=*/true);
  const at::Tensor row_weights = rows.mul(before.div(after.clamp_min(least))).sqrt_();
  result.matrices = (scratch.overwrite ? x : x.clone()).mul_(row_weights).mul_(cols.sqrt());
  return result;
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
