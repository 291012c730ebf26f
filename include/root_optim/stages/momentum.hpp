// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The momentum of a matrix parameter. By default the filter of the gradient comes before it; as ROOT was
// published, a filter of U comes after it (FilterPlace, options.hpp). Filters are in soft_threshold.hpp,
// what follows in newton_schulz.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>
#include <ATen/ops/lerp.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <root_optim/core/tensor_checks.hpp>
#include <root_optim/kernels/workspace.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// How the momentum accumulates gradients. From a zero start the two forms differ only by the factor
/// 1 − μ, which orthogonalization removes. The stored buffer differs by it, and what a fixed threshold
/// clips of it.
enum class MomentumForm {
  Sum,  ///< M ← μ M + G          (ROOT, Keller Jordan's SGD form)
  Ema   ///< M ← μ M + (1 − μ) G  (torch.optim.Muon)
};

/// "sum" or "ema".
inline const char* to_string(MomentumForm form) {
  return form == MomentumForm::Sum ? "sum" : "ema";
}

/// The new momentum buffer M and the matrix U of the update.
struct Momentum {
  at::Tensor buffer;  ///< M'
  at::Tensor update;  ///< U
};

/// Accumulates a gradient G, or the body B of one, into new tensors.
///
/// Math:    Sum: M' = μ M + G,          U = G + μ M'            with Nesterov, else U = M'
///          EMA: M' = M + (1 − μ)(G − M), U = G + μ (M' − G)    with Nesterov, else U = M'
/// Shapes:  buffer, gradient: equal shapes, floating-point dtypes and devices -> both results of that
///          shape. Neither argument is written; without Nesterov `update` and `buffer` are one tensor.
/// Reference: ROOT, arXiv 2511.20626; torch.optim.Muon 2.9 for the EMA form.
/// @param momentum μ, in [0, 1).
/// @param workspace memory for the results on the CPU; null: LibTorch's allocator.
/// @throws c10::Error for other arguments, and for one that autograd follows.
inline Momentum accumulate_momentum(const at::Tensor& buffer, const at::Tensor& gradient,
                                    double momentum, MomentumForm form, bool nesterov,
                                    Workspace* workspace = nullptr) {
  TORCH_CHECK(buffer.sizes() == gradient.sizes() && buffer.scalar_type() == gradient.scalar_type(),
              "root_optim::accumulate_momentum: expected a gradient ", buffer.sizes(), " of dtype ",
              c10::toString(buffer.scalar_type()), ", as the buffer, got ", gradient.sizes(),
              " of dtype ", c10::toString(gradient.scalar_type()));
  TORCH_CHECK(momentum >= 0 && momentum < 1,
              "root_optim::accumulate_momentum: expected 0 <= momentum < 1, got ", momentum);
  detail::check_enum("accumulate_momentum", "form", form, MomentumForm::Ema);
  detail::check_no_autograd(buffer, "accumulate_momentum");
  detail::check_no_autograd(gradient, "accumulate_momentum");
  if (form == MomentumForm::Sum) {
    at::Tensor next = detail::temporary_like(workspace, buffer);
    at::add_out(next, gradient, buffer, momentum);
    if (!nesterov) return {next, next};
    at::Tensor update = detail::temporary_like(workspace, buffer);
    at::add_out(update, gradient, next, momentum);
    return {next, update};
  }
  at::Tensor next = detail::temporary_like(workspace, buffer);
  at::lerp_out(next, buffer, gradient, 1.0 - momentum);
  if (!nesterov) return {next, next};
  at::Tensor update = detail::temporary_like(workspace, buffer);
  at::lerp_out(update, gradient, next, momentum);
  return {next, update};
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
