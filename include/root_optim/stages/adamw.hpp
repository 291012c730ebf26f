// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// AdamW, the rule for parameters that are not matrices. The rule for matrices is momentum.hpp,
// soft_threshold.hpp, newton_schulz.hpp, update.hpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <root_optim/stages/device_rates.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// Settings of an AdamW step.
struct AdamWSettings {
  double lr;  ///< finite, >= 0
  /// β₁, in [0, 1)
  double beta1, beta2;  ///< β₂, in [0, 1)
  double eps;           ///< ε, finite, >= 0
  double weight_decay;  ///< λ, finite, >= 0
};

/// The new moments and the new parameter value of one AdamW step.
struct AdamWResult {
  at::Tensor exp_avg;     ///< m'
  at::Tensor exp_avg_sq;  ///< v'
  at::Tensor parameter;   ///< p', in the moments' dtype
};

/// One AdamW step, into new tensors.
///
/// Math:    m' = β₁ m + (1 − β₁) g,  v' = β₂ v + (1 − β₂) g²
///          p' = (1 − lr·λ) p − lr/(1 − β₁ᵗ) · m' / (√v' / √(1 − β₂ᵗ) + ε)
/// Shapes:  all tensors of one shape; gradient, exp_avg, exp_avg_sq of one dtype (float32 or
///          float64), parameter of any floating dtype. Nothing is written.
/// Accuracy: the same operations in the same order as torch::optim::AdamW, except for the bias
///          corrections, which are computed on the device in float64. Half-precision parameters are
///          computed in float32 and rounded once. Where it can, the optimizer takes LibTorch's fused
///          kernel instead (stages/detail/fused_adamw.hpp), which differs by rounding.
/// Reference: Loshchilov & Hutter, arXiv 1711.05101; torch::optim::AdamW without amsgrad.
/// @param step t, counted from 1: one number on the parameter's device, since only the device knows how
/// many steps it has skipped (NonFinite::Skip). Below 1 the result is meaningless.
/// @throws c10::Error for tensors of different shapes, and for numbers out of their range.
AdamWResult adamw_step(const at::Tensor& parameter, const at::Tensor& gradient,
                       const at::Tensor& exp_avg, const at::Tensor& exp_avg_sq,
                       const at::Tensor& step, const AdamWSettings& settings);

/// The same with lr and λ on the device, in place of those of `settings`; equal up to rounding.
/// @throws c10::Error also for rates that are not one float64 number each on the parameter's device.
AdamWResult adamw_step(const at::Tensor& parameter, const at::Tensor& gradient,
                       const at::Tensor& exp_avg, const at::Tensor& exp_avg_sq,
                       const at::Tensor& step, const AdamWSettings& settings,
                       const DeviceRates& rates);

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/stages/detail/adamw_impl.hpp>
#endif
