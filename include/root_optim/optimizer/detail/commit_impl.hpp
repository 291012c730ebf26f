// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of optimizer/detail/commit.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include <root_optim/kernels/foreach.hpp>
#include <root_optim/optimizer/detail/commit.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

ROOT_OPTIM_INLINE bool copies_as_bytes(const at::Tensor& to, const at::Tensor& from) {
  return to.is_cpu() && from.is_cpu() && to.scalar_type() == from.scalar_type() &&
         to.sizes() == from.sizes() &&
         ((to.is_contiguous() && from.is_contiguous()) ||
          (to.strides() == from.strides() && to.is_non_overlapping_and_dense()));
}

ROOT_OPTIM_INLINE at::Tensor ready_for(const at::Tensor& to, const at::Tensor& value) {
  const bool ready =
      value.scalar_type() == to.scalar_type() && value.is_contiguous() && to.is_contiguous();
  return ready ? value : at::empty_like(to).copy_(value);
}

ROOT_OPTIM_INLINE void Commit::add(const std::vector<at::Tensor>& to,
                                   const std::vector<at::Tensor>& from) {
  std::vector<at::Tensor> targets, sources;
  for (size_t i = 0; i < to.size(); ++i) {
    if (copies_as_bytes(to[i], from[i])) {
      add_bytes(to[i], from[i]);
    } else {
      targets.push_back(to[i]);
      sources.push_back(from[i]);
    }
  }
  if (!targets.empty()) others_.emplace_back(std::move(targets), std::move(sources));
  if (bytes_ > piece_size) loop_.emplace(static_cast<int64_t>(pieces_.size()));
}

ROOT_OPTIM_INLINE void Commit::run() {
  // What autograd goes by to notice that a tensor which it has kept was written.
  for (const at::Tensor& tensor : written_) tensor.unsafeGetTensorImpl()->bump_version();
  for (auto& [to, from] : others_) foreach_copy(to, from);
  const auto copy = [this](int64_t i) {
    const Piece& piece = pieces_[static_cast<size_t>(i)];
    std::memcpy(piece.to, piece.from, piece.size);
  };
  if (loop_) {
    loop_->run(copy);
  } else {
    for (int64_t i = 0; i < static_cast<int64_t>(pieces_.size()); ++i) copy(i);
  }
}

ROOT_OPTIM_INLINE void Commit::add_bytes(const at::Tensor& to, const at::Tensor& from) {
  const size_t size = to.nbytes();
  if (size == 0) return;
  written_.push_back(to);
  read_.push_back(from);
  auto* target = static_cast<char*>(to.data_ptr());
  const auto* source = static_cast<const char*>(from.data_ptr());
  for (size_t at = 0; at < size; at += piece_size) {
    pieces_.push_back({target + at, source + at, (std::min)(piece_size, size - at)});
  }
  bytes_ += size;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
