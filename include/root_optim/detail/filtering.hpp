// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The outlier filter on tensors that are matrices only after their layout is applied.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <vector>

#include <root_optim/detail/workspace.hpp>
#include <root_optim/layout.hpp>

namespace root_optim {
inline namespace v0 {
namespace detail {

/// `filter` on every matrix of k stacked tensors, [k, *shape], into a new tensor of that shape.
template <class Filter>
at::Tensor filtered(const at::Tensor& stacked, const Filter& filter, const Layout& layout) {
  at::Tensor result = temporary(stacked.sizes(), stacked.options());
  const std::vector<at::Tensor> from = block_views(stacked, layout),
                                to = block_views(result, layout);
  for (size_t block = 0; block < from.size(); ++block) {
    to[block].copy_(filter(block_matrices(from[block], layout)).reshape(to[block].sizes()));
  }
  return result;
}

}  // namespace detail
}  // namespace v0
}  // namespace root_optim
