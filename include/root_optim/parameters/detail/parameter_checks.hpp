// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What the optimizer asks of parameters and gradients before it touches anything, the rule that a
// parameter follows, and how messages name it.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>  // isComplexType

#include <cstddef>
#include <string>
#include <vector>

#include <root_optim/parameters/layout.hpp>
#include <root_optim/parameters/rule.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// "parameter 'blocks.0.mlp.weight' (group 0, index 3, shape [64, 16])", for messages.
std::string describe(const at::Tensor& parameter, size_t group, size_t index,
                     const std::vector<std::string>& names);

at::ScalarType state_dtype(const at::Tensor& parameter);

bool is_supported(at::ScalarType dtype);

/// What to do about a complex parameter, for messages; empty for any other dtype. Neither rule takes
/// one: its state would have to be kept, checked and stored as the real view of it, for the same
/// numbers that the parameter's own real view gives.
std::string complex_advice(at::ScalarType dtype);

/// What any rule asks of a parameter.
void check_parameter(const at::Tensor& parameter, const std::string& where);

/// What any rule asks of a gradient.
void check_gradient(const at::Tensor& parameter, const at::Tensor& gradient,
                    const std::string& where);

/// A copy of a tensor of a parameter's state, on the parameter's device and in its dtype of state.
/// @throws c10::Error for another dtype than real floating-point, and for a finite number that
/// overflows float32.
at::Tensor converted_state(const at::Tensor& tensor, const at::Tensor& parameter,
                           const std::string& where);

/// The rule that a parameter follows: its group's, or, with Auto, by its shape.
///
/// A layout of the group that would come to nothing is an error rather than dropped. (Below rank 2
/// none applies: under Auto, a weight and its bias may share a group that has one.)
/// @throws c10::Error if the layout does not fit, for a layout under AdamW or, with Auto, one whose
/// matrices do not suit, and for Orthogonalized below rank 2.
Rule resolve_rule(Rule rule, const MatrixLayout& layout, const at::Tensor& parameter,
                  const std::string& where);

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/parameters/detail/parameter_checks_impl.hpp>
#endif
