// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Memory for what lives no longer than a step, kept for the next one.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <c10/core/ScalarType.h>  // elementSize

#include <algorithm>
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
                   const at::TensorOptions& options) {
    size_t bytes = c10::elementSize(c10::typeMetaToScalarType(options.dtype()));
    for (const int64_t size : sizes) bytes *= static_cast<size_t>(size);
    const at::Tensor* best = nullptr;
    for (const at::Tensor& block : blocks_) {
      if (is_free(block) && block.nbytes() >= bytes &&
          (best == nullptr || block.nbytes() < best->nbytes())) {
        best = &block;
      }
    }
    if (best == nullptr) {
      make_room(bytes);
      blocks_.push_back(at::empty({static_cast<int64_t>(bytes)}, options.dtype(at::kByte)));
      best = &blocks_.back();
    }
    return at::empty({0}, options).set_(best->storage(), 0, sizes, strides);
  }

  size_t bytes() const {
    size_t sum = 0;
    for (const at::Tensor& block : blocks_) sum += block.nbytes();
    return sum;
  }

  void release() { blocks_.clear(); }

 private:
  static bool is_free(const at::Tensor& block) { return block.storage().use_count() == 1; }

  /// Gives up free blocks, all of them too small, the smallest first.
  void make_room(size_t bytes) {
    std::sort(blocks_.begin(), blocks_.end(),
              [](const at::Tensor& a, const at::Tensor& b) { return a.nbytes() < b.nbytes(); });
    for (auto block = blocks_.begin(); block != blocks_.end() && this->bytes() + bytes > limit_;) {
      block = is_free(*block) ? blocks_.erase(block) : block + 1;
    }
  }

  std::vector<at::Tensor> blocks_;  // one-dimensional, bytes
  size_t limit_ = (std::numeric_limits<size_t>::max)();
};

namespace detail {

/// An uninitialized tensor, on the CPU from the workspace, if there is one.
inline at::Tensor temporary(Workspace* workspace, c10::IntArrayRef sizes,
                            const at::TensorOptions& options) {
  if (workspace == nullptr || !options.device().is_cpu()) return at::empty(sizes, options);
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t d = sizes.size(); d-- > 0; stride *= (std::max<int64_t>)(sizes[d], 1)) {
    strides[d] = stride;
  }
  return workspace->empty(sizes, strides, options);
}

/// The same with the sizes of x and, if they leave no gaps, its strides.
inline at::Tensor temporary_like(Workspace* workspace, const at::Tensor& x) {
  if (!x.is_non_overlapping_and_dense()) return temporary(workspace, x.sizes(), x.options());
  if (workspace == nullptr || !x.is_cpu()) {
    return at::empty_strided(x.sizes(), x.strides(), x.options());
  }
  return workspace->empty(x.sizes(), x.strides(), x.options());
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
