// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The last stage of a step: how weight decay and the orthogonalized update reach the parameter.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mul.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <root_optim/stages/device_rates.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

namespace detail {

inline void check_update(const at::Tensor& value, const at::Tensor& parameter,
                         const at::Tensor& direction) {
  TORCH_CHECK(value.sizes() == direction.sizes() && value.sizes() == parameter.sizes(),
              "root_optim::update_parameter: expected a parameter and a direction ", value.sizes(),
              ", as the value, got ", parameter.sizes(), " and ", direction.sizes());
  TORCH_CHECK(value.scalar_type() == parameter.scalar_type(),
              "root_optim::update_parameter: expected a parameter of dtype ",
              c10::toString(value.scalar_type()), ", as the value, got ",
              c10::toString(parameter.scalar_type()));
}

}  // namespace detail

/// value ← (1 − lr·λ) p − lr·s·X: decoupled weight decay, by the learning rate as set (not scaled by
/// shape), and an orthogonalized update.
///
/// Shapes:  value, parameter, direction: equal, any strides; value is written, the others are not.
/// Dtype:   value and parameter: both float32 or both float64. So a half-precision parameter is rounded
///          only once, when the caller copies the value to it. direction: any floating-point dtype.
/// @param scale s, see `lr_scale`.
/// @throws c10::Error for other shapes and dtypes.
inline void update_parameter(const at::Tensor& value, const at::Tensor& parameter,
                             const at::Tensor& direction, double lr, double scale,
                             double weight_decay) {
  detail::check_update(value, parameter, direction);
  at::Tensor decayed = value;
  at::mul_out(decayed, parameter.detach(), at::full({}, 1.0 - lr * weight_decay, value.options()));
  decayed.add_(direction, -lr * scale);
}

/// The same with lr and λ on the device, equal up to rounding.
/// @throws c10::Error also for rates that are not one float64 number each on the parameter's device.
inline void update_parameter(const at::Tensor& value, const at::Tensor& parameter,
                             const at::Tensor& direction, const DeviceRates& rates, double scale) {
  detail::check_update(value, parameter, direction);
  detail::check_rates(rates, parameter, "update_parameter");
  at::Tensor decayed = value;
  at::mul_out(decayed, parameter.detach(), rates.decay(value.scalar_type()));
  decayed.addcmul_(direction.to(value.scalar_type()), rates.lr.mul(scale).to(value.scalar_type()),
                   -1);
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
