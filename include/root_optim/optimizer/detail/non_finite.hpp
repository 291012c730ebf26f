// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// How a step finds out, without waiting for the device, whether a gradient is usable. What it does
// then is the option NonFinite in options.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <vector>

#include <root_optim/optimizer/detail/commit.hpp>
#include <root_optim/optimizer/options.hpp>                   // NonFinite
#include <root_optim/parameters/detail/parameter_checks.hpp>  // state_dtype
#include <root_optim/parameters/param_state.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// x in `dtype`, itself where it has it: `Tensor::to` would be an operator all the same.
inline at::Tensor as_dtype(const at::Tensor& x, at::ScalarType dtype) {
  return x.scalar_type() == dtype ? x : x.to(dtype);
}

/// Whether all flags of a bool tensor on the CPU are set.
inline bool all_true(const at::Tensor& flags) {
  const bool* values = flags.data_ptr<bool>();
  return std::all_of(values, values + flags.numel(), [](bool flag) { return flag; });
}

/// Whether each number is finite; for magnitudes, so that one comparison tells (NaN < ∞ is false).
inline at::Tensor is_finite(const at::Tensor& magnitude) {
  return magnitude.lt(std::numeric_limits<double>::infinity());
}

/// `next` where `usable` (bool, broadcast), else `old`.
///
/// On the CPU the host may look without waiting: usually all is usable, and a pass over three tensors
/// is saved.
inline at::Tensor where_usable(const at::Tensor& usable, const at::Tensor& next,
                               const at::Tensor& old) {
  if (usable.is_cpu() && all_true(usable)) return next;
  return at::where(usable, next, as_dtype(old, next.scalar_type()));
}

/// The counters of k parameters after a step, made before the commit, which must not fail: `skipped` of
/// each, then `non_finite` of each. Empty where nothing was counted.
using FaultCounters = std::vector<at::Tensor>;

/// The states' `skipped` side by side, [k].
inline at::Tensor skipped_of(const std::vector<ParamState*>& states) {
  std::vector<at::Tensor> skipped;
  skipped.reserve(states.size());
  for (ParamState* state : states) skipped.push_back(state->skipped());
  return at::stack(skipped);
}

/// @param usable whether each step is taken, or all of them: bool, [k] or [].
/// @param own whether each parameter's own gradient is finite: bool, [k].
inline FaultCounters next_counters(const std::vector<ParamState*>& states, const at::Tensor& usable,
                                   const at::Tensor& own) {
  if (usable.is_cpu() && all_true(usable) && all_true(own)) return {};
  std::vector<at::Tensor> non_finite;
  non_finite.reserve(states.size());
  for (ParamState* state : states) non_finite.push_back(state->non_finite());
  const at::Tensor skipped = skipped_of(states), faults = at::stack(non_finite);
  return at::cat(
             {at::where(usable, skipped, skipped.add(1)), at::where(own, faults, faults.add(1))})
      .unbind(0);
}

inline void add_counters(Commit& commit, const std::vector<ParamState*>& states,
                         const FaultCounters& next) {
  if (next.empty()) return;
  std::vector<at::Tensor> to;
  to.reserve(next.size());
  for (ParamState* state : states) to.push_back(state->skipped());
  for (ParamState* state : states) to.push_back(state->non_finite());
  commit.add(to, next);
}

/// The parameter's gradient in the dtype of its state.
inline at::Tensor state_gradient(const at::Tensor& parameter) {
  return as_dtype(parameter.grad(), state_dtype(parameter));
}

/// A gradient with Inf and NaN replaced by 0 if the policy says so.
inline at::Tensor cleaned(const at::Tensor& gradient, NonFinite policy) {
  return policy == NonFinite::Zero ? at::nan_to_num(gradient, 0.0, 0.0, 0.0) : gradient;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
