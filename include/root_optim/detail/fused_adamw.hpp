// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// AdamW by LibTorch's fused kernel, where it has one: one pass over each parameter and its state in
// place of a dozen. The plain form, which defines what is computed, is in adamw.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>  // TORCH_INTERNAL_ASSERT
#include <torch/version.h>

#include <cstddef>
#include <optional>
#include <vector>

#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 4)
#define ROOT_OPTIM_HAS_FUSED_ADAMW 1
#include <ATen/ops/_fused_adamw.h>
#else
#define ROOT_OPTIM_HAS_FUSED_ADAMW 0
#endif

namespace root_optim {
inline namespace v0 {
namespace detail {

/// Tensors of parameters that one call of the kernel steps: equal in dtype and device.
struct AdamWLists {
  std::vector<at::Tensor> parameters, gradients, exp_avgs, exp_avg_sqs;
  std::vector<at::Tensor> steps;  ///< t of each, one float32
  std::vector<size_t> indices;    ///< of the parameters in their batch
};

/// Whether the kernel takes a parameter: it walks through memory, so everything must be contiguous,
/// and knows one dtype.
inline bool fused_adamw_takes(const at::Tensor& parameter, const at::Tensor& gradient,
                              const at::Tensor& state) {
  return ROOT_OPTIM_HAS_FUSED_ADAMW != 0 && (parameter.is_cpu() || parameter.is_cuda()) &&
         parameter.scalar_type() == state.scalar_type() &&
         gradient.scalar_type() == state.scalar_type() && parameter.is_contiguous() &&
         gradient.is_contiguous() && state.is_contiguous();
}

/// `adamw_step` on all of the lists, in place; nothing is written if `usable` (one bool) is false.
/// Allocates no tensor of a parameter's size. Differs from the plain form by rounding.
inline void fused_adamw(AdamWLists& lists, const at::Tensor& usable, double lr, double beta1,
                        double beta2, double eps, double weight_decay) {
#if ROOT_OPTIM_HAS_FUSED_ADAMW
  std::optional<at::Tensor> found_inf;
  if (usable.defined()) found_inf = usable.eq(false).to(at::kFloat);
  at::_fused_adamw_(lists.parameters, lists.gradients, lists.exp_avgs, lists.exp_avg_sqs,
                    /*max_exp_avg_sqs=*/{}, lists.steps, lr, beta1, beta2, weight_decay, eps,
                    /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{}, found_inf);
#else
  static_cast<void>(usable), static_cast<void>(lr), static_cast<void>(beta1);
  static_cast<void>(beta2), static_cast<void>(eps), static_cast<void>(weight_decay);
  TORCH_INTERNAL_ASSERT(lists.parameters.empty());
#endif
}

}  // namespace detail
}  // namespace v0
}  // namespace root_optim
