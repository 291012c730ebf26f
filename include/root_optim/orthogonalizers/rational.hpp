// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The iteration by inverses: the polar factor of each matrix of a batch, by stages that are rational functions of
// the singular values. The stages are in coefficients/rational.hpp, the inverses in kernels/spd_inverse.hpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>

#include <root_optim/coefficients/rational.hpp>
#include <root_optim/core/scratch.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// Settings of `orthogonalize_rational` beside the stages.
struct RationalOptions {
  /// float32 or float64. Default: float64 for float64 input, else float32.
  std::optional<at::ScalarType> compute_dtype = std::nullopt;
  /// Multiply PX of the last stage in bfloat16 where that is harmless: see `allows_bfloat16_product`. Pays where the
  /// device multiplies bfloat16 in hardware. Default: false.
  bool bfloat16_product = false;
};

/// The factors, and which of them are none.
struct RationalOutput {
  at::Tensor x;  ///< the factors, as the input
  at::Tensor
      failed;  ///< which matrices have none, for want of a factorization: x is zero. bool [...]
};

/// Approximates the orthogonal polar factor UVᵀ of each matrix X = UΣVᵀ by stages with inverses.
///
/// Math:      X ← X / max |x|, X ← X / ‖X‖_S4 with ‖X‖_S4 = (Σσ⁴)^¼ = ‖XXᵀ‖_F^½ >= σ_max;  for each stage:
///            R = XXᵀ, P = a₀I + Σ_j a_j (R + c_jI)⁻¹, X ← PX, that is σ ← σ (a₀ + Σ_j a_j / (σ² + c_j)).
/// Shapes:    x: [..., m, n] -> the same; m > n is transposed internally, without a copy.
/// Dtype:     x: float64, float32, bfloat16 or float16, on any device; computed in options.compute_dtype, returned in
///            x's dtype. x is not modified unless `scratch` says so.
/// Guarantee: every singular value of the result lies in [0, max_output + rounding] of `validate_rational`, whatever
///            the spectrum. Those far below σ_max are lifted by at most the product of the gains.
/// Degenerate: zero gives zero; a rank-deficient matrix gives its partial isometry, approximately; empty gives empty.
///            Inf or NaN in a matrix gives NaN in that matrix alone and marks it as failed; a matrix whose
///            factorization fails all the same (none was met) gives zero and is marked.
/// Scale:     f(cX) = f(X) for entries from 1e-37 to 1e+37.
/// Complexity: a stage with r poles, m <= n: 4m²n + about r m³ FLOP, a quarter to three eighths less for XXᵀ
///            from m = 256 on.
/// Memory:    extra: two matrices m × n (one if x may be overwritten) and 3⅓ to 4 m × m for every matrix of the batch, whatever
///            the number of poles; some 12 MB more where oneDNN multiplies, whose results are new tensors; with
///            bfloat16_product half of each of X, PX and P. No host synchronization.
/// Determinism: repeatable for the same input, batch, device and number of threads.
/// Autograd:  not differentiable through its buffers: call it under at::NoGradGuard.
/// Reference: Nakatsukasa & Freund, SIAM Review 58 (2016).
/// @throws c10::Error for other dtypes, layouts or ranks, an x that autograd follows, stages that fail validation,
/// and float32 on CUDA while LibTorch's flags allow TF32.
RationalOutput orthogonalize_rational(const at::Tensor& x, const RationalStages& schedule,
                                      const RationalOptions& options = {}, Scratch scratch = {});

namespace detail {

/// How those who have other columns of the same matrices join in; without functions there are none.
struct OtherColumns {
  std::function<void(const at::Tensor&)> join_max;  ///< max |x| of each matrix, in place
  std::function<void(const at::Tensor&)>
      add_gram;  ///< XXᵀ of all columns from that of these, in place
};

/// The iteration on x [k, m, n] in float32 or float64: n is less than m only where others have columns, too.
/// @param schedule stages that have passed validation
/// @param failed bool [k], set where there is no factor
at::Tensor orthogonalize_wide(const at::Tensor& x, const RationalStages& schedule,
                              at::ScalarType dtype, bool in_bfloat16, const at::Tensor& failed,
                              Scratch scratch, const OtherColumns& others = {});

/// `orthogonalize_rational` without its checks: for stages that have passed validation.
RationalOutput orthogonalize_valid(const at::Tensor& x, const RationalStages& schedule,
                                   at::ScalarType dtype, bool in_bfloat16, Scratch scratch);

}  // namespace detail

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/orthogonalizers/detail/rational_impl.hpp>
#endif
