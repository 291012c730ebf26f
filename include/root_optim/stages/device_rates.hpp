// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A learning rate and a weight decay in tensors: numbers of the host are constants of a captured CUDA graph,
// tensors are read whenever it is replayed.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// lr and λ on a device: one number each, float64, finite and >= 0, which nobody checks there.
struct DeviceRates {
  at::Tensor lr;            ///< as set, before any scale
  at::Tensor weight_decay;  ///< λ

  /// 1 − lr·λ, what weight decay multiplies a parameter by, in a dtype.
  at::Tensor decay(at::ScalarType dtype) const {
    return lr.mul(weight_decay).neg_().add_(1.0).to(dtype);
  }
};

namespace detail {

inline void check_rates(const DeviceRates& rates, const at::Tensor& parameter, const char* who) {
  for (const at::Tensor& rate : {rates.lr, rates.weight_decay}) {
    TORCH_CHECK(rate.defined() && rate.dim() == 0 && rate.scalar_type() == at::kDouble &&
                    rate.device() == parameter.device(),
                "root_optim::", who, ": expected rates of one float64 number each on ",
                parameter.device(), ", got others");
  }
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
