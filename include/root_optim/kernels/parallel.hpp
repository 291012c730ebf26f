// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Loops by several threads, for the few kernels that are written here.
#pragma once

#include <ATen/Parallel.h>  // get_num_threads
#include <ATen/TensorIterator.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdint>

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// A loop over i from 0 to count − 1. Making it may take memory, running it takes none.
///
/// Not at::parallel_for: a template, which headers compile with the user's options, and which without
/// OpenMP among them is a loop of one thread. LibTorch's iterator divides its elements among LibTorch's
/// threads whatever the options; here they are bytes that nobody reads, the i-th for body(i).
class ParallelLoop {
 public:
  explicit ParallelLoop(int64_t count)
      : bytes_(at::empty({count}, at::kByte)),
        iterator_(at::TensorIteratorConfig()
                      .check_all_same_dtype(false)  // there is but one
                      .resize_outputs(false)
                      .declare_static_shape(bytes_.sizes())
                      .add_output(bytes_)
                      .build()) {}

  /// body(i) for every i, by LibTorch's threads; by the caller alone where it is already one of several.
  template <class Body>
  void run(const Body& body) {
    const auto* const first = static_cast<const char*>(bytes_.data_ptr());
    // The form for two dimensions: that for one warns of uninitialized memory in LibTorch (GCC 12, -O2).
    iterator_.for_each(
        [&](char** data, const int64_t* strides, int64_t inner, int64_t outer) {
          for (int64_t j = 0; j < outer; ++j) {
            const char* const row = data[0] + j * strides[1];
            for (int64_t i = 0; i < inner; ++i) body(row + i * strides[0] - first);
          }
        },
        /*grain_size=*/1);
  }

 private:
  at::Tensor bytes_;
  at::TensorIterator iterator_;
};

template <class Body>
void for_each_parallel(int64_t count, const Body& body) {
  if (count == 1) return body(0);
  ParallelLoop(count).run(body);
}

/// The same for bodies whose costs rise or fall with i, or that are short: every thread takes each of its turns, in
/// the order of i.
template <class Body>
void for_each_in_turn(int64_t count, const Body& body) {
  const int64_t threads = (std::min)(count, int64_t{at::get_num_threads()});
  for_each_parallel(threads, [&](int64_t thread) {
    for (int64_t i = thread; i < count; i += threads) body(i);
  });
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
