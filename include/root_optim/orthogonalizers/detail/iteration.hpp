// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The Newton–Schulz iteration on a batch that newton_schulz.hpp has checked: normalization, the
// direct form and the Gram-space form. Which form runs where is decided in iteration_plan.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/div.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/scalar_tensor.h>
#include <c10/core/ScalarType.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include <root_optim/coefficients/normalization.hpp>
#include <root_optim/coefficients/quintic.hpp>  // Quintics
#include <root_optim/kernels/frobenius_norm.hpp>
#include <root_optim/kernels/max_abs.hpp>
#include <root_optim/kernels/product.hpp>
#include <root_optim/kernels/symmetric_product.hpp>
#include <root_optim/kernels/workspace.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// The floor that keeps a division by a norm of zero finite: the smallest normal number.
inline double smallest_normal(at::ScalarType dtype) {
  return dtype == at::kDouble ? (std::numeric_limits<double>::min)()
                              : static_cast<double>((std::numeric_limits<float>::min)());
}

/// x ÷ divisor.
inline at::Tensor divided(const at::Tensor& x, const at::Tensor& divisor, Scratch scratch) {
  if (scratch.overwrite) return x.div_(divisor);
  at::Tensor result = temporary_like(scratch.workspace, x);
  return at::div_out(result, x, divisor);
}

inline at::Tensor as_compute_dtype(const at::Tensor& x, at::ScalarType dtype,
                                   Workspace* workspace) {
  if (x.scalar_type() == dtype) return x;
  return temporary(workspace, x.sizes(), x.options().dtype(dtype)).copy_(x);
}

/// x [k, m, n] scaled by its largest |entry|, in `dtype`; zero stays zero. Cannot overflow or
/// underflow whatever the scale of x.
/// @param join if there is one, makes it the largest of matrices of which x is a part, in place
inline at::Tensor scale_by_max(const at::Tensor& x, at::ScalarType dtype, Scratch scratch = {},
                               const std::function<void(const at::Tensor&)>& join = {}) {
  const at::Tensor largest = max_abs(x);
  if (join) join(largest);
  largest.clamp_min_(smallest_normal(x.scalar_type()));
  return as_compute_dtype(divided(x, largest, scratch), dtype, scratch.workspace);
}

/// x [k, m, n] over max(‖x‖_F, eps) (FrobeniusFloor) or ‖x‖_F + eps (FrobeniusPlus), in `dtype`. The norm is accumulated
/// in float64: float32 squares overflow and underflow near 1e±20.
inline at::Tensor scale_by_frobenius(const at::Tensor& x, Normalization norm_kind, double eps,
                                     at::ScalarType dtype, Scratch scratch = {}) {
  at::Tensor norm = frobenius_norms(x);
  if (norm_kind == Normalization::FrobeniusFloor) {
    norm.clamp_min_(eps);
  } else {
    norm.add_(eps);
  }
  // With ε = 0 a zero matrix must still stay zero. By the root, twice: in float32 the norm itself may
  // overflow although no entry does.
  const at::Tensor root =
      norm.clamp_min_(smallest_normal(x.scalar_type())).sqrt_().to(x.scalar_type());
  return as_compute_dtype(divided(x, root, scratch).div_(root), dtype, scratch.workspace);
}

/// x [k, m, n] as an iteration starts from it, in `dtype`. With Schatten8 the iteration itself does the
/// rest (`scale_by_schatten8`).
inline at::Tensor scaled(const at::Tensor& x, Normalization norm, double eps, at::ScalarType dtype,
                         Scratch scratch = {}) {
  return norm == Normalization::Schatten8 ? scale_by_max(x, dtype, scratch)
                                          : scale_by_frobenius(x, norm, eps, dtype, scratch);
}

/// Divides x by its Schatten-8 norm, given A = XXᵀ and A² of x as it is, which are scaled along:
/// ‖A²‖_F = ‖X‖_S8⁴. Zero has norm zero and stays zero, whatever finite factor it gets.
inline void scale_by_schatten8(at::Tensor& x, at::Tensor& gram, at::Tensor& square) {
  const at::Tensor norm4 = frobenius_norms(square).clamp_min_(smallest_normal(at::kFloat));
  const at::ScalarType dtype = x.scalar_type();
  x.mul_(norm4.pow(-0.25).to(dtype));
  gram.mul_(norm4.pow(-0.5).to(dtype));
  square.mul_(norm4.reciprocal().to(dtype));
}

/// X ← aX + (bA + cA²)X with A = XXᵀ, once per triple; x [k, m, n], m <= n, is overwritten.
///
/// Buffers are taken once and exchanged. They have the strides of x, so that a tall matrix, which comes
/// as a transposed view, is never copied into another order.
inline at::Tensor iterate_direct(at::Tensor x, const Quintics& schedule, int64_t blocks,
                                 Normalization norm, Workspace* workspace = nullptr) {
  at::Tensor next = temporary_like(workspace, x);
  at::Tensor gram = temporary(workspace, {x.size(0), x.size(1), x.size(1)}, x.options());  // A
  at::Tensor factor = temporary_like(workspace, gram);  // bA + cA²
  for (size_t t = 0; t < schedule.size(); ++t) {
    const auto [a, b, c] = schedule[t];
    symmetric_product_out(gram, x, x, blocks);
    if (t == 0 && norm == Normalization::Schatten8) {
      symmetric_product_out(factor, gram, gram, blocks);
      scale_by_schatten8(x, gram, factor);
      factor.mul_(c).add_(gram, b);
    } else {
      symmetric_product_out(factor, gram, gram, blocks, gram, b, c);
    }
    if (takes_onednn(factor, x)) {
      at::mul_out(next, x, at::scalar_tensor(a, x.options()));
      product(next, factor, x, /*beta=*/1);
    } else {
      at::baddbmm_out(next, x, factor, x, /*beta=*/a, /*alpha=*/1);
    }
    std::swap(x, next);
  }
  return x;
}

/// out ← ab.
inline void multiply(at::Tensor& out, const at::Tensor& a, const at::Tensor& b) {
  if (takes_onednn(a, b)) {
    product(out, a, b);
  } else {
    at::bmm_out(out, a, b);
  }
}

/// The same in Gram space; x [k, m, n], m <= n, is overwritten.
///
/// Within a run R = XXᵀ is formed once. A step is P = aI + bR + cR², Q ← PQ, R ← PRP; the run ends
/// with X ← QX. All these matrices are polynomials in R, symmetric up to rounding. Only XXᵀ and R²
/// are computed by blocks: P is large (≈ a) where R is small, so the rounding errors of PR, PRP and
/// PQ are large on one side of the diagonal of R's eigenbasis and small on the other, and mirroring
/// spreads the large ones. Measured on condition 1e10, 512×1024, five steps: an error of 1.9e-3
/// becomes .26 if PQ is mirrored too.
inline at::Tensor iterate_gram(at::Tensor x, const Quintics& schedule,
                               const std::vector<int64_t>& runs, int64_t blocks, Normalization norm,
                               Workspace* workspace = nullptr) {
  at::Tensor next = temporary_like(workspace, x);
  at::Tensor gram = temporary(workspace, {x.size(0), x.size(1), x.size(1)}, x.options());  // R
  at::Tensor step = temporary_like(workspace, gram);                                       // P
  at::Tensor steps, scratch;                                                               // Q
  size_t t = 0;
  for (const int64_t length : runs) {
    symmetric_product_out(gram, x, x, blocks);
    for (int64_t i = 0; i < length; ++i, ++t) {
      const auto [a, b, c] = schedule[t];
      if (t == 0 && norm == Normalization::Schatten8) {
        symmetric_product_out(step, gram, gram, blocks);
        scale_by_schatten8(x, gram, step);
        step.mul_(c).add_(gram, b);
      } else {
        symmetric_product_out(step, gram, gram, blocks, gram, b, c);
      }
      step.diagonal(0, 1, 2).add_(a);
      if (!steps.defined()) {
        steps = temporary_like(workspace, gram);
        scratch = temporary_like(workspace, gram);
      }
      if (i + 1 < length) {
        multiply(scratch, step, gram);
        multiply(gram, scratch, step);
      }
      if (i == 0) {
        std::swap(steps, step);
      } else {
        multiply(scratch, step, steps);
        std::swap(steps, scratch);
      }
    }
    multiply(next, steps, x);
    std::swap(x, next);
  }
  return x;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
