// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The largest singular value of a result, for bounds on it. Without Catch2: ../cuda/gpu_check.cpp has none.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace test {

/// Of a matrix, or of all matrices of a batch; infinity if an entry is not finite. By way of the smaller Gram
/// matrix in float64: as exact for the largest value as an SVD, and much faster.
inline double largest_singular_value(const at::Tensor& x) {
  if (x.numel() == 0) return 0;
  const at::Tensor y = x.to(at::kCPU, at::kDouble), turned = y.transpose(-2, -1);
  const at::Tensor gram = y.size(-2) > y.size(-1) ? turned.matmul(y) : y.matmul(turned);
  if (!gram.isfinite().all().item<bool>()) return std::numeric_limits<double>::infinity();
  return std::sqrt(std::max(0.0, at::linalg_eigvalsh(gram).max().item<double>()));
}

}  // namespace test
