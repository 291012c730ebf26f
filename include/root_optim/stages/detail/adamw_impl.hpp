// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of stages/adamw.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/pow.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <root_optim/core/finite.hpp>
#include <root_optim/stages/adamw.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

namespace detail {

/// What both forms of a step share: the new moments, the denominator √v'/√(1 − β₂ᵗ) + ε, and 1/(1 − β₁ᵗ).
struct AdamWTerms {
  AdamWResult result;
  at::Tensor denominator;
  at::Tensor correction;
};

ROOT_OPTIM_INLINE AdamWTerms adamw_terms(const at::Tensor& parameter, const at::Tensor& gradient,
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
  AdamWTerms terms;
  AdamWResult& result = terms.result;
  result.exp_avg = exp_avg.mul(beta1).add_(gradient, 1.0 - beta1);
  result.exp_avg_sq = exp_avg_sq.mul(beta2).addcmul_(gradient, gradient, 1.0 - beta2);
  terms.denominator = result.exp_avg_sq.sqrt().div_(correction2.sqrt_()).add_(eps);
  terms.correction = correction1.reciprocal();
  return terms;
}

}  // namespace detail

ROOT_OPTIM_INLINE AdamWResult adamw_step(const at::Tensor& parameter, const at::Tensor& gradient,
                                         const at::Tensor& exp_avg, const at::Tensor& exp_avg_sq,
                                         const at::Tensor& step, const AdamWSettings& settings) {
  detail::AdamWTerms terms =
      detail::adamw_terms(parameter, gradient, exp_avg, exp_avg_sq, step, settings);
  AdamWResult& result = terms.result;
  result.parameter =
      parameter.to(exp_avg.scalar_type())
          .mul(1.0 - settings.lr * settings.weight_decay)
          // Of two numbers (a 0-dimensional parameter) the product is float64, which LibTorch 1 does
          // not add to float32.
          .addcdiv_(
              result.exp_avg.mul(terms.correction.mul_(-settings.lr)).to(exp_avg.scalar_type()),
              terms.denominator);
  return result;
}

ROOT_OPTIM_INLINE AdamWResult adamw_step(const at::Tensor& parameter, const at::Tensor& gradient,
                                         const at::Tensor& exp_avg, const at::Tensor& exp_avg_sq,
                                         const at::Tensor& step, const AdamWSettings& settings,
                                         const DeviceRates& rates) {
  detail::check_rates(rates, parameter, "adamw_step");
  const at::ScalarType dtype = exp_avg.scalar_type();
  detail::AdamWTerms terms =
      detail::adamw_terms(parameter, gradient, exp_avg, exp_avg_sq, step, settings);
  AdamWResult& result = terms.result;
  result.parameter =
      parameter.to(dtype)
          .mul(rates.decay(dtype))
          .addcdiv_(result.exp_avg.mul(terms.correction.mul_(rates.lr.neg())).to(dtype),
                    terms.denominator);
  return result;
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
