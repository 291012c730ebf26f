// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The Newton–Schulz iteration: `orthogonalize`, and NewtonSchulz, the policy that runs it with a named
// or given set of coefficients. The sets are in coefficients/published.hpp, the policy with coefficients
// by matrix shape in ada_newton.hpp, and the exact factor, by SVD, in exact_polar.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <optional>

#include <root_optim/coefficients/form.hpp>
#include <root_optim/coefficients/normalization.hpp>
#include <root_optim/coefficients/precision.hpp>
#include <root_optim/coefficients/published.hpp>
#include <root_optim/coefficients/quintic.hpp>
#include <root_optim/core/fields.hpp>
#include <root_optim/core/scratch.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// Settings of `orthogonalize` beside the coefficients.
struct OrthogonalizeOptions {
  /// What X is divided by before the first step. Default: Schatten8.
  Normalization normalization = Normalization::Schatten8;
  /// ε of the Frobenius kinds, absolute, as published. Range: finite, >= 0.
  double eps = 1e-7;
  /// Dtype of the products: float64, float32 or bfloat16. Default: `default_compute_dtype`.
  /// bfloat16 on the CPU needs LibTorch 2: older versions accumulate batched products in bfloat16 there,
  /// and the output bound does not hold.
  std::optional<at::ScalarType> compute_dtype = std::nullopt;
  /// How the polynomials are applied; see iteration_plan.hpp. Default: Auto.
  Form form = Form::Auto;
  /// Runs coefficients that fail validation, with one warning per process. It is for reproducing
  /// published sets only: the output is unbounded. Default: false.
  bool allow_unsafe = false;
};

/// The compute dtype of an input: float64 for float64, else bfloat16 on CUDA devices that multiply it in
/// hardware (compute capability 8.0, Ampere, and newer, by what LibTorch says; on all without cuDNN, which
/// cannot tell), and float32 elsewhere.
at::ScalarType default_compute_dtype(const at::Tensor& x);

namespace detail {

/// Whether x is on a CUDA device with bfloat16 products in hardware. Older devices emulate them, more slowly than
/// float32, or have none.
bool multiplies_bfloat16(const at::Tensor& x);

/// Whether LibTorch may compute float32 products on x's device in less: TF32 or bfloat16. Reads its
/// flags, changes none.
bool float32_is_reduced(const at::Tensor& x);

/// The precision that products of `dtype` on x's device really have.
Precision precision_of(at::ScalarType dtype, const at::Tensor& x);

/// Refuses coefficients that fail the check of coefficients/validation.hpp.
void require_valid(const Quintics& schedule, Precision precision, Normalization norm,
                   bool allow_unsafe);

}  // namespace detail

/// Approximates the orthogonal polar factor UVᵀ of each matrix X = UΣVᵀ by Newton–Schulz iteration.
///
/// Math:      X ← X / ‖X‖;  for each triple (a, b, c) of the schedule:
///            A = XXᵀ,  X ← aX + (bA + cA²)X, that is σ ← aσ + bσ³ + cσ⁵ on every singular value.
/// Shapes:    x: [..., m, n] -> the same shape; m > n is transposed internally, without a copy.
/// Dtype:     x: float64, float32, bfloat16 or float16, on any device; computed in
///            options.compute_dtype, returned in x's dtype. x is not modified, unless `scratch` allows it.
/// Guarantee: with coefficients that pass validation every singular value of the result lies
///            in [0, output bound]; it is not exactly UVᵀ. Singular values far below
///            σ_max are lifted by at most the product of the a's.
/// Degenerate: zero gives zero; a rank-deficient matrix gives its partial isometry, approximately;
///            empty gives empty; Inf or NaN in a matrix gives NaN in that matrix alone.
/// Scale:     with Schatten8, f(cX) = f(X) for entries from 1e-37 to 1e+37; the Frobenius kinds
///            keep their published absolute ε.
/// Complexity: see `plan_iteration`; direct below 512: steps × (4m²n + 2m³) FLOP for m <= n. Extra
///            memory: two matrices m×n (one if x may be overwritten) and two to four m×m in the compute
///            dtype. Off the CPU, and for strides that are neither contiguous nor transposed, the norm
///            takes a float64 copy of X (Frobenius) or A² (Schatten8). No host synchronization.
/// Determinism: repeatable for the same input, batch, device and number of threads.
/// Autograd:  not differentiable through its buffers: call it under at::NoGradGuard.
/// Reference: Björck & Bowie 1971; K. Jordan, Muon, 2024; ROOT, arXiv 2511.20626.
/// @param schedule one triple per step, at least one.
/// @throws c10::Error for other dtypes, layouts or ranks, an x that autograd follows, settings out of
/// range, and coefficients that fail validation.
at::Tensor orthogonalize(const at::Tensor& x, const Quintics& schedule,
                         const OrthogonalizeOptions& options = {}, Scratch scratch = {});

/// Policy: Newton–Schulz with a published set of coefficients or one's own. `root_paper` alone depends
/// on the matrix shape.
///
/// The defaults are torch.optim.Muon's: jordan, five steps, FrobeniusFloor with ε = 1e-7. The compute
/// dtype is `default_compute_dtype`, whereas torch.optim.Muon always takes bfloat16.
///
/// Example: see tests/unit/orthogonalizers/test_newton_schulz.cpp
class NewtonSchulz {
 public:
  static constexpr const char* name = "newton_schulz";  ///< stable: checkpoints record it

  /// The coefficient set. Default: CoefficientSet::jordan().
  NewtonSchulz& coefficients(CoefficientSet set);
  /// Number of steps, 1 to 64. Default: 5.
  NewtonSchulz& steps(int64_t steps);
  /// What X is divided by before the first step. Default: FrobeniusFloor.
  NewtonSchulz& normalization(Normalization normalization);
  /// ε of the Frobenius kinds, finite and >= 0. Default: 1e-7.
  NewtonSchulz& eps(double eps);
  /// float64, float32, bfloat16 or nullopt for `default_compute_dtype`. Default: nullopt.
  NewtonSchulz& compute_dtype(std::optional<at::ScalarType> dtype);
  /// How the polynomials are applied; see iteration_plan.hpp. Default: Direct, as published.
  NewtonSchulz& form(Form form);
  /// See OrthogonalizeOptions::allow_unsafe. Default: false.
  NewtonSchulz& allow_unsafe(bool allow);

  const CoefficientSet& coefficients() const { return coefficients_; }
  int64_t steps() const { return steps_; }
  Normalization normalization() const { return options_.normalization; }
  double eps() const { return options_.eps; }
  std::optional<at::ScalarType> compute_dtype() const { return options_.compute_dtype; }
  Form form() const { return options_.form; }
  bool allow_unsafe() const { return options_.allow_unsafe; }

  /// @throws c10::Error if a setting is out of range. Coefficients are checked where they are used,
  /// since they may depend on the shape, and their margin on the dtype.
  void validate() const;
  void serialize(Fields& out) const;
  void deserialize(const Fields& in);

  /// @throws c10::Error if the coefficients for a rows × cols matrix fail validation in the compute
  /// dtype for this parameter.
  void validate_for(int64_t rows, int64_t cols, const at::Tensor& parameter) const;

  /// `orthogonalize` with this policy's coefficients for the shape of x, [k, m, n].
  at::Tensor operator()(const at::Tensor& x) const { return (*this)(x, Scratch()); }
  /// The same with what a step offers: see Scratch.
  at::Tensor operator()(const at::Tensor& x, Scratch scratch) const;

 private:
  static OrthogonalizeOptions published_options();

  CoefficientSet coefficients_ = CoefficientSet::jordan();
  int64_t steps_ = 5;
  OrthogonalizeOptions options_ = published_options();
};

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/orthogonalizers/detail/newton_schulz_impl.hpp>
#endif
