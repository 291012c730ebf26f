// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Momentum of a matrix parameter, the first stage of a step. Filter and orthogonalizer, which see
// the result, are in soft_threshold.hpp and newton_schulz.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>
#include <ATen/ops/lerp.h>

#include <root_optim/detail/workspace.hpp>

namespace root_optim {
inline namespace v0 {

/// How gradients are accumulated. From a zero start the two differ by the factor 1 − μ only, which
/// orthogonalization removes; the stored buffer and a fixed threshold differ.
enum class MomentumForm {
  Sum,  ///< M ← μ M + G          (ROOT, Keller Jordan's SGD form)
  Ema   ///< M ← μ M + (1 − μ) G  (torch.optim.Muon)
};

/// The new momentum buffer M and the matrix U that goes on to the filter.
struct Momentum {
  at::Tensor buffer;
  at::Tensor update;
};

/// Accumulates a gradient, into new tensors.
///
/// Math:    Sum: M' = μ M + G,          U = G + μ M'            with Nesterov, else U = M'
///          EMA: M' = M + (1 − μ)(G − M), U = G + μ (M' − G)    with Nesterov, else U = M'
/// Shapes:  buffer, gradient: equal shapes and dtypes, any device -> both results of that shape.
///          Neither argument is written; without Nesterov `update` is `buffer`.
/// Reference: ROOT, arXiv 2511.20626; torch.optim.Muon 2.9 for the EMA form.
/// @param momentum μ, in [0, 1).
inline Momentum accumulate_momentum(const at::Tensor& buffer, const at::Tensor& gradient,
                                    double momentum, MomentumForm form, bool nesterov) {
  if (form == MomentumForm::Sum) {
    at::Tensor next = detail::temporary_like(buffer);
    at::add_out(next, gradient, buffer, momentum);
    if (!nesterov) return {next, next};
    at::Tensor update = detail::temporary_like(buffer);
    at::add_out(update, gradient, next, momentum);
    return {next, update};
  }
  at::Tensor next = detail::temporary_like(buffer);
  at::lerp_out(next, buffer, gradient, 1.0 - momentum);
  if (!nesterov) return {next, next};
  at::Tensor update = detail::temporary_like(buffer);
  at::lerp_out(update, gradient, next, momentum);
  return {next, update};
}

}  // namespace v0
}  // namespace root_optim
