// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of stages/detail/fused_adamw.hpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include <root_optim/parameters/param_state.hpp>
#include <root_optim/stages/adamw.hpp>
#include <root_optim/stages/detail/fused_adamw.hpp>
#include <root_optim/version.hpp>

#if ROOT_OPTIM_HAS_FUSED_ADAMW
#include <ATen/ops/_fused_adamw.h>
#endif

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

ROOT_OPTIM_INLINE bool fused_adamw_takes(const at::Tensor& parameter, const at::Tensor& gradient,
                                         const at::Tensor& state) {
  return ROOT_OPTIM_HAS_FUSED_ADAMW != 0 && (parameter.is_cpu() || parameter.is_cuda()) &&
         parameter.scalar_type() == state.scalar_type() &&
         gradient.scalar_type() == state.scalar_type() && parameter.is_contiguous() &&
         gradient.is_contiguous() && state.is_contiguous();
}

ROOT_OPTIM_INLINE void fused_adamw(const std::vector<at::Tensor>& parameters,
                                   const std::vector<at::Tensor>& gradients,
                                   const std::vector<ParamState*>& states, const at::Tensor& t,
                                   const at::Tensor& usable, const AdamWSettings& settings) {
#if ROOT_OPTIM_HAS_FUSED_ADAMW
  std::vector<at::Tensor> exp_avgs, exp_avg_sqs;
  for (ParamState* state : states) {
    exp_avgs.push_back(state->exp_avg());
    exp_avg_sqs.push_back(state->exp_avg_sq());
  }
  std::optional<at::Tensor> found_inf;
  if (usable.defined()) found_inf = usable.logical_not().to(at::kFloat);
  at::_fused_adamw_(parameters, gradients, exp_avgs, exp_avg_sqs, /*max_exp_avg_sqs=*/{},
                    t.to(at::kFloat).unbind(0), settings.lr, settings.beta1, settings.beta2,
                    settings.weight_decay, settings.eps,
                    /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{}, found_inf);
#else
  TORCH_INTERNAL_ASSERT(false, parameters.size(), gradients.size(), states.size(), t, usable,
                        settings.lr);
#endif
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
