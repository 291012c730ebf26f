// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
#include "failing_heap.hpp"

#include <cstdlib>
#include <new>

namespace {

thread_local bool counting = false;
thread_local int64_t calls = 0, failing_call = -1;

}  // namespace

void* operator new(std::size_t bytes) {
  if (counting && calls++ == failing_call) throw std::bad_alloc();
  void* const memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
// AddressSanitizer has one of its own, whose memory must not come to the `operator delete` below.
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  try {
    return operator new(bytes);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }

namespace test {

FailingHeap::FailingHeap(int64_t fails_at) {
  calls = 0;
  failing_call = fails_at;
  counting = true;
}
FailingHeap::~FailingHeap() { counting = false; }
int64_t FailingHeap::count() const { return calls; }

}  // namespace test
