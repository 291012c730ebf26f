// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// CPU memory that runs out: every tensor that is allocated while a FailingAllocator lives counts, and
// one of them throws.
#pragma once

#include "catch_torch.hpp"

#include <c10/core/CPUAllocator.h>
#include <torch/version.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>

namespace test {

/// Takes the place of LibTorch's CPU allocator while it lives. Allocation number `fails_at`, counted
/// from 0, throws std::bad_alloc; all others are LibTorch's.
class FailingAllocator final : public c10::Allocator {
 public:
  explicit FailingAllocator(int64_t fails_at) : fails_at_(fails_at) {
    c10::SetCPUAllocator(this, 1);
  }
  ~FailingAllocator() override { c10::SetCPUAllocator(libtorch_, 1); }
  FailingAllocator(const FailingAllocator&) = delete;
  FailingAllocator& operator=(const FailingAllocator&) = delete;

#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 3)
  at::DataPtr allocate(size_t bytes) override { return counted(bytes); }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
#else
  at::DataPtr allocate(size_t bytes) const override { return counted(bytes); }
#endif
  at::DeleterFnPtr raw_deleter() const override { return libtorch_->raw_deleter(); }

  /// Allocations so far.
  int64_t count() const { return count_; }
  /// The largest of them, in bytes.
  size_t largest() const { return largest_; }

 private:
  at::DataPtr counted(size_t bytes) const {
    if (bytes > 0 && count_++ == fails_at_) throw std::bad_alloc();
    largest_ = std::max(largest_, bytes);
    return libtorch_->allocate(bytes);
  }

  c10::Allocator* libtorch_ = c10::GetCPUAllocator();
  int64_t fails_at_;
  mutable int64_t count_ = 0;
  mutable size_t largest_ = 0;
};

}  // namespace test
