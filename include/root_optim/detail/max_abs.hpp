// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The largest magnitude in each matrix of a batch.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/amin.h>
#include <ATen/ops/maximum.h>

#include <cstdint>
#include <vector>

namespace root_optim {
inline namespace v0 {
namespace detail {

/// max |x[i]| of each i, in x's dtype: [k, …] -> [k, 1, …]. NaN if there is one; x must not be empty.
///
/// From the largest and the smallest entry: the norm of order ∞ is not vectorized over two dimensions
/// on the CPU. In steps of 768 wide layers, 4.6 % of the time became 0.6 %.
inline at::Tensor max_abs(const at::Tensor& x) {
  std::vector<int64_t> dimensions;
  for (int64_t d = 1; d < x.dim(); ++d) dimensions.push_back(d);
  return at::maximum(at::amax(x, dimensions, /*keepdim=*/true),
                     at::amin(x, dimensions, /*keepdim=*/true).neg_());
}

}  // namespace detail
}  // namespace v0
}  // namespace root_optim
