// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Ranks of a Gloo group: threads of this process, or processes. Gloo's headers are Debian's (libgloo-dev);
// LibTorch has the code.
#pragma once

#include "support/catch_torch.hpp"

#include "../../examples/distributed/process_group.hpp"

#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include <chrono>
#include <csignal>
#include <exception>
#include <string>
#include <thread>
#include <vector>

namespace test {

using Group = c10::intrusive_ptr<c10d::ProcessGroup>;

inline Group make_group(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                        std::chrono::milliseconds timeout) {
  return examples::make_gloo_group(
      store, rank, size, c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1"), timeout);
}

/// f(rank, group) on `size` ranks, each a thread.
/// @return what each threw: its message, or an empty string
template <class F>
std::vector<std::string> on_ranks(int size, const F& f,
                                  std::chrono::milliseconds timeout = std::chrono::seconds(20)) {
  auto store = c10::make_intrusive<c10d::HashStore>();
  std::vector<std::string> thrown(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        at::set_num_threads(1);
        auto own = c10::make_intrusive<c10d::PrefixStore>("group", store);
        f(rank, make_group(own, rank, size, timeout));
      } catch (const c10::Error& error) {
        thrown[static_cast<size_t>(rank)] = error.what_without_backtrace();
      } catch (const std::exception& error) {
        thrown[static_cast<size_t>(rank)] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return thrown;
}

/// The same, with no error.
template <class F>
void on_all_ranks(int size, const F& f) {
  for (const std::string& thrown : on_ranks(size, f)) {
    INFO(size << " ranks");
    REQUIRE(thrown == "");
  }
}

}  // namespace test
