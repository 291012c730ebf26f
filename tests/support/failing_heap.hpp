// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A heap that runs out: every `operator new` of this program counts while a FailingHeap lives, and one
// of them throws.
#pragma once

#include <cstdint>

namespace test {

class FailingHeap {
 public:
  /// @param fails_at the call that throws std::bad_alloc, counted from 0; negative: none.
  explicit FailingHeap(int64_t fails_at);
  ~FailingHeap();
  FailingHeap(const FailingHeap&) = delete;
  FailingHeap& operator=(const FailingHeap&) = delete;

  /// Calls of this thread so far.
  int64_t count() const;
};

}  // namespace test
