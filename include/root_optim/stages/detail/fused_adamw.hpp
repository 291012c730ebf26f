// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// AdamW by LibTorch's fused kernel, where it has one: one pass over each parameter and its state in
// place of a dozen. The plain form, which defines what is computed, is in adamw.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/version.h>

#include <vector>

#include <root_optim/stages/adamw.hpp>
#include <root_optim/version.hpp>

#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 4)
#define ROOT_OPTIM_HAS_FUSED_ADAMW 1
#else
#define ROOT_OPTIM_HAS_FUSED_ADAMW 0
#endif

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Whether the kernel takes a parameter: it walks through memory, so everything must be contiguous,
/// and knows one dtype.
bool fused_adamw_takes(const at::Tensor& parameter, const at::Tensor& gradient,
                       const at::Tensor& state);

/// What one call of the kernel takes: parameters of one dtype and device, and what belongs to each.
struct FusedAdamWCall {
  std::vector<at::Tensor> parameters, gradients, exp_avgs, exp_avg_sqs;
  std::vector<at::Tensor> steps;  ///< t of each, [] in float32
  at::Tensor skip;  ///< 1 in float32, on the device: write nothing; undefined or 0: go on
};

/// `adamw_step` on all parameters of a call, in place. Allocates no tensor of a parameter's size. Differs
/// from the plain form by rounding.
/// @param rates lr and λ on the device in place of those of `settings`, or null. The kernel takes λ from the host:
/// parameters are decayed before it.
void fused_adamw(FusedAdamWCall& call, const AdamWSettings& settings, const DeviceRates* rates);

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/stages/detail/fused_adamw_impl.hpp>
#endif
