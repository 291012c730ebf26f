// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Checks of tensors and compute dtypes that several policies share.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>  // GradMode
#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <optional>
#include <string>

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Refuses what is none of the enumerators, which count from 0 to `last`.
template <class Enum>
void check_enum(const char* who, const char* what, Enum value, Enum last) {
  TORCH_CHECK(static_cast<int>(value) >= 0 && value <= last, "root_optim::", who, ": expected ",
              what, " to be an enumerator of its type, got ", static_cast<int>(value));
}

inline void check_compute_dtype(const std::optional<at::ScalarType>& dtype, const char* who) {
  TORCH_CHECK(!dtype || *dtype == at::kDouble || *dtype == at::kFloat || *dtype == at::kBFloat16,
              "root_optim::", who,
              ": expected compute_dtype to be float64, float32 or bfloat16, got ",
              c10::toString(*dtype));
}

inline std::string dtype_name(const std::optional<at::ScalarType>& dtype) {
  return dtype ? c10::toString(*dtype) : "auto";
}

inline std::optional<at::ScalarType> dtype_from_name(const std::string& name) {
  if (name == "auto") return std::nullopt;
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    if (name == c10::toString(dtype)) return dtype;
  }
  TORCH_CHECK(
      false, "root_optim::load: expected a compute dtype of Double, Float, BFloat16 or auto, got '",
      name, "'");
}

/// Refuses anything but a strided real floating-point tensor of rank >= 2.
inline void check_matrices(const at::Tensor& x, const char* who) {
  TORCH_CHECK(x.defined(), "root_optim::", who, ": expected a matrix, got an undefined tensor");
  TORCH_CHECK(x.layout() == c10::kStrided, "root_optim::", who,
              ": expected a strided tensor, got layout ", x.layout());
  TORCH_CHECK(at::isFloatingType(x.scalar_type()), "root_optim::", who,
              ": expected a real floating-point tensor, got dtype ",
              c10::toString(x.scalar_type()));
  TORCH_CHECK(x.dim() >= 2, "root_optim::", who, ": expected a tensor of rank >= 2, got shape ",
              x.sizes());
}

/// Refuses anything but matrices as policies get them: [k, m, n].
inline void check_batch(const at::Tensor& x, const char* who) {
  check_matrices(x, who);
  TORCH_CHECK(x.dim() == 3, "root_optim::", who,
              ": expected a batch of matrices [k, m, n], got shape ", x.sizes());
}

/// Refuses a tensor that autograd follows: buffers are written by functions with `out`.
inline void check_no_autograd(const at::Tensor& x, const char* who) {
  TORCH_CHECK(!(at::GradMode::is_enabled() && x.requires_grad()), "root_optim::", who,
              ": expected a tensor without autograd (at::NoGradGuard, or detached), got one that "
              "requires gradients");
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
