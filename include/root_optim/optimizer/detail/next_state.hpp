// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The state of a parameter: found, checked, and made complete for the coming step.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <string>

#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/parameters/detail/state_key.hpp>
#include <root_optim/parameters/param_state.hpp>
#include <root_optim/parameters/rule.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// The state that `states` has for a parameter, or null.
/// @throws c10::Error if it is another optimizer's or does not fit the parameter.
inline const ParamState* find_state(const StateMap& states, const at::Tensor& parameter,
                                    const std::string& where) {
  const auto found = states.find(state_key(parameter));
  if (found == states.end() || !found->second) return nullptr;
  const auto* state = dynamic_cast<const ParamState*>(found->second.get());
  TORCH_CHECK(state != nullptr,
              "root_optim::step: expected state of this optimizer's own type for ", where,
              ", got another optimizer's");
  for (const ParamState::Slot& slot : ParamState::slots()) {
    const at::Tensor& tensor = state->*slot.tensor;
    TORCH_CHECK(slot.kind != ParamState::Kind::Values || !tensor.defined() ||
                    tensor.sizes() == parameter.sizes(),
                "root_optim::step: expected state of the parameter's shape, got ", tensor.sizes(),
                " for ", where,
                "; after a parameter was replaced by another, erase its entry of state()");
  }
  return state;
}

/// A slot's tensor as the parameter needs it: zeros for none, converted to its device and dtype else.
inline at::Tensor prepared(const at::Tensor& tensor, ParamState::Kind kind,
                           const at::Tensor& parameter, const std::string& where) {
  if (kind == ParamState::Kind::Count) {
    const auto options = at::TensorOptions(parameter.device()).dtype(at::kLong);
    if (!tensor.defined()) return at::zeros({}, options);
    return tensor.device() == parameter.device() ? tensor : tensor.to(options);
  }
  const at::ScalarType dtype = state_dtype(parameter);
  if (!tensor.defined()) {
    return at::zeros_like(parameter, parameter.options().dtype(dtype).requires_grad(false),
                          at::MemoryFormat::Contiguous);
  }
  return tensor.device() == parameter.device() && tensor.scalar_type() == dtype
             ? tensor
             : converted_state(tensor, parameter, where);
}

/// The state for the coming step, complete for the rule. A parameter whose rule has changed begins anew.
/// @param found what `find_state` gave
inline ParamState next_state(const ParamState* found, const at::Tensor& parameter, Rule rule,
                             const std::string& where) {
  ParamState next;
  if (found != nullptr) next = *found;
  for (const ParamState::Slot& slot : ParamState::slots()) {
    if (slot.rule == rule && slot.since == 1 && !(next.*slot.tensor).defined()) next = ParamState();
  }
  for (const ParamState::Slot& slot : ParamState::slots()) {
    const bool kept = slot.rule == Rule::Auto || slot.rule == rule;
    next.*slot.tensor =
        kept ? prepared(next.*slot.tensor, slot.kind, parameter, where) : at::Tensor();
  }
  return next;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
