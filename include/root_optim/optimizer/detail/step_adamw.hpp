// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// One step of a batch of parameters that are not matrices. The mathematics is in adamw.hpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

#include <root_optim/kernels/max_abs.hpp>
#include <root_optim/optimizer/detail/commit.hpp>
#include <root_optim/optimizer/detail/filtering.hpp>
#include <root_optim/optimizer/detail/non_finite.hpp>
#include <root_optim/optimizer/options.hpp>
#include <root_optim/parameters/layout.hpp>
#include <root_optim/stages/adamw.hpp>
#include <root_optim/stages/detail/fused_adamw.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Parameters that are stepped in one way: by the fused kernel or not, with state of one dtype, after
/// one number of steps.
struct AdamWPart {
  std::vector<at::Tensor> parameters, gradients;
  std::vector<ParamState*> states;
  at::Tensor own;          ///< whether each gradient can be squared: bool, [k]
  FaultCounters counters;  ///< empty where nothing was counted
};

/// Sets `own`, and cleans the gradients if the policy says so; returns whether all can be squared: a
/// finite one whose square is not counts as its own fault, too.
inline at::Tensor check_gradients(AdamWPart& part, NonFinite policy) {
  at::Tensor largest = max_abs_each(part.gradients);
  part.own = is_finite(largest.square());
  if (policy == NonFinite::Zero) {
    for (at::Tensor& gradient : part.gradients) gradient = cleaned(gradient, policy);
    largest = max_abs_each(part.gradients);
  }
  return is_finite(largest.square()).all();
}

/// Puts each gradient through `filter`, as one matrix, or a vector as one row. Contiguous ones stay so.
template <class Filter>
void filter_gradients(AdamWPart& part, const Filter& filter) {
  for (at::Tensor& gradient : part.gradients) {
    if (gradient.numel() == 0) continue;
    const int64_t rows = gradient.dim() > 1 ? gradient.size(0) : 1;
    const at::Tensor matrix = gradient.reshape({1, rows, -1});
    gradient = filtered(matrix, filter, Layout()).reshape(gradient.sizes()).contiguous();
  }
}

/// t of each parameter, counted from 1: steps less those skipped, which only the device knows. [k]
inline at::Tensor taken_steps(const AdamWPart& part) {
  return skipped_of(part.states).neg_().add_(part.states.front()->step() + 1);
}

/// Steps the parameters of one group and device that follow AdamW, of any shapes and dtypes; with
/// NonFinite::Skip all or none.
///
/// By the fused kernel what it takes, by `adamw_step`, one by one, the rest. An error leaves each
/// parameter with its state, before or after.
template <class Options>
void step_adamw(const Options& options, const std::vector<at::Tensor>& parameters,
                const std::vector<ParamState*>& states) {
  std::map<std::tuple<bool, at::ScalarType, int64_t>, AdamWPart> parts;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const at::Tensor gradient = state_gradient(parameters[i]);
    const bool fused = fused_adamw_takes(parameters[i], gradient, states[i]->exp_avg());
    AdamWPart& part = parts[{fused, gradient.scalar_type(), states[i]->step()}];
    part.parameters.push_back(parameters[i]);
    part.gradients.push_back(gradient);
    part.states.push_back(states[i]);
  }
  at::Tensor usable;  // whether all gradients can be squared: one bool
  if (options.non_finite() != NonFinite::Propagate) {
    for (auto& [way, part] : parts) {
      const at::Tensor squares = check_gradients(part, options.non_finite());
      usable = usable.defined() ? usable.bitwise_and(squares) : squares;
    }
    for (auto& [way, part] : parts) {
      part.counters = next_counters(part.states, usable, part.own);
    }
  }

  if (options.filter_place() == FilterPlace::AllGradients) {
    for (auto& [way, part] : parts) filter_gradients(part, options.filter());
  }

  const auto [beta1, beta2] = options.betas();
  for (auto& [way, part] : parts) {
    const at::Tensor t = taken_steps(part);
    if (std::get<0>(way)) {
      Commit commit;
      add_counters(commit, part.states, part.counters);
      fused_adamw(part.parameters, part.gradients, part.states, t, usable, options.lr(), beta1,
                  beta2, options.eps(), options.weight_decay());
      commit.run();
      for (ParamState* state : part.states) ++state->step();
      continue;
    }
    for (size_t i = 0; i < part.parameters.size(); ++i) {
      const at::Tensor& parameter = part.parameters[i];
      ParamState& state = *part.states[i];
      AdamWResult next = adamw_step(parameter, part.gradients[i], state.exp_avg(),
                                    state.exp_avg_sq(), t[static_cast<int64_t>(i)], options.lr(),
                                    beta1, beta2, options.eps(), options.weight_decay());
      if (usable.defined()) {
        next.parameter = where_usable(usable, next.parameter, parameter);
        next.exp_avg = where_usable(usable, next.exp_avg, state.exp_avg());
        next.exp_avg_sq = where_usable(usable, next.exp_avg_sq, state.exp_avg_sq());
      }
      Commit commit;
      const at::Tensor ready = ready_for(parameter, next.parameter);
      commit.add({parameter, state.exp_avg(), state.exp_avg_sq()},
                 {ready, next.exp_avg, next.exp_avg_sq});
      if (!part.counters.empty()) {
        commit.add({state.skipped(), state.non_finite()},
                   {part.counters[i], part.counters[part.parameters.size() + i]});
      }
      commit.run();
      ++state.step();
    }
  }
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
