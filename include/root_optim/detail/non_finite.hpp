// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// How a step finds out, without waiting for the device, whether a gradient is usable. What it does
// then is the option NonFinite in options.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <limits>
#include <utility>

#include <root_optim/detail/parameter_checks.hpp>  // state_dtype
#include <root_optim/options.hpp>                  // NonFinite, ParamState

namespace root_optim {
inline namespace v0 {
namespace detail {

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
  if (usable.is_cpu()) {
    const bool* flags = usable.data_ptr<bool>();
    if (std::all_of(flags, flags + usable.numel(), [](bool flag) { return flag; })) return next;
  }
  return at::where(usable, next, old.to(next.scalar_type()));
}

/// The counters of a parameter after a step, made before the commit, which must not fail; undefined
/// where nothing was counted.
struct FaultCounters {
  at::Tensor skipped, non_finite;
};

/// @param usable, own whether the step is taken, and whether the parameter's own gradient is finite:
/// one bool each.
inline FaultCounters next_counters(ParamState& state, const at::Tensor& usable,
                                   const at::Tensor& own) {
  return {at::where(usable, state.skipped(), state.skipped().add(1)),
          at::where(own, state.non_finite(), state.non_finite().add(1))};
}

/// The last part of a parameter's commit.
inline void commit_counters(ParamState& state, FaultCounters& next) {
  if (next.skipped.defined()) {
    state.skipped() = std::move(next.skipped);
    state.non_finite() = std::move(next.non_finite);
  }
  ++state.step();
}

/// The parameter's gradient in the dtype of its state.
inline at::Tensor state_gradient(const at::Tensor& parameter) {
  return parameter.grad().to(state_dtype(parameter));
}

/// A gradient with Inf and NaN replaced by 0 if the policy says so.
inline at::Tensor cleaned(const at::Tensor& gradient, NonFinite policy) {
  return policy == NonFinite::Zero ? at::nan_to_num(gradient, 0.0, 0.0, 0.0) : gradient;
}

}  // namespace detail
}  // namespace v0
}  // namespace root_optim
