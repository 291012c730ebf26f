// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of diagnostics/orthogonality.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/linalg_svdvals.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <root_optim/core/tensor_checks.hpp>
#include <root_optim/diagnostics/orthogonality.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE double relative_error(const at::Tensor& x,
                                                        const at::Tensor& truth) {
  for (const at::Tensor& tensor : {x, truth}) {
    TORCH_CHECK(tensor.defined() && !tensor.is_complex(),
                "root_optim::relative_error: expected real tensors, got ",
                tensor.defined() ? c10::toString(tensor.scalar_type()) : "an undefined one");
  }
  TORCH_CHECK(x.sizes() == truth.sizes(),
              "root_optim::relative_error: expected tensors of one shape, got ", x.sizes(), " and ",
              truth.sizes());
  const at::Tensor exact = truth.to(at::kDouble);
  const double error = x.to(at::kDouble).sub(exact).norm().item<double>();
  const double norm = exact.norm().item<double>();
  return norm > 0 ? error / norm : error;
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE at::Tensor singular_values(const at::Tensor& x) {
  detail::check_matrices(x, "singular_values");
  return at::linalg_svdvals(x.to(at::kDouble));
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE double singular_value_mse(const at::Tensor& x) {
  detail::check_matrices(x, "singular_value_mse");
  TORCH_CHECK(x.numel() > 0,
              "root_optim::singular_value_mse: expected a matrix that is not empty, "
              "got shape ",
              x.sizes());
  return singular_values(x).sub_(1.0).square_().mean().item<double>();
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
