// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// How much a rank's gradients count in the mean, by their norm beside that of the other ranks.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <c10/core/Device.h>

#include <vector>

#include <root_optim/distributed/detail/collectives.hpp>
#include <root_optim/distributed/detail/gradient_agreement.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// The norm of all gradients together, one float64 number on the device of the first parameter; 0 without any.
inline at::Tensor norm_of_gradients(const std::vector<at::Tensor>& parameters) {
  const at::Device device = parameters.front().device();
  std::vector<at::Tensor> gradients{at::zeros({}, at::TensorOptions(device).dtype(at::kDouble))};
  for (const at::Tensor& parameter : parameters) {
    if (parameter.grad().defined()) gradients.push_back(parameter.grad());
  }
  return norm_together(gradients, device);
}

/// w_r = min(1, limit · median_q n_q / n_r) with n_r = `norms[r]`, the lower median; 1 where that is 0, and for a
/// norm that is NaN.
inline at::Tensor rank_weights(const at::Tensor& norms, double limit) {
  const at::Tensor most = norms.median() * limit;
  return at::where((norms > most).logical_and(most > 0), most / norms, at::ones_like(norms));
}

/// What this rank's gradients, of the norm `own`, are to be multiplied by. Collective; no host synchronization with
/// the device.
inline at::Tensor rank_weight(Collectives& ranks, const at::Tensor& own, double limit) {
  return rank_weights(at::stack(ranks.gathered(own)), limit)[ranks.rank()];
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
