// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The end of a step: what it has computed is copied into parameters and their state.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include <root_optim/kernels/foreach.hpp>
#include <root_optim/kernels/parallel.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Whether copying is to move memory on the CPU: one dtype, one order of elements, no gaps.
inline bool copies_as_bytes(const at::Tensor& to, const at::Tensor& from) {
  return to.is_cpu() && from.is_cpu() && to.scalar_type() == from.scalar_type() &&
         to.sizes() == from.sizes() &&
         ((to.is_contiguous() && from.is_contiguous()) ||
          (to.strides() == from.strides() && to.is_non_overlapping_and_dense()));
}

/// `value` in the dtype and order of elements of `to`, so that only memory has to be moved.
inline at::Tensor ready_for(const at::Tensor& to, const at::Tensor& value) {
  const bool ready =
      value.scalar_type() == to.scalar_type() && value.is_contiguous() && to.is_contiguous();
  return ready ? value : at::empty_like(to).copy_(value);
}

/// Copies that are made together.
///
/// What may fail is done by `add`. On the CPU `run` only moves memory: it calls no operator and takes no
/// memory, on the heap neither, so that it makes all copies. Not so what does not `copies_as_bytes`:
/// tensors elsewhere, and parameters with gaps in their memory. Those are copied first.
class Commit {
 public:
  /// to[i] ← from[i]. Neither may go away or move before `run`.
  void add(const std::vector<at::Tensor>& to, const std::vector<at::Tensor>& from) {
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

  void run() {
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

 private:
  struct Piece {
    char* to;
    const char* from;
    size_t size;
  };
  static constexpr size_t piece_size = size_t{1} << 18;  // bytes; less is not worth a second thread

  void add_bytes(const at::Tensor& to, const at::Tensor& from) {
    const size_t size = to.nbytes();
    if (size == 0) return;
    written_.push_back(to);
    auto* target = static_cast<char*>(to.data_ptr());
    const auto* source = static_cast<const char*>(from.data_ptr());
    for (size_t at = 0; at < size; at += piece_size) {
      pieces_.push_back({target + at, source + at, (std::min)(piece_size, size - at)});
    }
    bytes_ += size;
  }

  std::vector<std::pair<std::vector<at::Tensor>, std::vector<at::Tensor>>> others_;
  std::vector<at::Tensor> written_;
  std::vector<Piece> pieces_;
  size_t bytes_ = 0;
  std::optional<ParallelLoop> loop_;
};

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
