// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Reductions of each matrix of a batch on the CPU, in one pass over memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <root_optim/kernels/parallel.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// The entries of x [k, …] with each x[i] in one piece: x itself or, for transposed matrices, the matrices
/// before that; undefined where no such order exists, where x is not on the CPU or neither float32 nor float64.
inline at::Tensor cpu_entries(const at::Tensor& x) {
  if (!x.is_cpu() || (x.scalar_type() != at::kFloat && x.scalar_type() != at::kDouble)) return {};
  if (x.is_contiguous()) return x;
  if (x.dim() >= 3 && x.transpose(-2, -1).is_contiguous()) return x.transpose(-2, -1);
  return {};
}

/// The shape of one number for each x[i], [k, 1, …].
inline std::vector<int64_t> one_each(const at::Tensor& x) {
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
  shape[0] = x.size(0);
  return shape;
}

/// result[i] ← join(parts, number of parts) over parts = of(chunk, its size) of the chunks of values
/// i·n … (i + 1)·n − 1. The chunks do not depend on the number of threads.
template <class T, class Result, class Of, class Join>
void reduce_each(const T* values, int64_t k, int64_t n, Result* result, const Of& of,
                 const Join& join) {
  constexpr int64_t chunk = 1 << 16;
  const int64_t chunks = (n + chunk - 1) / chunk;
  std::vector<Result> parts(static_cast<size_t>(k * chunks));
  for_each_parallel(k * chunks, [&](int64_t part) {
    const int64_t first = part % chunks * chunk;
    parts[static_cast<size_t>(part)] =
        of(values + part / chunks * n + first, (std::min)(chunk, n - first));
  });
  for (int64_t i = 0; i < k; ++i) result[i] = join(parts.data() + i * chunks, chunks);
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
