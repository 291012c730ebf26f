// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Operators on lists of tensors: one call, and on CUDA one kernel, for many parameters. LibTorch before
// 2.6 takes them one by one.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/version.h>

#include <cstddef>
#include <limits>
#include <vector>

#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 6)
#define ROOT_OPTIM_HAS_FOREACH 1
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/_foreach_norm.h>
#else
#define ROOT_OPTIM_HAS_FOREACH 0
#include <ATen/ops/linalg_vector_norm.h>
#endif

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// to[i] ← from[i]. Allocates no tensor where dtypes and strides agree.
inline void foreach_copy(std::vector<at::Tensor>& to, const std::vector<at::Tensor>& from) {
#if ROOT_OPTIM_HAS_FOREACH
  at::_foreach_copy_(to, from);
#else
  for (size_t i = 0; i < to.size(); ++i) to[i].copy_(from[i]);
#endif
}

/// max |x| of each, 0-dimensional.
inline std::vector<at::Tensor> foreach_max_norm(const std::vector<at::Tensor>& tensors) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
#if ROOT_OPTIM_HAS_FOREACH
  return at::_foreach_norm(tensors, infinity);
#else
  std::vector<at::Tensor> norms;
  for (const at::Tensor& tensor : tensors)
    norms.push_back(at::linalg_vector_norm(tensor, infinity));
  return norms;
#endif
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
