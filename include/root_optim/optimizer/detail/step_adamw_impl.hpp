// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of optimizer/detail/step_adamw.hpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include <root_optim/kernels/max_abs.hpp>
#include <root_optim/optimizer/detail/commit.hpp>
#include <root_optim/optimizer/detail/fault_guard.hpp>
#include <root_optim/optimizer/detail/pending.hpp>
#include <root_optim/optimizer/detail/step_adamw.hpp>
#include <root_optim/optimizer/options.hpp>
#include <root_optim/stages/adamw.hpp>
#include <root_optim/stages/detail/fused_adamw.hpp>
#include <root_optim/stages/master_weights.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

ROOT_OPTIM_INLINE void guard_gradients(AdamWPart& part) {
  std::vector<at::Tensor>& judged = part.wholes.empty() ? part.gradients : part.wholes;
  if (part.guard.cleans()) {
    part.guard.note(max_abs_each(judged).square());
    for (at::Tensor& gradient : part.gradients) gradient = part.guard.cleaned(gradient);
    for (at::Tensor& gradient : part.wholes) gradient = part.guard.cleaned(gradient);
  }
  part.guard.must_be_finite(max_abs_each(judged).square());
  part.wholes.clear();
}

ROOT_OPTIM_INLINE std::vector<FusedAdamWCall> fused_calls(const AdamWPart& part) {
  const std::vector<at::Tensor> t = taken_steps(part.states).to(at::kFloat).unbind(0);
  const at::Tensor& usable = part.guard.usable();
  const bool own_flags = usable.defined() && usable.dim() > 0;
  std::vector<at::Tensor> skip;  // what the kernel goes by, if the host does not
  if (usable.defined() && !(own_flags && usable.is_cpu())) {
    const at::Tensor flags = usable.bitwise_not().to(at::kFloat);
    skip = own_flags ? flags.unbind(0) : std::vector<at::Tensor>{flags};
  }
  const bool* seen = own_flags && usable.is_cpu() ? usable.data_ptr<bool>() : nullptr;

  std::vector<FusedAdamWCall> calls((std::max)(skip.size(), size_t{1}));
  for (size_t k = 0; k < skip.size(); ++k) calls[k].skip = skip[k];
  for (size_t i = 0; i < part.parameters.size(); ++i) {
    if (seen != nullptr && !seen[i]) continue;
    FusedAdamWCall& call = calls[(std::min)(i, calls.size() - 1)];
    call.parameters.push_back(part.parameters[i]);
    call.gradients.push_back(part.gradients[i]);
    call.exp_avgs.push_back(part.states[i]->exp_avg());
    call.exp_avg_sqs.push_back(part.states[i]->exp_avg_sq());
    call.steps.push_back(t[i]);
  }
  return calls;
}

ROOT_OPTIM_INLINE void step_fused(AdamWPart& part, const AdamWSettings& settings,
                                  const std::optional<DeviceRates>& rates) {
  std::vector<FusedAdamWCall> calls = fused_calls(part);
  const std::vector<at::Tensor> counters = part.guard.counters(part.states);
  Commit commit;
  add_counters(commit, part.states, counters);
  const std::vector<at::Tensor> steps = next_device_steps(part.states);
  add_device_steps(commit, part.states, steps);
  for (FusedAdamWCall& call : calls) fused_adamw(call, settings, rates ? &*rates : nullptr);
  commit.run();
  for (ParamState* state : part.states) count_on_host(state);
}

ROOT_OPTIM_INLINE AdamWResult next_of(const at::Tensor& parameter, const at::Tensor& gradient,
                                      const ParamState& state, const at::Tensor& t,
                                      const AdamWSettings& settings,
                                      const std::optional<DeviceRates>& rates) {
  const bool has_master = state.master().defined();
  const at::Tensor weight = has_master ? current_weight(parameter, state.master()) : parameter;
  if (has_master && fused_adamw_takes(weight, gradient, state.exp_avg())) {
    AdamWResult next{state.exp_avg().clone(), state.exp_avg_sq().clone(), weight};
    FusedAdamWCall call{{next.parameter},  {gradient},         {next.exp_avg},
                        {next.exp_avg_sq}, {t.to(at::kFloat)}, {}};
    fused_adamw(call, settings, rates ? &*rates : nullptr);
    return next;
  }
  const auto step = [&](const auto&... given) {
    return adamw_step(weight, gradient, state.exp_avg(), state.exp_avg_sq(), t, settings, given...);
  };
  return rates ? step(*rates) : step();
}

ROOT_OPTIM_INLINE PartNumbers::PartNumbers(const AdamWPart& part)
    : taken(taken_steps(part.states)),
      counters(part.guard.counters(part.states)),
      usable(part.guard.usable_each(part.parameters.size())) {}

ROOT_OPTIM_INLINE void plain_step_of(AdamWPart& part, size_t i, const PartNumbers& numbers,
                                     const AdamWSettings& settings,
                                     const std::optional<DeviceRates>& rates, Pending& pending) {
  const at::Tensor& parameter = part.parameters[i];
  ParamState& state = *part.states[i];
  const at::Tensor own = numbers.taken[static_cast<int64_t>(i)];
  const at::Tensor& usable = numbers.usable[i];
  AdamWResult next = next_of(parameter, part.gradients[i], state, own, settings, rates);
  if (state.master().defined()) {
    pending.copies.add({state.master()}, {choose(usable, next.parameter, state.master())});
  }
  next.parameter = choose(usable, next.parameter, parameter);
  next.exp_avg = choose(usable, next.exp_avg, state.exp_avg());
  next.exp_avg_sq = choose(usable, next.exp_avg_sq, state.exp_avg_sq());
  pending.add({parameter}, {ready_for(parameter, next.parameter)}, {&state});
  pending.copies.add({state.exp_avg(), state.exp_avg_sq()}, {next.exp_avg, next.exp_avg_sq});
  if (!numbers.counters.empty()) {
    pending.copies.add({state.skipped(), state.non_finite()},
                       {numbers.counters[i], numbers.counters[part.parameters.size() + i]});
  }
}

ROOT_OPTIM_INLINE void step_plain(AdamWPart& part, const AdamWSettings& settings,
                                  const std::optional<DeviceRates>& rates) {
  const PartNumbers numbers(part);
  const std::vector<at::Tensor> steps = next_device_steps(part.states);
  for (size_t i = 0; i < part.parameters.size(); ++i) {
    Pending pending;
    plain_step_of(part, i, numbers, settings, rates, pending);
    if (!steps.empty()) pending.copies.add({part.states[i]->device_step()}, {steps[i]});
    pending.commit();
  }
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
