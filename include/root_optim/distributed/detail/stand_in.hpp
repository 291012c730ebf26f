// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A tensor without memory, which stands for one that no rank has, or another one.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/util/ArrayRef.h>  // IntArrayRef

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Shape, dtype and device, but no memory: whoever reads its numbers gets an error.
inline at::Tensor stand_in(c10::IntArrayRef shape, const at::TensorOptions& options) {
  at::Tensor tensor = at::empty({0}, options.requires_grad(false));
  tensor.unsafeGetTensorImpl()->set_sizes_contiguous(shape);
  return tensor;
}

inline bool is_stand_in(const at::Tensor& x) { return x.numel() > 0 && x.storage().nbytes() == 0; }

/// Stands for a gradient, and is finite: one number for all.
inline at::Tensor gradient_stand_in(c10::IntArrayRef shape, const at::TensorOptions& options) {
  return at::zeros({1}, options.requires_grad(false)).expand(shape);
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
