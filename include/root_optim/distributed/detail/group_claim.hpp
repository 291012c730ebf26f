// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A process group that one object has for itself.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK

#include <mutex>
#include <set>

#include <root_optim/distributed/detail/collectives.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// What starts collectives at moments of its own needs its group for itself. Two such objects would start theirs in
/// another order on ranks with other gradients, and Gloo ends a process that gets a sum of another size.
class GroupClaim {
 public:
  /// @throws c10::Error if another one has the group.
  explicit GroupClaim(const GroupPtr& group) : group_(group) {
    const std::lock_guard<std::mutex> lock(mutex());
    TORCH_CHECK(claimed().insert(group_.get()).second,
                "root_optim::GradientReducer: with overlap, expected a group that no other reducer "
                "with overlap has, got one that is taken: give each a group of its own");
  }
  ~GroupClaim() {
    const std::lock_guard<std::mutex> lock(mutex());
    claimed().erase(group_.get());
  }
  GroupClaim(const GroupClaim&) = delete;
  GroupClaim& operator=(const GroupClaim&) = delete;

 private:
  // Never destroyed: a reducer may have static storage duration.
  static std::mutex& mutex() {
    static auto& one = *new std::mutex;
    return one;
  }
  static std::set<const void*>& claimed() {
    static auto& all = *new std::set<const void*>;
    return all;
  }

  GroupPtr group_;
};

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
