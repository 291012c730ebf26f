// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of orthogonalizers/rational.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/zeros.h>
#include <c10/core/impl/LocalDispatchKeySet.h>  // ExcludeDispatchKeyGuard
#include <c10/util/Exception.h>                 // TORCH_CHECK

#include <cstddef>
#include <utility>

#include <root_optim/coefficients/rational.hpp>
#include <root_optim/coefficients/rational_validation.hpp>
#include <root_optim/core/tensor_checks.hpp>
#include <root_optim/kernels/frobenius_norm.hpp>
#include <root_optim/kernels/product.hpp>
#include <root_optim/kernels/spd_inverse.hpp>
#include <root_optim/kernels/symmetric_product.hpp>
#include <root_optim/kernels/workspace.hpp>
#include <root_optim/orthogonalizers/detail/iteration.hpp>  // scale_by_max
#include <root_optim/orthogonalizers/newton_schulz.hpp>     // float32_is_reduced
#include <root_optim/orthogonalizers/rational.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// P ← a₀I + Σ_j a_j (R + c_jI)⁻¹, poles one after another, so that it takes one m × m matrix more.
inline void rational_factor(const at::Tensor& p, const at::Tensor& r, const RationalStage& stage,
                            const at::Tensor& failed, Workspace* workspace) {
  p.zero_();
  p.diagonal(0, 1, 2).fill_(stage.constant);
  for (size_t j = 0; j < stage.poles.size(); ++j) {
    const bool refine = p.scalar_type() == at::kDouble || stage.poles[j] < 1e-5;
    add_spd_inverse(p, r, stage.poles[j], stage.weights[j], refine, failed, workspace);
  }
  mirror_upper(p);
  p.masked_fill_(failed.view({-1, 1, 1}), 0);
}

/// next ← PX in bfloat16.
inline void bfloat16_product(at::Tensor& next, const at::Tensor& p, const at::Tensor& x,
                             Workspace* workspace) {
  const at::Tensor right = x.to(at::kBFloat16);
  at::Tensor low = temporary_like(workspace, right);
  at::bmm_out(low, p.to(at::kBFloat16), right);
  next.copy_(low);
}

/// The stages on x [k, m, n], |entries| <= 1, which is overwritten; see orthogonalize_wide.
///
/// Buffers are taken once and exchanged; they have the strides of x, so that a tall matrix, which comes as a
/// transposed view, is never copied into another order.
inline at::Tensor iterate_rational(at::Tensor x, const RationalStages& schedule, bool in_bfloat16,
                                   const at::Tensor& failed, Workspace* workspace,
                                   const OtherColumns& others) {
  at::Tensor next = temporary_like(workspace, x);
  const at::Tensor r = temporary(workspace, {x.size(0), x.size(1), x.size(1)}, x.options());
  const at::Tensor p = temporary_like(workspace, r);
  for (size_t t = 0; t < schedule.size(); ++t) {
    set_symmetric(r, x, workspace);
    if (others.add_gram) others.add_gram(r);
    if (t == 0) {
      // ‖R‖_F^½ = ‖X‖_S4; X itself is scaled by its factor P.
      mirror_upper(r);
      const at::Tensor norm2 = frobenius_norms(r).clamp_min_(smallest_normal(at::kFloat));
      r.div_(norm2.to(r.scalar_type()));
      rational_factor(p, r, schedule[t], failed, workspace);
      p.mul_(norm2.pow(-0.5).to(p.scalar_type()));
    } else {
      rational_factor(p, r, schedule[t], failed, workspace);
    }
    if (in_bfloat16 && t + 1 == schedule.size()) {
      bfloat16_product(next, p, x, workspace);
    } else {
      product(next, p, x, 0, 1, workspace);
    }
    std::swap(x, next);
  }
  return x;
}

ROOT_OPTIM_INLINE at::Tensor orthogonalize_wide(const at::Tensor& x, const RationalStages& schedule,
                                                at::ScalarType dtype, bool in_bfloat16,
                                                const at::Tensor& failed, Scratch scratch,
                                                const OtherColumns& others) {
  return iterate_rational(scale_by_max(x, dtype, scratch, others.join_max), schedule, in_bfloat16,
                          failed, scratch.workspace, others);
}

ROOT_OPTIM_INLINE RationalOutput orthogonalize_valid(const at::Tensor& x,
                                                     const RationalStages& schedule,
                                                     at::ScalarType dtype, bool in_bfloat16,
                                                     Scratch scratch) {
  const int64_t m = x.size(-2), n = x.size(-1);
  if (x.numel() == 0) {
    const auto sizes = x.sizes();
    return {x.clone(), at::zeros(sizes.slice(0, sizes.size() - 2), x.options().dtype(at::kBool))};
  }
  // Autocast left on would change the dtype of some products and not of others.
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const bool tall = m > n;
  const at::Tensor matrices = x.reshape({-1, m, n});
  const at::Tensor failed = at::zeros({matrices.size(0)}, x.options().dtype(at::kBool));
  at::Tensor wide = tall ? matrices.transpose(1, 2) : matrices;
  if (wide.element_size() < 4) {  // half precision is normalized in float32
    wide = wide.to(at::kFloat);
    scratch.overwrite = true;  // a copy
  }
  at::Tensor result = orthogonalize_wide(wide, schedule, dtype, in_bfloat16, failed, scratch);
  if (tall) result = result.transpose(1, 2);
  const auto sizes = x.sizes();
  return {result.to(x.scalar_type()).reshape(sizes), failed.view(sizes.slice(0, sizes.size() - 2))};
}

}  // namespace detail

ROOT_OPTIM_INLINE RationalOutput orthogonalize_rational(const at::Tensor& x,
                                                        const RationalStages& schedule,
                                                        const RationalOptions& options,
                                                        Scratch scratch) {
  constexpr const char* who = "orthogonalize_rational";
  detail::check_matrices(x, who);
  detail::check_no_autograd(x, who);
  const at::ScalarType dtype =
      options.compute_dtype.value_or(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  TORCH_CHECK(dtype == at::kFloat || dtype == at::kDouble, "root_optim::", who,
              ": expected compute_dtype to be float32 or float64, got ", c10::toString(dtype));
  // A Gram matrix that is rounded to ten bits has eigenvalues below −c.
  TORCH_CHECK(
      dtype == at::kDouble || !x.is_cuda() || !detail::float32_is_reduced(x), "root_optim::", who,
      ": expected float32 products of full precision, got TF32, which LibTorch's flags allow: "
      "forbid it (float32_matmul_precision 'highest') or set compute_dtype to float64");
  const auto limits = RationalValidationOptions::for_precision(
      dtype == at::kDouble ? Precision::Float64 : Precision::Float32);
  const RationalReport report = validate_rational(schedule, limits);
  if (!report.valid) check_rational(schedule, limits, who);
  const bool in_bfloat16 =
      options.bfloat16_product && allows_bfloat16_product(report, limits.output_bound);
  return detail::orthogonalize_valid(x, schedule, dtype, in_bfloat16, scratch);
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
