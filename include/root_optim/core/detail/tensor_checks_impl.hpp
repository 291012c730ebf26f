// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of core/tensor_checks.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>  // GradMode
#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <optional>
#include <string>

#include <root_optim/core/tensor_checks.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

ROOT_OPTIM_INLINE void check_compute_dtype(const std::optional<at::ScalarType>& dtype,
                                           const char* who) {
  TORCH_CHECK(!dtype || *dtype == at::kDouble || *dtype == at::kFloat || *dtype == at::kBFloat16,
              "root_optim::", who,
              ": expected compute_dtype to be float64, float32 or bfloat16, got ",
              c10::toString(*dtype));
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE std::optional<at::ScalarType> dtype_from_name(
    const std::string& name) {
  if (name == "auto") return std::nullopt;
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    if (name == c10::toString(dtype)) return dtype;
  }
  TORCH_CHECK(
      false, "root_optim::load: expected a compute dtype of Double, Float, BFloat16 or auto, got '",
      name, "'");
}

ROOT_OPTIM_INLINE void check_matrices(const at::Tensor& x, const char* who) {
  TORCH_CHECK(x.defined(), "root_optim::", who, ": expected a matrix, got an undefined tensor");
  TORCH_CHECK(x.layout() == c10::kStrided, "root_optim::", who,
              ": expected a strided tensor, got layout ", x.layout());
  TORCH_CHECK(at::isFloatingType(x.scalar_type()), "root_optim::", who,
              ": expected a real floating-point tensor, got dtype ",
              c10::toString(x.scalar_type()));
  TORCH_CHECK(x.dim() >= 2, "root_optim::", who, ": expected a tensor of rank >= 2, got shape ",
              x.sizes());
}

ROOT_OPTIM_INLINE void check_batch(const at::Tensor& x, const char* who) {
  check_matrices(x, who);
  TORCH_CHECK(x.dim() == 3, "root_optim::", who,
              ": expected a batch of matrices [k, m, n], got shape ", x.sizes());
}

ROOT_OPTIM_INLINE void check_no_autograd(const at::Tensor& x, const char* who) {
  TORCH_CHECK(!(at::GradMode::is_enabled() && x.requires_grad()), "root_optim::", who,
              ": expected a tensor without autograd (at::NoGradGuard, or detached), got one that "
              "requires gradients");
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
