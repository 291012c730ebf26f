// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The Frobenius norm of each matrix of a batch, in float64.
#pragma once

#include <ATen/Dispatch.h>  // AT_DISPATCH_FLOATING_TYPES
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>

#include <cmath>
#include <cstdint>
#include <numeric>

#include <root_optim/kernels/reduce.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Σ x[i]², in float64, where squares of float32 neither overflow nor underflow.
template <class T>
double sum_of_squares(const T* x, int64_t n) {
  constexpr int64_t lanes = 8;  // side by side, so that compilers vectorize them
  double sums[lanes] = {};
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    for (int64_t j = 0; j < lanes; ++j) {
      const double value = static_cast<double>(x[i + j]);
      sums[j] += value * value;
    }
  }
  for (; i < n; ++i) sums[0] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return std::accumulate(sums, sums + lanes, 0.0);
}

/// ‖x[i]‖_F of each i: [k, m, n] -> [k, 1, 1], float64. On the CPU in one pass; LibTorch's operator would
/// first make a copy in float64.
inline at::Tensor frobenius_norms(const at::Tensor& x) {
  const at::Tensor entries = cpu_entries(x);
  if (!entries.defined()) {
    return at::linalg_vector_norm(x, 2, {1, 2}, /*keepdim=*/true, at::kDouble);
  }
  at::Tensor norm = at::empty(one_each(x), x.options().dtype(at::kDouble));
  const int64_t n = x.size(1) * x.size(2);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "root_optim::frobenius_norm", [&] {
    reduce_each(entries.data_ptr<scalar_t>(), x.size(0), n, norm.data_ptr<double>(),
                sum_of_squares<scalar_t>, [](const double* sums, int64_t count) {
                  return std::sqrt(std::accumulate(sums, sums + count, 0.0));
                });
  });
  return norm;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
