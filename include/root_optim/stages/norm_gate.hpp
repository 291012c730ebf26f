// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A gate for whole steps: one whose gradients are much longer than usual is weighed down.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/div.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstdint>
#include <limits>
#include <tuple>

#include <root_optim/kernels/workspace.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// What a gate keeps from step to step, on the device of the norms; undefined before its first step.
struct GateState {
  static constexpr int64_t window = 17;  ///< the norms that it keeps

  at::Tensor
      norms;  ///< of the last steps that had one, the latest at the end; 0: none yet. [17], float64
  at::Tensor run;      ///< steps in a row that were struck, up to the last one: one int64
  at::Tensor strikes;  ///< all steps that were struck: one int64

  /// That of no step.
  static GateState begin(at::Device device) {
    const auto counts = at::TensorOptions(device).dtype(at::kLong);
    return {at::zeros({window}, counts.dtype(at::kDouble)), at::zeros({}, counts),
            at::zeros({}, counts)};
  }
};

/// The weight of a step, and what the gate keeps of it.
struct GatedStep {
  at::Tensor weight;  ///< w in (0, 1], one float64
  GateState state;    ///< after the step
};

/// Weighs a step down whose gradients are much longer than usual, such as that of a spoiled batch.
///
/// Math:    m = the median of the norms kept (of an even number the lower one), n that of this step
///          w = min(1, κm/n)^16  where 5 norms are known and fewer than `most` steps in a row were struck
///          w = 1                else
///          w < 1/2 is a strike, n > 1.044 κm. Struck or not, n replaces the oldest norm.
/// A lasting change of scale is usual as soon as half of the norms kept are of it: after at most 9 steps, of
/// which with most = 1 every second one is taken. So the gate cannot stop training. A step without a norm
/// (0, infinite or NaN) leaves everything as it is, with w = 1.
/// Shapes:  norm: one float64. No host synchronization. Nothing is written.
/// Cost:    about twenty operators on 17 numbers.
/// @param threshold κ, >= 1.
/// @param most range: > 0.
/// @throws c10::Error for numbers out of their range.
inline GatedStep norm_gate(const at::Tensor& norm, const GateState& state, double threshold,
                           int64_t most) {
  TORCH_CHECK(threshold >= 1, "root_optim::norm_gate: expected threshold >= 1, got ", threshold);
  TORCH_CHECK(most > 0, "root_optim::norm_gate: expected most > 0, got ", most);
  constexpr double power = 16;
  constexpr int64_t least = 5;  // norms that make a median
  const at::Tensor known = state.norms.gt(0).sum();
  // Those that are none yet come first.
  const at::Tensor middle = at::div(known, 2, "trunc").neg_().add_(GateState::window - 1);
  const at::Tensor median =
      std::get<0>(at::sort(state.norms)).gather(0, middle.reshape({1})).reshape({});
  const at::Tensor usable =
      norm.gt(0).bitwise_and_(norm.lt(std::numeric_limits<double>::infinity()));
  const at::Tensor open = known.ge(least).bitwise_and_(state.run.lt(most)).bitwise_and_(usable);

  GatedStep result;
  result.weight = at::where(open, median.mul(threshold).div_(norm).clamp_max_(1.0).pow_(power),
                            at::ones_like(norm));
  const at::Tensor struck = result.weight.lt(0.5);
  const at::Tensor moved =
      at::cat({state.norms.narrow(0, 1, GateState::window - 1), norm.reshape({1})});
  result.state.norms = at::where(usable, moved, state.norms);
  result.state.run = at::where(usable, state.run.add(1).mul_(struck), state.run);
  result.state.strikes = state.strikes.add(struck);
  return result;
}

/// w·x for a step's weight w; x itself with an undefined one, or where the host sees without waiting
/// that it is 1.
/// @param weight one float64, on x's device.
inline at::Tensor weighed(const at::Tensor& x, const at::Tensor& weight,
                          Workspace* workspace = nullptr) {
  if (!weight.defined() || (weight.is_cpu() && *weight.data_ptr<double>() == 1)) return x;
  at::Tensor result = detail::temporary_like(workspace, x);
  return at::mul_out(result, x, weight.to(x.scalar_type()));
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
