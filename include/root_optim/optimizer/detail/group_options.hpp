// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The options of a parameter group, as what they are.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>  // TORCH_CHECK
#include <torch/optim/optimizer.h>

#include <cstddef>
#include <string>
#include <vector>

#include <root_optim/parameters/detail/parameter_checks.hpp>  // describe
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

using Groups = std::vector<torch::optim::OptimizerParamGroup>;

/// f(), whose errors then say in which group.
template <class F>
void naming_group(size_t group, const F& f) {
  try {
    f();
  } catch (const c10::Error& error) {
    TORCH_CHECK(false, error.what_without_backtrace(), ", in group ", group);
  }
}

/// The options of a group.
/// @throws c10::Error if they are another optimizer's.
template <class Options>
const Options& group_options(const Groups& groups, size_t group,
                             const char* who = "OrthogonalizedOptimizer") {
  const auto* options = dynamic_cast<const Options*>(&groups[group].options());
  TORCH_CHECK(options != nullptr, "root_optim::", who, ": expected the options of group ", group,
              " to be of this optimizer's own type, got another optimizer's");
  return *options;
}

/// The same, checked: a user may have changed them since they were given.
template <class Options>
const Options& valid_options(const Groups& groups, size_t group) {
  const Options& options = group_options<Options>(groups, group);
  naming_group(group, [&] { options.validate(); });
  const size_t names = options.names().size(), params = groups[group].params().size();
  TORCH_CHECK(names == 0 || names == params,
              "root_optim::OrthogonalizedOptimizer: expected no names or one per parameter, got ",
              names, " names for ", params, " parameters of group ", group);
  return options;
}

/// `describe` of a parameter of these groups.
template <class Options>
std::string describe_in(const Groups& groups, const at::Tensor& parameter) {
  for (size_t g = 0; g < groups.size(); ++g) {
    const auto& parameters = groups[g].params();
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (!parameters[i].is_same(parameter)) continue;
      return describe(parameter, g, i, group_options<Options>(groups, g).names());
    }
  }
  TORCH_INTERNAL_ASSERT(false, "a parameter of no group");
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
