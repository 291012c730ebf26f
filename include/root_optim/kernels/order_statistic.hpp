// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The r-th and (r+1)-th smallest |x| of each matrix of a batch, by selection on the CPU and by
// sorting elsewhere. soft_threshold.hpp turns them into a quantile.
#pragma once

#include <ATen/Dispatch.h>  // AT_DISPATCH_FLOATING_TYPES
#include <ATen/Parallel.h>  // get_num_threads
#include <ATen/core/Tensor.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sort.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>  // plus
#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <root_optim/kernels/parallel.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Two neighbors in ascending order of |x|.
template <class T>
struct OrderedPair {
  T lower;
  T upper;
};

/// The elements of rank `rank` and min(rank + 1, n − 1) among |x[0]|, …, |x[n − 1]|, counted from
/// 0.
///
/// For a floating-point number with its sign bit cleared the order of values is the order of bits,
/// so one pass counts the numbers by their leading bits (exponent and four bits of mantissa), a
/// second collects the few in the class that holds the rank, and only those are ordered. NaN sorts
/// last. Each pass by several threads where n is large: the counts add up whoever counts.
template <class T>
OrderedPair<T> select_abs(const T* x, int64_t n, int64_t rank) {
  using Bits = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
  constexpr int kept_bits = sizeof(T) == 8 ? 11 + 4 : 8 + 4;
  constexpr int shift = static_cast<int>(sizeof(T)) * 8 - 1 - kept_bits;
  constexpr size_t classes = size_t{1} << kept_bits;
  constexpr Bits sign = Bits{1} << (sizeof(T) * 8 - 1);
  const auto magnitude = [x](int64_t i) {
    Bits bits;
    std::memcpy(&bits, x + i, sizeof bits);
    return static_cast<Bits>(bits & ~sign);
  };
  // What one thread finds.
  struct Part {
    std::vector<int64_t> counts;
    std::vector<Bits> members;                             // of the class
    Bits next_class = (std::numeric_limits<Bits>::max)();  // smallest magnitude above it
  };
  constexpr int64_t worth_a_thread = 1 << 17;
  std::vector<Part> parts(static_cast<size_t>(std::clamp<int64_t>(
      n / worth_a_thread, 1, at::in_parallel_region() ? 1 : at::get_num_threads())));
  const auto count = static_cast<int64_t>(parts.size());
  const auto for_each_part = [&](const auto& body) {
    for_each_parallel(count, [&](int64_t p) {
      body(parts[static_cast<size_t>(p)], n * p / count, n * (p + 1) / count);
    });
  };

  for_each_part([&](Part& part, int64_t begin, int64_t end) {
    part.counts.assign(classes, 0);
    for (int64_t i = begin; i < end; ++i) ++part.counts[magnitude(i) >> shift];
  });
  std::vector<int64_t>& counts = parts.front().counts;
  for (size_t p = 1; p < parts.size(); ++p) {
    std::transform(counts.begin(), counts.end(), parts[p].counts.begin(), counts.begin(),
                   std::plus<>());
  }
  size_t cell = 0;
  int64_t below = 0;
  for (; below + counts[cell] <= rank; ++cell) below += counts[cell];

  for_each_part([&](Part& part, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Bits value = magnitude(i);
      if ((value >> shift) == cell) {
        part.members.push_back(value);
      } else if ((value >> shift) > cell) {
        part.next_class = (std::min)(part.next_class, value);
      }
    }
  });
  std::vector<Bits>& members = parts.front().members;
  Bits next_class = parts.front().next_class;
  for (size_t p = 1; p < parts.size(); ++p) {
    members.insert(members.end(), parts[p].members.begin(), parts[p].members.end());
    next_class = (std::min)(next_class, parts[p].next_class);
  }
  const auto found = members.begin() + (rank - below);
  std::nth_element(members.begin(), found, members.end());
  Bits upper = *found;
  if (rank + 1 < n) {
    upper = found + 1 != members.end() ? *std::min_element(found + 1, members.end()) : next_class;
  }
  OrderedPair<T> pair;
  std::memcpy(&pair.lower, &*found, sizeof(T));
  std::memcpy(&pair.upper, &upper, sizeof(T));
  return pair;
}

/// The |x| of ranks `rank` and min(rank + 1, N − 1) in each matrix, counted from 0 in ascending
/// order.
///
/// Shapes:   x: [k, m, n], float32 or float64, N = m·n >= 1 -> two tensors [k, 1, 1] of x's dtype.
/// Complexity: CPU: two passes over x and a selection among the few members of one class.
///           Elsewhere: one sort of |x|. No host synchronization.
inline std::pair<at::Tensor, at::Tensor> abs_order_statistics(const at::Tensor& x, int64_t rank) {
  const int64_t k = x.size(0), n = x.size(1) * x.size(2);
  if (!x.device().is_cpu()) {
    const at::Tensor sorted = std::get<0>(at::sort(at::abs(x.reshape({k, n})), 1));
    return {sorted.narrow(1, rank, 1).unsqueeze(2),
            sorted.narrow(1, (std::min)(rank + 1, n - 1), 1).unsqueeze(2)};
  }
  at::Tensor lower = at::empty({k, 1, 1}, x.options());
  at::Tensor upper = at::empty({k, 1, 1}, x.options());
  const at::Tensor data = x.contiguous();
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "root_optim::abs_order_statistics", [&] {
    const scalar_t* values = data.data_ptr<scalar_t>();
    scalar_t* lowers = lower.data_ptr<scalar_t>();
    scalar_t* uppers = upper.data_ptr<scalar_t>();
    for_each_parallel(k, [&](int64_t i) {
      const OrderedPair<scalar_t> pair = select_abs(values + i * n, n, rank);
      lowers[i] = pair.lower;
      uppers[i] = pair.upper;
    });
  });
  return {lower, upper};
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
