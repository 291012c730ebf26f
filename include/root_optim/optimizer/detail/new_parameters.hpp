// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The parameters of a group that is about to be added.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include <root_optim/optimizer/detail/group_options.hpp>  // Groups
#include <root_optim/parameters/layout.hpp>
#include <root_optim/parameters/rule.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Each once, with its name if it has one.
struct NewParameters {
  std::vector<at::Tensor> parameters;
  std::vector<std::string> names;
};

/// What a group brings that is given these tensors, names, rule and layout.
/// @throws c10::Error for names that are not one per tensor, for a tensor that no rule takes or this one does
/// not, and for one that a group has already.
NewParameters new_parameters(const Groups& groups, const std::vector<at::Tensor>& given,
                             const std::vector<std::string>& names, Rule rule,
                             const MatrixLayout& layout);

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/optimizer/detail/new_parameters_impl.hpp>
#endif
