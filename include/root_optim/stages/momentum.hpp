// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The momentum of a matrix parameter. By default the filter of the gradient comes before it; as ROOT was
// published, a filter of U comes after it (FilterPlace, options.hpp). Filters are in soft_threshold.hpp,
// what follows in newton_schulz.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/lerp.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstdint>
#include <vector>

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

/// A momentum that rises over the first steps: short memory while gradients still turn quickly.
///
/// Math:    μ_t = μ₀ + (μ − μ₀)·min(1, t/k)
/// Shapes:  taken: t of each of n parameters, [n], integers, the step that is about to be taken included
///          -> [n] in float64, on the same device. No host synchronization.
/// @param start μ₀, in [0, 1).
/// @param momentum μ, in [0, 1).
/// @param warmup k, > 0.
/// @throws c10::Error for numbers out of their range.
inline at::Tensor momentum_after(const at::Tensor& taken, double start, double momentum,
                                 int64_t warmup) {
  for (const double each : {start, momentum}) {
    TORCH_CHECK(each >= 0 && each < 1,
                "root_optim::momentum_after: expected momenta in [0, 1), got ", each);
  }
  TORCH_CHECK(warmup > 0, "root_optim::momentum_after: expected warmup > 0, got ", warmup);
  const at::Tensor share = taken.to(at::kDouble).div_(static_cast<double>(warmup)).clamp_max_(1.0);
  return share.mul_(momentum - start).add_(start);
}

namespace detail {

inline void check_momentum(const at::Tensor& buffer, const at::Tensor& gradient,
                           MomentumForm form) {
  TORCH_CHECK(buffer.sizes() == gradient.sizes() && buffer.scalar_type() == gradient.scalar_type(),
              "root_optim::accumulate_momentum: expected a gradient ", buffer.sizes(), " of dtype ",
              c10::toString(buffer.scalar_type()), ", as the buffer, got ", gradient.sizes(),
              " of dtype ", c10::toString(gradient.scalar_type()));
  check_enum("accumulate_momentum", "form", form, MomentumForm::Ema);
  check_no_autograd(buffer, "accumulate_momentum");
  check_no_autograd(gradient, "accumulate_momentum");
}

}  // namespace detail

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
  detail::check_momentum(buffer, gradient, form);
  TORCH_CHECK(momentum >= 0 && momentum < 1,
              "root_optim::accumulate_momentum: expected 0 <= momentum < 1, got ", momentum);
  const auto result = [&] { return detail::temporary_like(workspace, buffer); };
  at::Tensor next = result();
  if (form == MomentumForm::Sum) {
    at::add_out(next, gradient, buffer, momentum);
  } else {
    at::lerp_out(next, buffer, gradient, 1.0 - momentum);
  }
  if (!nesterov) return {next, next};
  at::Tensor update = result();
  if (form == MomentumForm::Sum) {
    at::add_out(update, gradient, next, momentum);
  } else {
    at::lerp_out(update, gradient, next, momentum);
  }
  return {next, update};
}

/// The same for stacked parameters, each with a μ of its own that only the device knows.
/// @param momentum μ of each, [k] for a buffer [k, …], any floating-point dtype, in [0, 1): not checked.
inline Momentum accumulate_momentum(const at::Tensor& buffer, const at::Tensor& gradient,
                                    const at::Tensor& momentum, MomentumForm form, bool nesterov,
                                    Workspace* workspace = nullptr) {
  detail::check_momentum(buffer, gradient, form);
  TORCH_CHECK(buffer.dim() > 0 && momentum.dim() == 1 && momentum.size(0) == buffer.size(0),
              "root_optim::accumulate_momentum: expected a momentum for each part of ",
              buffer.sizes(), ", got ", momentum.sizes());
  std::vector<int64_t> shape(static_cast<size_t>(buffer.dim()), 1);
  shape[0] = buffer.size(0);
  const at::Tensor mu = momentum.reshape(shape).to(buffer.scalar_type());
  const auto result = [&] { return detail::temporary_like(workspace, buffer); };
  at::Tensor next = result();
  if (form == MomentumForm::Sum) {
    at::addcmul_out(next, gradient, buffer, mu);
  } else {
    at::lerp_out(next, gradient, buffer, mu);
  }
  if (!nesterov) return {next, next};
  at::Tensor update = result();
  if (form == MomentumForm::Sum) {
    at::addcmul_out(update, gradient, next, mu);
  } else {
    at::lerp_out(update, gradient, next, mu);
  }
  return {next, update};
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
