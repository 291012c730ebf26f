// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of kernels/max_abs.hpp.
#pragma once

#include <ATen/Dispatch.h>  // AT_DISPATCH_FLOATING_TYPES
#include <ATen/core/Tensor.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/amin.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include <root_optim/kernels/foreach.hpp>
#include <root_optim/kernels/max_abs.hpp>
#include <root_optim/kernels/reduce.hpp>
#include <root_optim/kernels/widest_vectors.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// max |x[i]| of n numbers; NaN if there is one. With the sign bit cleared the order of values is the
/// order of bits, NaN last.
template <class T>
T max_abs_of(const T* x, int64_t n) {
  T value;
  by_widest_vectors([&] {
    using Bits = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
    constexpr Bits magnitude = ~(Bits{1} << (sizeof(T) * 8 - 1));
    constexpr int64_t lanes = 64 / sizeof(T);  // side by side, so that compilers vectorize them
    Bits largest[lanes] = {};
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes) {
      Bits bits[lanes];
      std::memcpy(bits, x + i, sizeof bits);
      for (int64_t j = 0; j < lanes; ++j) largest[j] = (std::max)(largest[j], bits[j] & magnitude);
    }
    for (; i < n; ++i) {
      Bits bits;
      std::memcpy(&bits, x + i, sizeof bits);
      largest[0] = (std::max)(largest[0], bits & magnitude);
    }
    const Bits result = *std::max_element(largest, largest + lanes);
    std::memcpy(&value, &result, sizeof value);
  });
  return value;
}

ROOT_OPTIM_INLINE at::Tensor max_abs(const at::Tensor& x) {
  const at::Tensor entries = cpu_entries(x);
  if (entries.defined()) {
    at::Tensor result = at::empty(one_each(x), x.options());
    const int64_t n = x.numel() / std::max<int64_t>(x.size(0), 1);
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "root_optim::max_abs", [&] {
      reduce_each(entries.data_ptr<scalar_t>(), x.size(0), n, result.data_ptr<scalar_t>(),
                  max_abs_of<scalar_t>, max_abs_of<scalar_t>);
    });
    return result;
  }
  std::vector<int64_t> dimensions;
  for (int64_t d = 1; d < x.dim(); ++d) dimensions.push_back(d);
  return at::maximum(at::amax(x, dimensions, /*keepdim=*/true),
                     at::amin(x, dimensions, /*keepdim=*/true).neg_());
}

ROOT_OPTIM_INLINE at::Tensor max_abs_each(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> entries;
  entries.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) entries.push_back(cpu_entries(tensor));
  const auto defined = [](const at::Tensor& x) { return x.defined(); };
  if (std::all_of(entries.begin(), entries.end(), defined)) {
    at::Tensor result =
        at::empty({static_cast<int64_t>(tensors.size())}, tensors.front().options());
    AT_DISPATCH_FLOATING_TYPES(result.scalar_type(), "root_optim::max_abs_each", [&] {
      for (size_t i = 0; i < entries.size(); ++i) {
        result.data_ptr<scalar_t>()[i] =
            max_abs_of(entries[i].data_ptr<scalar_t>(), entries[i].numel());
      }
    });
    return result;
  }
  return at::stack(foreach_max_norm(tensors));
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
