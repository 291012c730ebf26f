// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Which parameters belong to an output head.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/parameters/detail/registration.hpp>
#include <root_optim/parameters/name_table.hpp>  // default_output_heads
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Finds output heads, by the caller's names or else by `default_output_heads`, and remembers which
/// of the caller's names were of use.
class OutputHeads {
 public:
  ROOT_OPTIM_COLD explicit OutputHeads(std::vector<std::string> names)
      : names_(std::move(names)), used_(names_.size(), false) {}

  ROOT_OPTIM_COLD bool named_by_caller(const Registration& at) {
    bool found = false;
    for (size_t i = 0; i < names_.size(); ++i) {
      const std::string& head = names_[i];
      // The parameter itself, a module anywhere above it, or the last component of either.
      if (at.name() == head || at.name().compare(0, head.size() + 1, head + ".") == 0 ||
          at.module_name() == head || at.given_name() == head) {
        found = used_[i] = true;
      }
    }
    return found;
  }

  ROOT_OPTIM_COLD bool named_by_default(const Registration& at) const {
    if (!names_.empty()) return false;
    for (const std::string& head : default_output_heads()) {
      if (at.given_name() == head) return true;
    }
    return false;
  }

  ROOT_OPTIM_COLD void check_all_used() const {
    for (size_t i = 0; i < names_.size(); ++i) {
      TORCH_CHECK(used_[i],
                  "root_optim::route: expected every output head to name a parameter or "
                  "module with parameters, got '",
                  names_[i], "', which names none");
    }
  }

 private:
  std::vector<std::string> names_;
  std::vector<bool> used_;
};

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
