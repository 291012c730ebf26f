// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of kernels/workspace.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <c10/core/ScalarType.h>  // elementSize

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <root_optim/core/scratch.hpp>
#include <root_optim/kernels/workspace.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

ROOT_OPTIM_INLINE at::Tensor Workspace::empty(c10::IntArrayRef sizes, c10::IntArrayRef strides,
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

ROOT_OPTIM_INLINE size_t Workspace::bytes() const {
  size_t sum = 0;
  for (const at::Tensor& block : blocks_) sum += block.nbytes();
  return sum;
}

ROOT_OPTIM_INLINE void Workspace::make_room(size_t bytes) {
  while (this->bytes() + bytes > limit_) {
    auto smallest = blocks_.end();
    for (auto block = blocks_.begin(); block != blocks_.end(); ++block) {
      if (!is_free(*block)) continue;
      if (smallest == blocks_.end() || block->nbytes() < smallest->nbytes()) smallest = block;
    }
    if (smallest == blocks_.end()) return;
    blocks_.erase(smallest);
  }
}

namespace detail {

ROOT_OPTIM_INLINE at::Tensor temporary(Workspace* workspace, c10::IntArrayRef sizes,
                                       const at::TensorOptions& options) {
  if (workspace == nullptr || !options.device().is_cpu()) return at::empty(sizes, options);
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t d = sizes.size(); d-- > 0; stride *= (std::max<int64_t>)(sizes[d], 1)) {
    strides[d] = stride;
  }
  return workspace->empty(sizes, strides, options);
}

ROOT_OPTIM_INLINE at::Tensor temporary_like(Workspace* workspace, const at::Tensor& x) {
  if (!x.is_non_overlapping_and_dense()) return temporary(workspace, x.sizes(), x.options());
  if (workspace == nullptr || !x.is_cpu()) {
    return at::empty_strided(x.sizes(), x.strides(), x.options());
  }
  return workspace->empty(x.sizes(), x.strides(), x.options());
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
