// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Loops over the rows of one matrix on the CPU, by several threads and by vectors.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>   // plus
#include <type_traits>  // integral_constant
#include <vector>

#include <root_optim/kernels/parallel.hpp>
#include <root_optim/kernels/widest_vectors.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

constexpr int64_t row_lanes = 32;  // side by side, so that compilers vectorize them

/// body(j, count) for the entries j … j + count − 1 of a row, a count that compilers know and, at the end,
/// one that they don't.
template <class Body>
void for_each_lanes(int64_t n, const Body& body) {
  int64_t j = 0;
  for (; j + row_lanes <= n; j += row_lanes) {
    body(j, std::integral_constant<int64_t, row_lanes>());
  }
  body(j, n - j);
}

/// The sum of row_lanes numbers, which it writes over.
template <class T>
T sum_of_lanes(T* totals) {
  for (int64_t half = row_lanes / 2; half > 0; half /= 2) {
    for (int64_t l = 0; l < half; ++l) totals[l] += totals[l + half];
  }
  return totals[0];
}

/// `size` zeros. Sizes of vectors are unsigned, those of tensors are not.
template <class T>
std::vector<T> zeros(int64_t size) {
  return std::vector<T>(static_cast<size_t>(size), T(0));
}

/// The rows of a matrix of m rows and n columns, in parts that do not depend on the number of threads.
class RowParts {
 public:
  RowParts(int64_t m, int64_t n)
      : rows_(m),
        columns_(n),
        // At least 64K entries, so that a thread is worth it, and few, as each has sums of its own.
        part_rows_((std::max)({int64_t{8}, (int64_t{1} << 16) / n, (m + 31) / 32})),
        parts_((m + part_rows_ - 1) / part_rows_) {}

  /// body(i) for each row i.
  template <class Body>
  void for_each(const Body& body) const {
    in_parts([&](int64_t, int64_t i) { body(i); });
  }

  /// The sums, [n], to which add(i, sums) adds what row i gives.
  template <class T, class Add>
  std::vector<T> column_sums(const Add& add) const {
    std::vector<T> storage = zeros<T>(parts_ * columns_);
    T* const sums = storage.data();
    in_parts([&](int64_t part, int64_t i) { add(i, sums + part * columns_); });
    for (int64_t part = 1; part < parts_; ++part) {
      std::transform(sums, sums + columns_, sums + part * columns_, sums, std::plus<T>());
    }
    storage.resize(static_cast<size_t>(columns_));
    return storage;
  }

 private:
  template <class Body>
  void in_parts(const Body& body) const {
    for_each_parallel(parts_, [&](int64_t part) {
      by_widest_vectors([&] {
        const int64_t end = (std::min)(rows_, (part + 1) * part_rows_);
        for (int64_t i = part * part_rows_; i < end; ++i) body(part, i);
      });
    });
  }

  int64_t rows_, columns_, part_rows_, parts_;
};

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
