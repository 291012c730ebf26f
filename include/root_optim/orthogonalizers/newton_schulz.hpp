// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The Newton–Schulz iteration: `orthogonalize`, and NewtonSchulz, the policy that runs it with a named
// or given set of coefficients. The sets are in coefficients/published.hpp, the policy with coefficients
// by matrix shape in ada_newton.hpp, and the exact factor, by SVD, in exact_polar.hpp.
#pragma once

#include <ATen/Context.h>  // float32MatmulPrecision
#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>
#include <c10/core/impl/LocalDispatchKeySet.h>  // ExcludeDispatchKeyGuard
#include <c10/util/Exception.h>                 // TORCH_CHECK, TORCH_WARN_ONCE
#include <torch/version.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include <root_optim/coefficients/normalization.hpp>
#include <root_optim/coefficients/published.hpp>
#include <root_optim/coefficients/validation.hpp>
#include <root_optim/core/finite.hpp>
#include <root_optim/core/policy.hpp>  // Fields
#include <root_optim/core/tensor_checks.hpp>
#include <root_optim/orthogonalizers/detail/iteration.hpp>
#include <root_optim/orthogonalizers/iteration_plan.hpp>
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

/// The compute dtype of an input: float64 for float64, else bfloat16 on CUDA and float32 elsewhere.
inline at::ScalarType default_compute_dtype(const at::Tensor& x) {
  if (x.scalar_type() == at::kDouble) return at::kDouble;
  return x.is_cuda() ? at::kBFloat16 : at::kFloat;
}

namespace detail {

/// Whether LibTorch may compute float32 products on x's device in less: TF32 or bfloat16. Reads its
/// flags, changes none.
inline bool float32_is_reduced(const at::Tensor& x) {
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 9)
  const at::Float32Precision precision = at::globalContext().float32Precision(
      x.is_cuda() ? at::Float32Backend::CUDA : at::Float32Backend::MKLDNN, at::Float32Op::MATMUL);
  return precision == at::Float32Precision::TF32 || precision == at::Float32Precision::BF16;
#else
  static_cast<void>(x);
  return at::globalContext().float32MatmulPrecision() != at::Float32MatmulPrecision::HIGHEST;
#endif
}

/// The precision that products of `dtype` on x's device really have.
inline Precision precision_of(at::ScalarType dtype, const at::Tensor& x) {
  if (dtype == at::kDouble) return Precision::Float64;
  if (dtype == at::kBFloat16 || float32_is_reduced(x)) return Precision::BFloat16;
  return Precision::Float32;
}

/// Refuses coefficients that fail the check of coefficients/validation.hpp.
inline void require_valid(const Quintics& schedule, Precision precision, Normalization norm,
                          bool allow_unsafe) {
  const auto limits = ValidationOptions::for_precision(precision, norm);
  if (!allow_unsafe) {
    check_quintics(schedule, limits, "orthogonalize");
  } else if (!validate_quintics(schedule, limits).valid) {
    TORCH_WARN_ONCE(
        "root_optim::orthogonalize: running coefficients that fail validation, as allow_unsafe "
        "demands; some singular values may grow without bound");
  }
}

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
inline at::Tensor orthogonalize(const at::Tensor& x, const Quintics& schedule,
                                const OrthogonalizeOptions& options = {}, Scratch scratch = {}) {
  detail::check_matrices(x, "orthogonalize");
  detail::check_compute_dtype(options.compute_dtype, "orthogonalize");
  detail::check_no_autograd(x, "orthogonalize");
  TORCH_CHECK(!schedule.empty(), "root_optim::orthogonalize: expected at least one step, got none");
  detail::check_enum("orthogonalize", "normalization", options.normalization,
                     Normalization::Schatten8);
  detail::check_enum("orthogonalize", "form", options.form, Form::Gram);
  TORCH_CHECK(detail::is_finite(options.eps) && options.eps >= 0,
              "root_optim::orthogonalize: expected eps to be finite and >= 0, got ", options.eps);
  const at::ScalarType dtype = options.compute_dtype.value_or(default_compute_dtype(x));
  const Precision precision = detail::precision_of(dtype, x);
  detail::require_valid(schedule, precision, options.normalization, options.allow_unsafe);
  if (x.numel() == 0) return x.clone();
  // Autocast left on would change the dtype of some products and not of others.
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);

  const int64_t m = x.size(-2), n = x.size(-1);
  at::Tensor matrices = x.reshape({-1, m, n});
  if (m > n) matrices = matrices.transpose(1, 2);
  // Half-precision inputs are normalized in float32; only then may the compute dtype round.
  if (x.element_size() < 4) {
    matrices = matrices.to(at::kFloat);
    scratch.overwrite = true;  // a copy
  }
  matrices = detail::scaled(matrices, options.normalization, options.eps, dtype, scratch);
  const IterationPlan plan = plan_iteration(m, n, schedule, precision, options.form);
  at::Tensor result = plan.form == Form::Gram
                          ? detail::iterate_gram(matrices, schedule, plan.runs, plan.blocks,
                                                 options.normalization, scratch.workspace)
                          : detail::iterate_direct(matrices, schedule, plan.blocks,
                                                   options.normalization, scratch.workspace);
  if (m > n) result = result.transpose(1, 2);
  return result.to(x.scalar_type()).reshape(x.sizes());
}

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
  NewtonSchulz& coefficients(CoefficientSet set) {
    coefficients_ = std::move(set);
    return *this;
  }
  /// Number of steps, 1 to 64. Default: 5.
  NewtonSchulz& steps(int64_t steps) {
    steps_ = steps;
    return *this;
  }
  /// What X is divided by before the first step. Default: FrobeniusFloor.
  NewtonSchulz& normalization(Normalization normalization) {
    options_.normalization = normalization;
    return *this;
  }
  /// ε of the Frobenius kinds, finite and >= 0. Default: 1e-7.
  NewtonSchulz& eps(double eps) {
    options_.eps = eps;
    return *this;
  }
  /// float64, float32, bfloat16 or nullopt for `default_compute_dtype`. Default: nullopt.
  NewtonSchulz& compute_dtype(std::optional<at::ScalarType> dtype) {
    options_.compute_dtype = dtype;
    return *this;
  }
  /// How the polynomials are applied; see iteration_plan.hpp. Default: Direct, as published.
  NewtonSchulz& form(Form form) {
    options_.form = form;
    return *this;
  }
  /// See OrthogonalizeOptions::allow_unsafe. Default: false.
  NewtonSchulz& allow_unsafe(bool allow) {
    options_.allow_unsafe = allow;
    return *this;
  }

  const CoefficientSet& coefficients() const { return coefficients_; }
  int64_t steps() const { return steps_; }
  Normalization normalization() const { return options_.normalization; }
  double eps() const { return options_.eps; }
  std::optional<at::ScalarType> compute_dtype() const { return options_.compute_dtype; }
  Form form() const { return options_.form; }
  bool allow_unsafe() const { return options_.allow_unsafe; }

  /// @throws c10::Error if a setting is out of range. Coefficients are checked where they are used,
  /// since they may depend on the shape, and their margin on the dtype.
  void validate() const {
    TORCH_CHECK(steps_ >= 1 && steps_ <= 64,
                "root_optim::NewtonSchulz: expected 1 <= steps <= 64, got ", steps_);
    detail::check_enum("NewtonSchulz", "normalization", options_.normalization,
                       Normalization::Schatten8);
    detail::check_enum("NewtonSchulz", "form", options_.form, Form::Gram);
    TORCH_CHECK(detail::is_finite(options_.eps) && options_.eps >= 0,
                "root_optim::NewtonSchulz: expected eps to be finite and >= 0, got ", options_.eps);
    detail::check_compute_dtype(options_.compute_dtype, "NewtonSchulz");
  }
  void serialize(Fields& out) const {
    coefficients_.serialize(out);
    out.set("steps", steps_);
    out.set("normalization", static_cast<int64_t>(options_.normalization));
    out.set("eps", options_.eps);
    out.set("compute_dtype", detail::dtype_name(options_.compute_dtype));
    out.set("form", static_cast<int64_t>(options_.form));
    out.set("allow_unsafe", options_.allow_unsafe);
  }
  void deserialize(const Fields& in) {
    coefficients_.deserialize(in);
    steps_ = in.get<int64_t>("steps");
    options_.normalization = in.get_enum("normalization", Normalization::Schatten8);
    options_.eps = in.get<double>("eps");
    options_.compute_dtype = detail::dtype_from_name(in.get<std::string>("compute_dtype"));
    options_.form = in.get_enum("form", Form::Gram);
    options_.allow_unsafe = in.get<bool>("allow_unsafe");
  }

  /// @throws c10::Error if the coefficients for a rows × cols matrix fail validation in the compute
  /// dtype for this parameter.
  void validate_for(int64_t rows, int64_t cols, const at::Tensor& parameter) const {
    const at::ScalarType dtype = options_.compute_dtype.value_or(default_compute_dtype(parameter));
    detail::require_valid(coefficients_.quintics(rows, cols, steps_),
                          detail::precision_of(dtype, parameter), options_.normalization,
                          options_.allow_unsafe);
  }

  /// `orthogonalize` with this policy's coefficients for the shape of x, [k, m, n].
  at::Tensor operator()(const at::Tensor& x) const { return (*this)(x, Scratch()); }
  /// The same with what a step offers: see Scratch.
  at::Tensor operator()(const at::Tensor& x, Scratch scratch) const {
    validate();
    detail::check_matrices(x, "NewtonSchulz");
    return orthogonalize(x, coefficients_.quintics(x.size(-2), x.size(-1), steps_), options_,
                         scratch);
  }

 private:
  static OrthogonalizeOptions published_options() {
    OrthogonalizeOptions options;
    options.normalization = Normalization::FrobeniusFloor;
    options.form = Form::Direct;
    return options;
  }

  CoefficientSet coefficients_ = CoefficientSet::jordan();
  int64_t steps_ = 5;
  OrthogonalizeOptions options_ = published_options();
};

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
