// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Loops by several threads, for the few kernels that are written here.
#pragma once

#include <ATen/TensorIterator.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstdint>

namespace root_optim {
inline namespace v0 {
namespace detail {

/// body(i) for every i from 0 to count − 1, by LibTorch's threads; by the caller alone where it is already
/// one of several.
///
/// Not at::parallel_for: a template, which headers compile with the user's options, and which without
/// OpenMP among them is a loop of one thread. LibTorch's iterator divides its elements among LibTorch's
/// threads whatever the options; here they are bytes that nobody reads, the i-th for body(i).
template <class Body>
void for_each_parallel(int64_t count, const Body& body) {
  if (count == 1) return body(0);
  const at::Tensor bytes = at::empty({count}, at::kByte);
  const auto* const first = static_cast<const char*>(bytes.data_ptr());
  at::TensorIterator iterator = at::TensorIteratorConfig()
                                    .check_all_same_dtype(false)  // there is but one
                                    .resize_outputs(false)
                                    .declare_static_shape(bytes.sizes())
                                    .add_output(bytes)
                                    .build();
  // The form for two dimensions: that for one warns of uninitialized memory in LibTorch (GCC 12, -O2).
  iterator.for_each(
      [&](char** data, const int64_t* strides, int64_t inner, int64_t outer) {
        for (int64_t j = 0; j < outer; ++j) {
          const char* const row = data[0] + j * strides[1];
          for (int64_t i = 0; i < inner; ++i) body(row + i * strides[0] - first);
        }
      },
      /*grain_size=*/1);
}

}  // namespace detail
}  // namespace v0
}  // namespace root_optim
