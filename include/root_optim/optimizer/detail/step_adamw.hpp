// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// One step of a batch of parameters that are not matrices. The mathematics is in adamw.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/stack.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <tuple>
#include <vector>

#include <root_optim/optimizer/detail/batch.hpp>
#include <root_optim/optimizer/detail/fault_guard.hpp>
#include <root_optim/optimizer/detail/filtering.hpp>
#include <root_optim/optimizer/options.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>  // state_dtype
#include <root_optim/stages/adamw.hpp>
#include <root_optim/stages/detail/fused_adamw.hpp>
#include <root_optim/stages/norm_gate.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Parameters that are stepped in one way: by the fused kernel or not, with state of one dtype, after
/// one number of steps.
struct AdamWPart {
  explicit AdamWPart(NonFinite policy) : guard(policy) {}

  std::vector<at::Tensor> parameters, gradients;
  std::vector<ParamState*> states;
  FaultGuard guard;
};

/// A gradient must be such that it can be squared: one that is finite, but not its square, is its own
/// fault, too.
void guard_gradients(AdamWPart& part);

/// What the kernel is called for: all parameters of a part at once, where the host may look at the flags
/// or one flag decides for all; else, since a call takes one flag, each parameter by itself.
std::vector<FusedAdamWCall> fused_calls(const AdamWPart& part);

/// By the fused kernel, which writes in place: `exchange` comes before it.
void step_fused(AdamWPart& part, const AdamWSettings& settings,
                const std::optional<DeviceRates>& rates);

/// The parameters of a part one by one, each with its state.
void step_plain(AdamWPart& part, const AdamWSettings& settings,
                const std::optional<DeviceRates>& rates);

/// Steps the parameters of one group and device that follow AdamW, of any shapes and dtypes; with
/// NonFinite::SkipGroup all or none.
///
/// By the fused kernel what it takes, by `adamw_step`, one by one, the rest. An error leaves each
/// parameter with its state, before or after.
/// @param weight of the step, see norm_gate.hpp; undefined: 1.
/// @return `FaultGuard::first_skipped`
template <class Options>
at::Tensor step_adamw(const Batch<Options>& batch, const at::Tensor& weight, Workspace* workspace) {
  const Options& options = *batch.options;
  std::map<std::tuple<bool, at::ScalarType, int64_t>, AdamWPart> parts;
  for (size_t i = 0; i < batch.parameters.size(); ++i) {
    const at::Tensor& parameter = batch.parameters[i];
    ParamState* state = batch.states[i];
    const at::Tensor gradient = as_dtype(parameter.grad(), state_dtype(parameter));
    // The kernel takes a rate on the device in float32 only.
    const bool rate_fits = !options.capturable() || gradient.scalar_type() == at::kFloat;
    const bool fused = rate_fits && fused_adamw_takes(parameter, gradient, state->exp_avg());
    const int64_t steps = options.capturable() ? 0 : state->step();  // else the device knows
    AdamWPart& part =
        parts.try_emplace({fused, gradient.scalar_type(), steps}, options.non_finite())
            .first->second;
    part.parameters.push_back(parameter);
    part.gradients.push_back(gradient);
    part.states.push_back(state);
  }
  if (options.non_finite() != NonFinite::Propagate) {
    for (auto& [way, part] : parts) guard_gradients(part);
  }
  if (options.non_finite() == NonFinite::SkipGroup) {
    at::Tensor usable;
    for (auto& [way, part] : parts) {
      const at::Tensor all = part.guard.all_usable();
      usable = usable.defined() ? usable.bitwise_and(all) : all;
    }
    for (auto& [way, part] : parts) part.guard.decide(usable);
  }
  if (options.filter_place() == FilterPlace::AllGradients) {
    for (auto& [way, part] : parts) {
      for (at::Tensor& gradient : part.gradients) {
        gradient = filtered_plain(gradient, options.filter(), workspace);
      }
    }
  }
  for (auto& [way, part] : parts) {
    for (at::Tensor& gradient : part.gradients) gradient = weighed(gradient, weight, workspace);
  }
  const AdamWSettings settings = options.adamw_settings();
  std::optional<DeviceRates> rates = device_rates(batch);
  if (rates) rates = options.adamw_rates(*rates);
  at::Tensor skipped;
  for (auto& [way, part] : parts) {
    if (!skipped.defined()) skipped = part.guard.first_skipped(part.parameters);
    std::get<0>(way) ? step_fused(part, settings, rates) : step_plain(part, settings, rates);
  }
  return skipped;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/optimizer/detail/step_adamw_impl.hpp>
#endif
