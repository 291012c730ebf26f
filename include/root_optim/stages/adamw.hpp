// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// AdamW, the rule for parameters that are not matrices. The rule for matrices is momentum.hpp,
// soft_threshold.hpp, newton_schulz.hpp, update.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/pow.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <root_optim/core/finite.hpp>
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
inline AdamWResult adamw_step(const at::Tensor& parameter, const at::Tensor& gradient,
                              const at::Tensor& exp_avg, const at::Tensor& exp_avg_sq,
                              const at::Tensor& step, const AdamWSettings& settings) {
  const auto [lr, beta1, beta2, eps, weight_decay] = settings;
  for (const at::Tensor& tensor : {parameter, exp_avg, exp_avg_sq}) {
    TORCH_CHECK(tensor.sizes() == gradient.sizes(),
                "root_optim::adamw_step: expected tensors of the gradient's shape ",
                gradient.sizes(), ", got ", tensor.sizes());
  }
  TORCH_CHECK(step.numel() == 1, "root_optim::adamw_step: expected one number as step, got shape ",
              step.sizes());
  TORCH_CHECK(beta1 >= 0 && beta1 < 1 && beta2 >= 0 && beta2 < 1,
              "root_optim::adamw_step: expected betas in [0, 1), got ", beta1, " and ", beta2);
  TORCH_CHECK(
      detail::is_finite(lr) && lr >= 0 && detail::is_finite(eps) && eps >= 0 &&
          detail::is_finite(weight_decay) && weight_decay >= 0,
      "root_optim::adamw_step: expected lr, eps and weight_decay to be finite and >= 0, got ", lr,
      ", ", eps, " and ", weight_decay);
  const at::Tensor t = step.to(at::kDouble);
  const at::Tensor correction1 = at::pow(beta1, t).neg_().add_(1.0);
  const at::Tensor correction2 = at::pow(beta2, t).neg_().add_(1.0);
  AdamWResult result;
  result.exp_avg = exp_avg.mul(beta1).add_(gradient, 1.0 - beta1);
  result.exp_avg_sq = exp_avg_sq.mul(beta2).addcmul_(gradient, gradient, 1.0 - beta2);
  const at::Tensor denominator = result.exp_avg_sq.sqrt().div_(correction2.sqrt_()).add_(eps);
  result.parameter =
      parameter.to(exp_avg.scalar_type())
          .mul(1.0 - lr * weight_decay)
          // Of two numbers (a 0-dimensional parameter) the product is float64, which LibTorch 1 does
          // not add to float32.
          .addcdiv_(
              result.exp_avg.mul(correction1.reciprocal_().mul_(-lr)).to(exp_avg.scalar_type()),
              denominator);
  return result;
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
