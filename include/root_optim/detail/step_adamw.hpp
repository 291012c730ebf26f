// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// One step of a batch of parameters that are not matrices. The mathematics is in adamw.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/stack.h>

#include <cstddef>
#include <map>
#include <utility>
#include <vector>

#include <root_optim/adamw.hpp>
#include <root_optim/detail/fused_adamw.hpp>
#include <root_optim/detail/max_abs.hpp>
#include <root_optim/detail/non_finite.hpp>
#include <root_optim/options.hpp>

namespace root_optim {
inline namespace v0 {
namespace detail {

/// Steps the parameters of one group and device that follow AdamW, of any shapes and dtypes; with
/// NonFinite::Skip all or none.
///
/// By the fused kernel what it takes, by `adamw_step` the rest. An error leaves each parameter with its
/// state, before or after.
template <class Options>
void step_adamw(const Options& options, const std::vector<at::Tensor>& parameters,
                const std::vector<ParamState*>& states) {
  const auto [beta1, beta2] = options.betas();
  const bool guarded = options.non_finite() != NonFinite::Propagate;
  std::vector<at::Tensor> own;  // of each gradient: whether it is finite
  at::Tensor usable;            // whether all can be squared
  if (guarded) {
    std::vector<at::Tensor> squares;
    for (const at::Tensor& parameter : parameters) {
      const at::Tensor gradient = state_gradient(parameter).reshape({1, -1});
      const at::Tensor largest = max_abs(gradient).reshape({});
      own.push_back(is_finite(largest));
      const bool as_it_is = options.non_finite() != NonFinite::Zero;
      const at::Tensor used =
          as_it_is ? largest : max_abs(cleaned(gradient, NonFinite::Zero)).reshape({});
      squares.push_back(used.square().to(at::kDouble));
    }
    usable = is_finite(at::stack(squares)).all();
  }

  const size_t size = parameters.size();
  std::vector<FaultCounters> counters(size);
  if (guarded) {
    for (size_t i = 0; i < size; ++i) counters[i] = next_counters(*states[i], usable, own[i]);
  }

  std::map<at::ScalarType, AdamWLists> fused;
  for (size_t i = 0; i < size; ++i) {
    const at::Tensor& parameter = parameters[i];
    ParamState& state = *states[i];
    const at::Tensor gradient = cleaned(state_gradient(parameter), options.non_finite());
    const at::Tensor t = state.skipped().neg().add_(state.step() + 1);
    if (fused_adamw_takes(parameter, gradient, state.exp_avg())) {
      AdamWLists& lists = fused[parameter.scalar_type()];
      lists.parameters.push_back(parameter);
      lists.gradients.push_back(gradient);
      lists.exp_avgs.push_back(state.exp_avg());
      lists.exp_avg_sqs.push_back(state.exp_avg_sq());
      lists.steps.push_back(t.to(at::kFloat));
      lists.indices.push_back(i);
      continue;
    }
    AdamWResult next =
        adamw_step(parameter, gradient, state.exp_avg(), state.exp_avg_sq(), t, options.lr(), beta1,
                   beta2, options.eps(), options.weight_decay());
    if (guarded) {
      next.parameter = where_usable(usable, next.parameter, parameter);
      next.exp_avg = where_usable(usable, next.exp_avg, state.exp_avg());
      next.exp_avg_sq = where_usable(usable, next.exp_avg_sq, state.exp_avg_sq());
    }
    parameter.copy_(next.parameter);  // commit: the parameter first, the only copy that may fail
    state.exp_avg().copy_(next.exp_avg);
    state.exp_avg_sq().copy_(next.exp_avg_sq);
    commit_counters(*states[i], counters[i]);
  }
  for (auto& [dtype, lists] : fused) {
    fused_adamw(lists, usable, options.lr(), beta1, beta2, options.eps(), options.weight_decay());
    for (const size_t i : lists.indices) commit_counters(*states[i], counters[i]);
  }
}

}  // namespace detail
}  // namespace v0
}  // namespace root_optim
