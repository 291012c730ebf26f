// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of orthogonalizers/newton_schulz.hpp.
#pragma once

#include <ATen/Context.h>  // float32MatmulPrecision
#include <ATen/core/Tensor.h>
#include <ATen/detail/CUDAHooksInterface.h>  // needs no CUDA headers
#include <c10/core/DeviceGuard.h>
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
#include <root_optim/core/fields.hpp>
#include <root_optim/core/finite.hpp>
#include <root_optim/core/tensor_checks.hpp>
#include <root_optim/orthogonalizers/detail/iteration.hpp>
#include <root_optim/orthogonalizers/iteration_plan.hpp>
#include <root_optim/orthogonalizers/newton_schulz.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

namespace detail {

ROOT_OPTIM_INLINE bool multiplies_bfloat16(const at::Tensor& x) {
  if (!x.is_cuda()) return false;
  const auto& hooks = at::detail::getCUDAHooks();
  if (!hooks.compiledWithCuDNN()) return true;  // it cannot tell: ROCm, or CUDA without cuDNN
  const c10::DeviceGuard guard(x.device());     // of which the answer is
  return hooks.supportsBFloat16ConvolutionWithCuDNNv8();
}

ROOT_OPTIM_INLINE bool float32_is_reduced(const at::Tensor& x) {
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 9)
  const at::Float32Precision precision = at::globalContext().float32Precision(
      x.is_cuda() ? at::Float32Backend::CUDA : at::Float32Backend::MKLDNN, at::Float32Op::MATMUL);
  return precision == at::Float32Precision::TF32 || precision == at::Float32Precision::BF16;
#else
  // Not only the user's setting: TORCH_ALLOW_TF32_CUBLAS_OVERRIDE in the environment counts, too.
  if (x.is_cuda()) return at::globalContext().allowTF32CuBLAS();
  return at::globalContext().float32MatmulPrecision() != at::Float32MatmulPrecision::HIGHEST;
#endif
}

ROOT_OPTIM_INLINE Precision precision_of(at::ScalarType dtype, const at::Tensor& x) {
  if (dtype == at::kDouble) return Precision::Float64;
  if (dtype == at::kBFloat16 || float32_is_reduced(x)) return Precision::BFloat16;
  return Precision::Float32;
}

ROOT_OPTIM_INLINE void require_valid(const Quintics& schedule, Precision precision,
                                     Normalization norm, bool allow_unsafe) {
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

ROOT_OPTIM_INLINE at::ScalarType default_compute_dtype(const at::Tensor& x) {
  if (x.scalar_type() == at::kDouble) return at::kDouble;
  return detail::multiplies_bfloat16(x) ? at::kBFloat16 : at::kFloat;
}

ROOT_OPTIM_INLINE at::Tensor orthogonalize(const at::Tensor& x, const Quintics& schedule,
                                           const OrthogonalizeOptions& options, Scratch scratch) {
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

ROOT_OPTIM_INLINE NewtonSchulz& NewtonSchulz::coefficients(CoefficientSet set) {
  coefficients_ = std::move(set);
  return *this;
}

ROOT_OPTIM_INLINE NewtonSchulz& NewtonSchulz::steps(int64_t steps) {
  steps_ = steps;
  return *this;
}

ROOT_OPTIM_INLINE NewtonSchulz& NewtonSchulz::normalization(Normalization normalization) {
  options_.normalization = normalization;
  return *this;
}

ROOT_OPTIM_INLINE NewtonSchulz& NewtonSchulz::eps(double eps) {
  options_.eps = eps;
  return *this;
}

ROOT_OPTIM_INLINE NewtonSchulz& NewtonSchulz::compute_dtype(std::optional<at::ScalarType> dtype) {
  options_.compute_dtype = dtype;
  return *this;
}

ROOT_OPTIM_INLINE NewtonSchulz& NewtonSchulz::form(Form form) {
  options_.form = form;
  return *this;
}

ROOT_OPTIM_INLINE NewtonSchulz& NewtonSchulz::allow_unsafe(bool allow) {
  options_.allow_unsafe = allow;
  return *this;
}

ROOT_OPTIM_INLINE void NewtonSchulz::validate() const {
  TORCH_CHECK(steps_ >= 1 && steps_ <= 64,
              "root_optim::NewtonSchulz: expected 1 <= steps <= 64, got ", steps_);
  detail::check_enum("NewtonSchulz", "normalization", options_.normalization,
                     Normalization::Schatten8);
  detail::check_enum("NewtonSchulz", "form", options_.form, Form::Gram);
  TORCH_CHECK(detail::is_finite(options_.eps) && options_.eps >= 0,
              "root_optim::NewtonSchulz: expected eps to be finite and >= 0, got ", options_.eps);
  detail::check_compute_dtype(options_.compute_dtype, "NewtonSchulz");
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void NewtonSchulz::serialize(Fields& out) const {
  coefficients_.serialize(out);
  out.set("steps", steps_);
  out.set("normalization", static_cast<int64_t>(options_.normalization));
  out.set("eps", options_.eps);
  out.set("compute_dtype", detail::dtype_name(options_.compute_dtype));
  out.set("form", static_cast<int64_t>(options_.form));
  out.set("allow_unsafe", options_.allow_unsafe);
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void NewtonSchulz::deserialize(const Fields& in) {
  coefficients_.deserialize(in);
  steps_ = in.get<int64_t>("steps");
  options_.normalization = in.get_enum("normalization", Normalization::Schatten8);
  options_.eps = in.get<double>("eps");
  options_.compute_dtype = detail::dtype_from_name(in.get<std::string>("compute_dtype"));
  options_.form = in.get_enum("form", Form::Gram);
  options_.allow_unsafe = in.get<bool>("allow_unsafe");
}

ROOT_OPTIM_INLINE void NewtonSchulz::validate_for(int64_t rows, int64_t cols,
                                                  const at::Tensor& parameter) const {
  const at::ScalarType dtype = options_.compute_dtype.value_or(default_compute_dtype(parameter));
  detail::require_valid(coefficients_.quintics(rows, cols, steps_),
                        detail::precision_of(dtype, parameter), options_.normalization,
                        options_.allow_unsafe);
}

ROOT_OPTIM_INLINE at::Tensor NewtonSchulz::operator()(const at::Tensor& x, Scratch scratch) const {
  validate();
  detail::check_matrices(x, "NewtonSchulz");
  return orthogonalize(x, coefficients_.quintics(x.size(-2), x.size(-1), steps_), options_,
                       scratch);
}

ROOT_OPTIM_INLINE OrthogonalizeOptions NewtonSchulz::published_options() {
  OrthogonalizeOptions options;
  options.normalization = Normalization::FrobeniusFloor;
  options.form = Form::Direct;
  return options;
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
