// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Policies on tensors that are matrices only after their layout is applied.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/core/policy.hpp>
#include <root_optim/kernels/workspace.hpp>
#include <root_optim/parameters/layout.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// policy(x), with the step's scratch if it takes one.
template <class Policy>
at::Tensor applied(const Policy& policy, at::Tensor x, const Scratch& scratch) {
  if constexpr (takes_scratch<Policy>) {
    return policy(std::move(x), scratch);
  } else {
    return policy(x);
  }
}

/// `filter` on every matrix of k stacked tensors, [k, *shape], into a new tensor of that shape.
template <class Filter>
at::Tensor filtered(const at::Tensor& stacked, const Filter& filter, const MatrixLayout& layout,
                    Workspace* workspace) {
  const auto apply = [&](const at::Tensor& matrices) {
    at::Tensor passed = applied(filter, matrices, {workspace, /*overwrite=*/false});
    TORCH_CHECK(passed.defined() && passed.sizes() == matrices.sizes(),
                "root_optim::step: expected policy '", Filter::name, "' to keep the shape ",
                matrices.sizes(), ", got ",
                passed.defined() ? c10::str(passed.sizes()) : std::string("no tensor"));
    return passed;
  };
  const std::vector<at::Tensor> from = block_views(stacked, layout);
  if (from.size() == 1 &&
      layout.out_dim() == 0) {  // matrices have the order of the tensor's entries
    return apply(block_matrices(from[0], layout))
        .reshape(stacked.sizes())
        .to(stacked.scalar_type());
  }
  at::Tensor result = temporary(workspace, stacked.sizes(), stacked.options());
  const std::vector<at::Tensor> to = block_views(result, layout);
  for (size_t block = 0; block < from.size(); ++block) {
    to[block].copy_(apply(block_matrices(from[block], layout)).reshape(to[block].sizes()));
  }
  return result;
}

/// `filter` on a gradient of AdamW's, as one matrix, or a vector as one row. Contiguous ones stay so.
template <class Filter>
at::Tensor filtered_plain(const at::Tensor& gradient, const Filter& filter, Workspace* workspace) {
  if (gradient.numel() == 0) return gradient;
  const int64_t rows = gradient.dim() > 1 ? gradient.size(0) : 1;
  const at::Tensor matrix = gradient.reshape({1, rows, -1});
  return filtered(matrix, filter, MatrixLayout(), workspace).reshape(gradient.sizes()).contiguous();
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
