// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The state of a parameter: found, checked, and made complete for the coming step.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include <root_optim/core/state_key.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>  // state_dtype
#include <root_optim/parameters/layout.hpp>
#include <root_optim/parameters/param_state.hpp>
#include <root_optim/parameters/rule.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// The shape of a slot's tensor.
std::vector<int64_t> slot_shape(ParamState::Kind kind, const at::Tensor& parameter,
                                const MatrixLayout& layout);

/// The state that `states` has for a parameter, or null.
/// @throws c10::Error, in the name of `who`, if it is another optimizer's.
const ParamState* own_state(const StateMap& states, const at::Tensor& parameter, const char* who,
                            const std::string& where);

/// The same for a step.
/// @throws c10::Error also if it does not fit the parameter.
const ParamState* find_state(const StateMap& states, const at::Tensor& parameter,
                             const MatrixLayout& layout, const std::string& where);

/// Whether a parameter needs a master weight, under these options.
template <class Options>
bool needs_master(const at::Tensor& parameter, const Options& options) {
  return options.master_weights() && parameter.scalar_type() != state_dtype(parameter);
}

/// Whether a parameter of a rule needs a slot, under these options.
template <class Options>
bool needs_slot(const ParamState::Slot& slot, Rule rule, const Options& options,
                const at::Tensor& parameter) {
  if (slot.kind == ParamState::Kind::Master) return needs_master(parameter, options);
  const bool of_update =
      slot.kind == ParamState::Kind::Rows || slot.kind == ParamState::Kind::Columns;
  return (slot.rule == Rule::Auto || slot.rule == rule) &&
         (!of_update || options.update_beta() > 0);
}

/// A slot's tensor as the parameter needs it: its beginning for none, converted to its device and dtype else.
at::Tensor prepared(const at::Tensor& tensor, ParamState::Kind kind, const at::Tensor& parameter,
                    const MatrixLayout& layout, const std::string& where);

/// Has the steps of a state counted on the parameter's device or on the host. Waits for the device only where
/// the count comes back from it.
void count_where(ParamState& state, bool on_device, const at::Tensor& parameter);

/// The state for the coming step, complete for the rule. A parameter whose rule has changed begins anew.
/// @param found what `find_state` gave
template <class Options>
ParamState next_state(const ParamState* found, const at::Tensor& parameter, Rule rule,
                      const Options& options, const std::string& where) {
  ParamState next;
  if (found != nullptr) next = *found;
  for (const ParamState::Slot& slot : ParamState::slot_list()) {
    if (slot.rule == rule && slot.since == 1 && !(next.*slot.tensor).defined()) next = ParamState();
  }
  for (const ParamState::Slot& slot : ParamState::slot_list()) {
    next.*slot.tensor =
        needs_slot(slot, rule, options, parameter)
            ? prepared(next.*slot.tensor, slot.kind, parameter, options.layout(), where)
            : at::Tensor();
  }
  count_where(next, options.capturable(), parameter);
  return next;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/optimizer/detail/next_state_impl.hpp>
#endif
