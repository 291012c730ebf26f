// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of optimizer/detail/step_adamw.hpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include <root_optim/kernels/max_abs.hpp>
#include <root_optim/optimizer/detail/commit.hpp>
#include <root_optim/optimizer/detail/exchange.hpp>
#include <root_optim/optimizer/detail/fault_guard.hpp>
#include <root_optim/optimizer/detail/step_adamw.hpp>
#include <root_optim/optimizer/options.hpp>
#include <root_optim/stages/adamw.hpp>
#include <root_optim/stages/detail/fused_adamw.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

ROOT_OPTIM_INLINE void guard_gradients(AdamWPart& part) {
  if (part.guard.cleans()) {
    part.guard.note(max_abs_each(part.gradients).square());
    for (at::Tensor& gradient : part.gradients) gradient = part.guard.cleaned(gradient);
  }
  part.guard.must_be_finite(max_abs_each(part.gradients).square());
}

ROOT_OPTIM_INLINE void step_fused(AdamWPart& part, const AdamWSettings& settings) {
  const at::Tensor t = taken_steps(part);
  const std::vector<at::Tensor> counters = part.guard.counters(part.states);
  Commit commit;
  add_counters(commit, part.states, counters);
  exchange(commit);
  fused_adamw(part.parameters, part.gradients, part.states, t, part.guard.usable(), settings);
  commit.run();
  for (ParamState* state : part.states) ++state->step();
}

ROOT_OPTIM_INLINE void step_plain(AdamWPart& part, const AdamWSettings& settings) {
  const at::Tensor t = taken_steps(part);
  const std::vector<at::Tensor> counters = part.guard.counters(part.states);
  for (size_t i = 0; i < part.parameters.size(); ++i) {
    const at::Tensor& parameter = part.parameters[i];
    ParamState& state = *part.states[i];
    AdamWResult next = adamw_step(parameter, part.gradients[i], state.exp_avg(), state.exp_avg_sq(),
                                  t[static_cast<int64_t>(i)], settings);
    next.parameter = part.guard.choose(next.parameter, parameter);
    next.exp_avg = part.guard.choose(next.exp_avg, state.exp_avg());
    next.exp_avg_sq = part.guard.choose(next.exp_avg_sq, state.exp_avg_sq());
    const at::Tensor ready = ready_for(parameter, next.parameter);
    Commit commit;
    commit.add({parameter, state.exp_avg(), state.exp_avg_sq()},
               {ready, next.exp_avg, next.exp_avg_sq});
    if (!counters.empty()) {
      commit.add({state.skipped(), state.non_finite()},
                 {counters[i], counters[part.parameters.size() + i]});
    }
    exchange(commit);
    commit.run();
    ++state.step();
  }
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
