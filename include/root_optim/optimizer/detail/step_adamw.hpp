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
#include <root_optim/optimizer/detail/pending.hpp>
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
  std::vector<at::Tensor> wholes;  ///< the gradients that those are parts of; empty: they are whole
  std::vector<ParamState*> states;
  FaultGuard guard;
};

/// By the way they are stepped, its dtype of state and their number of steps.
using AdamWParts = std::map<std::tuple<bool, at::ScalarType, int64_t>, AdamWPart>;

/// A gradient must be such that it can be squared: one that is finite, but not its square, is its own
/// fault, too. A part of a gradient is judged by the whole.
void guard_gradients(AdamWPart& part);

/// What the kernel is called for: all parameters of a part at once, where the host may look at the flags
/// or one flag decides for all; else, since a call takes one flag, each parameter by itself.
std::vector<FusedAdamWCall> fused_calls(const AdamWPart& part);

/// By the fused kernel, which writes in place.
void step_fused(AdamWPart& part, const AdamWSettings& settings,
                const std::optional<DeviceRates>& rates);

/// The next values of a parameter, as a new tensor in the dtype of its state, and of its moments: by
/// `adamw_step`; of a master weight by the kernel, on copies.
/// @param t one number on the parameter's device
AdamWResult next_of(const at::Tensor& parameter, const at::Tensor& gradient,
                    const ParamState& state, const at::Tensor& t, const AdamWSettings& settings,
                    const std::optional<DeviceRates>& rates);

/// The parameters of a part one by one, each with its state.
void step_plain(AdamWPart& part, const AdamWSettings& settings,
                const std::optional<DeviceRates>& rates);

/// What the guard and the states of a part say about its parameters, in their order.
struct PartNumbers {
  explicit PartNumbers(const AdamWPart& part);

  at::Tensor taken;                  ///< as `taken_steps`
  std::vector<at::Tensor> counters;  ///< as FaultGuard::counters
  std::vector<at::Tensor> usable;    ///< a flag each, or undefined
};

/// What `step_plain` makes of one parameter of a part.
void plain_step_of(AdamWPart& part, size_t i, const PartNumbers& numbers,
                   const AdamWSettings& settings, const std::optional<DeviceRates>& rates,
                   Pending& pending);

/// The parts of a batch.
template <class Options>
AdamWParts adamw_parts(const Batch<Options>& batch) {
  const Options& options = *batch.options;
  AdamWParts parts;
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
  return parts;
}

/// `guard_gradients` for all parts.
inline void guard_parts(AdamWParts& parts) {
  for (auto& [way, part] : parts) guard_gradients(part);
}

/// Whether all gradients are usable, one flag.
inline at::Tensor all_usable(const AdamWParts& parts) {
  at::Tensor usable;
  for (const auto& [way, part] : parts) {
    const at::Tensor all = part.guard.all_usable();
    usable = usable.defined() ? usable.bitwise_and(all) : all;
  }
  return usable;
}

/// Makes of a part's gradients what AdamW takes: filtered where all are, and weighed.
template <class Options>
void filter_and_weigh(AdamWPart& part, const Options& options, const at::Tensor& weight,
                      Workspace* workspace) {
  for (at::Tensor& gradient : part.gradients) {
    if (options.filter_place() == FilterPlace::AllGradients) {
      gradient = filtered_plain(gradient, options.filter(), workspace);
    }
    gradient = weighed(gradient, weight, workspace);
  }
}

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
  AdamWParts parts = adamw_parts(batch);
  if (options.non_finite() != NonFinite::Propagate) {
    guard_parts(parts);
  }
  if (options.non_finite() == NonFinite::SkipGroup) {
    const at::Tensor usable = all_usable(parts);
    for (auto& [way, part] : parts) part.guard.decide(usable);
  }
  for (auto& [way, part] : parts) filter_and_weigh(part, options, weight, workspace);
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
