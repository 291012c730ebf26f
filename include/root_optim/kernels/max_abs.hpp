// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The largest magnitude in each matrix of a batch, and in each tensor of a list.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// max |x[i]| of each i, in x's dtype: [k, …] -> [k, 1, …]. NaN if there is one; x must not be empty.
///
/// On the CPU in one pass; elsewhere from the largest and the smallest entry, since the norm of order ∞
/// is no faster.
at::Tensor max_abs(const at::Tensor& x);

/// max |x| of each of n tensors of one dtype and device: [n]. NaN where there is one; none may be
/// empty.
at::Tensor max_abs_each(const std::vector<at::Tensor>& tensors);

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/kernels/detail/max_abs_impl.hpp>
#endif
