// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Memory for what lives no longer than a step, kept for the next one.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <limits>
#include <vector>

#include <root_optim/core/scratch.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// Blocks of CPU memory. A block is free while no tensor uses it, which its count of references tells:
/// a tensor that outlives the step keeps its block, and nothing is ever taken from under it.
///
/// For the CPU only: LibTorch's allocator gives large blocks back to the system there, and every page of
/// a new one costs a fault (docs/performance.md has the figures); on other devices it keeps them itself.
class Workspace {
 public:
  /// Bytes that the blocks may have together before free ones are given up for a larger one.
  void set_limit(size_t bytes) { limit_ = bytes; }

  /// An uninitialized tensor in the smallest free block that is large enough, or in a new one.
  at::Tensor empty(c10::IntArrayRef sizes, c10::IntArrayRef strides,
                   const at::TensorOptions& options);

  size_t bytes() const;

  void release() { blocks_.clear(); }

 private:
  static bool is_free(const at::Tensor& block) { return block.storage().use_count() == 1; }

  /// Gives up free blocks, all of them too small, the smallest first.
  void make_room(size_t bytes);

  std::vector<at::Tensor> blocks_;  // one-dimensional, bytes
  size_t limit_ = (std::numeric_limits<size_t>::max)();
};

namespace detail {

/// An uninitialized tensor, on the CPU from the workspace, if there is one.
at::Tensor temporary(Workspace* workspace, c10::IntArrayRef sizes,
                     const at::TensorOptions& options);

/// The same with the sizes of x and, if they leave no gaps, its strides.
at::Tensor temporary_like(Workspace* workspace, const at::Tensor& x);

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/kernels/detail/workspace_impl.hpp>
#endif
