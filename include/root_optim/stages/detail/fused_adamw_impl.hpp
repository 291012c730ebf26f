// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of stages/detail/fused_adamw.hpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include <root_optim/stages/adamw.hpp>
#include <root_optim/stages/detail/fused_adamw.hpp>
#include <root_optim/version.hpp>

#if ROOT_OPTIM_HAS_FUSED_ADAMW
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#endif

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

ROOT_OPTIM_INLINE bool fused_adamw_takes(const at::Tensor& parameter, const at::Tensor& gradient,
                                         const at::Tensor& state) {
#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 6
  // CUDA's kernel wants equal strides there, also in dimensions of size 1, where autograd's may differ.
  if (!parameter.is_cpu() &&
      !(parameter.strides() == gradient.strides() && parameter.strides() == state.strides())) {
    return false;
  }
#endif
  return ROOT_OPTIM_HAS_FUSED_ADAMW != 0 && (parameter.is_cpu() || parameter.is_cuda()) &&
         parameter.scalar_type() == state.scalar_type() &&
         gradient.scalar_type() == state.scalar_type() && parameter.is_contiguous() &&
         gradient.is_contiguous() && state.is_contiguous();
}

ROOT_OPTIM_INLINE void fused_adamw(FusedAdamWCall& call, const AdamWSettings& settings,
                                   const DeviceRates* rates) {
#if ROOT_OPTIM_HAS_FUSED_ADAMW
  if (call.parameters.empty()) return;
  std::optional<at::Tensor> found_inf;
  if (call.skip.defined()) found_inf = call.skip;
  if (rates != nullptr) {
    const at::Tensor lr = rates->lr.to(at::kFloat);
    at::Tensor decay = rates->decay(call.parameters.front().scalar_type());
    if (call.skip.defined()) decay = at::where(call.skip.ne(0), at::ones_like(decay), decay);
    at::_foreach_mul_(call.parameters, decay);
    at::_fused_adamw_(call.parameters, call.gradients, call.exp_avgs, call.exp_avg_sqs,
                      /*max_exp_avg_sqs=*/{}, call.steps, lr, settings.beta1, settings.beta2,
                      /*weight_decay=*/0.0, settings.eps,
                      /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{}, found_inf);
    return;
  }
  at::_fused_adamw_(call.parameters, call.gradients, call.exp_avgs, call.exp_avg_sqs,
                    /*max_exp_avg_sqs=*/{}, call.steps, settings.lr, settings.beta1, settings.beta2,
                    settings.weight_decay, settings.eps,
                    /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{}, found_inf);
#else
  TORCH_INTERNAL_ASSERT(false, call.parameters.size(), settings.lr, rates != nullptr);
#endif
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
