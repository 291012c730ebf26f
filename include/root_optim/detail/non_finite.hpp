// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// How a step finds out, without waiting for the device, whether a gradient is usable. What it does
// then is the option NonFinite in options.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/nan_to_num.h>

#include <cstdint>
#include <limits>
#include <vector>

#include <root_optim/detail/parameter_checks.hpp>  // state_dtype
#include <root_optim/options.hpp>                  // NonFinite

namespace root_optim {
inline namespace v0 {
namespace detail {

/// max |x[i]| of each i, in x's dtype: [k, …] -> [k, 1, …]. NaN if there is one.
inline at::Tensor max_abs(const at::Tensor& x) {
  std::vector<int64_t> dimensions;
  for (int64_t d = 1; d < x.dim(); ++d) dimensions.push_back(d);
  return at::linalg_vector_norm(x, std::numeric_limits<double>::infinity(), dimensions,
                                /*keepdim=*/true);
}

/// Whether each number is finite; for magnitudes, so that one comparison tells (NaN < ∞ is false).
inline at::Tensor is_finite(const at::Tensor& magnitude) {
  return magnitude.lt(std::numeric_limits<double>::infinity());
}

/// The parameter's gradient in the dtype of its state.
inline at::Tensor state_gradient(const at::Tensor& parameter) {
  return parameter.grad().to(state_dtype(parameter));
}

/// A gradient with Inf and NaN replaced by 0 if the policy says so.
inline at::Tensor cleaned(const at::Tensor& gradient, NonFinite policy) {
  return policy == NonFinite::Zero ? at::nan_to_num(gradient, 0.0, 0.0, 0.0) : gradient;
}

}  // namespace detail
}  // namespace v0
}  // namespace root_optim
