// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What whoever looks at an optimizer from outside a step wants to know of a parameter.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <string>
#include <vector>

#include <root_optim/core/state_key.hpp>
#include <root_optim/optimizer/detail/ranks.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/parameters/param_state.hpp>
#include <root_optim/parameters/rule.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// "group g, index i" for a parameter without a name.
inline std::string display_name(const std::vector<std::string>& names, size_t group, size_t index) {
  return index < names.size()
             ? names[index]
             : "group " + std::to_string(group) + ", index " + std::to_string(index);
}

/// The state of a parameter, or null if no step has made one.
template <class Optimizer>
const ParamState* state_of(Optimizer& optimizer, const at::Tensor& parameter) {
  const auto& ranks = RanksAccess::ranks(optimizer);
  const auto found =
      optimizer.state().find(state_key(ranks ? ranks->kept_as(parameter) : parameter));
  if (found == optimizer.state().end()) return nullptr;
  return dynamic_cast<const ParamState*>(found->second.get());
}

/// Whether the coming step orthogonalizes a parameter: it has a gradient and entries, and its rule is not
/// AdamW.
/// @throws c10::Error for a gradient that does not match its parameter.
template <class Options>
bool is_orthogonalized_next(const at::Tensor& parameter, size_t group, size_t index,
                            const Options& options) {
  if (!parameter.grad().defined() || parameter.numel() == 0) return false;
  const std::string where = describe(parameter, group, index, options.names());
  check_gradient(parameter, parameter.grad(), where);
  return resolve_rule(options.rule(), options.layout(), parameter, where) == Rule::Orthogonalized;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
