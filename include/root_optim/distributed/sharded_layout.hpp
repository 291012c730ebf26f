// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// How a parameter is spread over the ranks of a process group.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstdint>

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// A parameter of which each rank has a block as a plain tensor of its own, a leaf: a shard. The blocks follow
/// each other along one dimension in the order of the ranks. They may be of unequal sizes, and empty.
class ShardedLayout {
 public:
  /// Rank r has some rows, dimension 0.
  /// @param whole number of rows of all ranks together
  static ShardedLayout rows(int64_t whole) { return along(0, whole); }
  /// Rank r has some columns, dimension 1.
  /// @param whole number of columns of all ranks together
  static ShardedLayout columns(int64_t whole) { return along(1, whole); }
  /// @param dim >= 0, the dimension that is cut
  /// @param whole size of it, of all ranks together; >= 0
  /// @throws c10::Error for values out of these ranges.
  static ShardedLayout along(int64_t dim, int64_t whole) {
    TORCH_CHECK(dim >= 0 && whole >= 0,
                "root_optim::ShardedLayout: expected a dimension >= 0 and a size >= 0, got ", dim,
                " and ", whole);
    return {dim, whole};
  }

  int64_t dim() const { return dim_; }      ///< that is cut
  int64_t whole() const { return whole_; }  ///< size of it, of all ranks together

 private:
  ShardedLayout(int64_t dim, int64_t whole) : dim_(dim), whole_(whole) {}
  int64_t dim_, whole_;
};

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
