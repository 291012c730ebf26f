// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Checks of tensors and compute dtypes that several policies share.
#pragma once

#include <ATen/core/Tensor.h>
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

void check_compute_dtype(const std::optional<at::ScalarType>& dtype, const char* who);

ROOT_OPTIM_COLD inline std::string dtype_name(const std::optional<at::ScalarType>& dtype) {
  return dtype ? c10::toString(*dtype) : "auto";
}

std::optional<at::ScalarType> dtype_from_name(const std::string& name);

/// Refuses anything but a strided real floating-point tensor of rank >= 2.
void check_matrices(const at::Tensor& x, const char* who);

/// Refuses anything but matrices as policies get them: [k, m, n].
void check_batch(const at::Tensor& x, const char* who);

/// Refuses a tensor that autograd follows: buffers are written by functions with `out`.
void check_no_autograd(const at::Tensor& x, const char* who);

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/core/detail/tensor_checks_impl.hpp>
#endif
