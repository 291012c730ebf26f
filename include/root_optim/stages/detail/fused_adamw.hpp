// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// AdamW by LibTorch's fused kernel, where it has one: one pass over each parameter and its state in
// place of a dozen. The plain form, which defines what is computed, is in adamw.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>  // TORCH_INTERNAL_ASSERT
#include <torch/version.h>

#include <optional>
#include <vector>

#include <root_optim/parameters/param_state.hpp>
#include <root_optim/stages/adamw.hpp>
#include <root_optim/version.hpp>

#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 4)
#define ROOT_OPTIM_HAS_FUSED_ADAMW 1
#include <ATen/ops/_fused_adamw.h>
#else
#define ROOT_OPTIM_HAS_FUSED_ADAMW 0
#endif

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Whether the kernel takes a parameter: it walks through memory, so everything must be contiguous,
/// and knows one dtype.
inline bool fused_adamw_takes(const at::Tensor& parameter, const at::Tensor& gradient,
                              const at::Tensor& state) {
  return ROOT_OPTIM_HAS_FUSED_ADAMW != 0 && (parameter.is_cpu() || parameter.is_cuda()) &&
         parameter.scalar_type() == state.scalar_type() &&
         gradient.scalar_type() == state.scalar_type() && parameter.is_contiguous() &&
         gradient.is_contiguous() && state.is_contiguous();
}

/// `adamw_step` on all parameters of one dtype and device, in place; nothing is written if `usable` (one
/// bool) is false. Allocates no tensor of a parameter's size. Differs from the plain form by rounding.
/// @param t of each parameter, [k].
inline void fused_adamw(const std::vector<at::Tensor>& parameters,
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
