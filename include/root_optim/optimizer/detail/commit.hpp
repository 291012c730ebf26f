// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The end of a step: what it has computed is copied into parameters and their state.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include <root_optim/kernels/parallel.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Whether copying is to move memory on the CPU: one dtype, one order of elements, no gaps.
bool copies_as_bytes(const at::Tensor& to, const at::Tensor& from);

/// `value` in the dtype and order of elements of `to`, so that only memory has to be moved.
at::Tensor ready_for(const at::Tensor& to, const at::Tensor& value);

/// Copies that are made together.
///
/// What may fail is done by `add`. On the CPU `run` only moves memory: it calls no operator and takes no
/// memory, on the heap neither, so that it makes all copies. Not so what does not `copies_as_bytes`:
/// tensors elsewhere, and parameters with gaps in their memory. Those are copied first.
class Commit {
 public:
  /// to[i] ← from[i]; both are kept alive, and neither may be moved to other memory before `run`.
  void add(const std::vector<at::Tensor>& to, const std::vector<at::Tensor>& from);

  void run();

 private:
  struct Piece {
    char* to;
    const char* from;
    size_t size;
  };
  static constexpr size_t piece_size = size_t{1} << 18;  // bytes; less is not worth a second thread

  void add_bytes(const at::Tensor& to, const at::Tensor& from);

  std::vector<std::pair<std::vector<at::Tensor>, std::vector<at::Tensor>>> others_;
  std::vector<at::Tensor> written_, read_;
  std::vector<Piece> pieces_;
  size_t bytes_ = 0;
  std::optional<ParallelLoop> loop_;
};

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/optimizer/detail/commit_impl.hpp>
#endif
