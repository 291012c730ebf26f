// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of optimizer/detail/new_parameters.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstddef>
#include <string>
#include <unordered_set>
#include <vector>

#include <root_optim/optimizer/detail/group_options.hpp>  // Groups
#include <root_optim/optimizer/detail/new_parameters.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/parameters/layout.hpp>
#include <root_optim/parameters/rule.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE NewParameters
new_parameters(const Groups& groups, const std::vector<at::Tensor>& given,
               const std::vector<std::string>& names, Rule rule, const MatrixLayout& layout) {
  const size_t index = groups.size();
  TORCH_CHECK(names.empty() || names.size() == given.size(),
              "root_optim::add_param_group: expected no names or one per parameter, got ",
              names.size(), " names for ", given.size(), " parameters of group ", index);
  std::unordered_set<const void*> others;
  for (const auto& other : groups) {
    for (const at::Tensor& parameter : other.params()) {
      others.insert(parameter.unsafeGetTensorImpl());
    }
  }
  std::unordered_set<const void*> seen;
  NewParameters result;
  for (size_t i = 0; i < given.size(); ++i) {
    const at::Tensor& parameter = given[i];
    const std::string where = describe(parameter, index, i, names);
    check_parameter(parameter, where);
    resolve_rule(rule, layout, parameter, where);
    const void* key = parameter.unsafeGetTensorImpl();
    TORCH_CHECK(others.count(key) == 0,
                "root_optim::add_param_group: expected every parameter in one group only, got ",
                where, " in an earlier group too");
    if (!seen.insert(key).second) continue;  // C++ parameters() lists a tied tensor twice
    result.parameters.push_back(parameter);
    if (!names.empty()) result.names.push_back(names[i]);
  }
  return result;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
