// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of parameters/detail/parameter_checks.hpp.
#pragma once

#include <ATen/MemoryOverlap.h>  // has_internal_overlap
#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>  // isComplexType
#include <c10/util/Exception.h>   // TORCH_CHECK

#include <cstddef>
#include <string>
#include <vector>

#include <root_optim/core/finite.hpp>
#include <root_optim/kernels/max_abs.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/parameters/layout.hpp>
#include <root_optim/parameters/rule.hpp>
#include <root_optim/parameters/suitability.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

ROOT_OPTIM_INLINE std::string describe(const at::Tensor& parameter, size_t group, size_t index,
                                       const std::vector<std::string>& names) {
  std::string text = "parameter ";
  if (index < names.size()) text += "'" + names[index] + "' ";
  text += "(group " + std::to_string(group) + ", index " + std::to_string(index);
  if (parameter.defined()) text += c10::str(", shape ", parameter.sizes());
  return text + ")";
}

ROOT_OPTIM_INLINE at::ScalarType state_dtype(const at::Tensor& parameter) {
  return parameter.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

ROOT_OPTIM_INLINE bool is_supported(at::ScalarType dtype) {
  return dtype == at::kDouble || dtype == at::kFloat || dtype == at::kBFloat16 ||
         dtype == at::kHalf;
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE std::string complex_advice(at::ScalarType dtype) {
  return c10::isComplexType(dtype)
             ? "; keep the real view as the parameter, torch::view_as_real(z).detach().clone() of "
               "shape [..., 2], under Rule::AdamW, and use torch::view_as_complex(parameter) in "
               "the "
               "forward pass"
             : "";
}

ROOT_OPTIM_INLINE void check_parameter(const at::Tensor& parameter, const std::string& where) {
  TORCH_CHECK(parameter.defined(),
              "root_optim::OrthogonalizedOptimizer: expected a defined tensor, got none at ",
              where);
  TORCH_CHECK(parameter.is_leaf(),
              "root_optim::OrthogonalizedOptimizer: expected a leaf tensor, got ", where,
              ", the result of an operation");
  TORCH_CHECK(parameter.layout() == c10::kStrided,
              "root_optim::OrthogonalizedOptimizer: expected a strided tensor, got ", where,
              " of layout ", parameter.layout());
  TORCH_CHECK(is_supported(parameter.scalar_type()),
              "root_optim::OrthogonalizedOptimizer: expected a real floating-point tensor "
              "(float64, float32, "
              "bfloat16, float16), got ",
              where, " of dtype ", c10::toString(parameter.scalar_type()),
              complex_advice(parameter.scalar_type()));
  TORCH_CHECK(
      !parameter.is_inference(),
      "root_optim::OrthogonalizedOptimizer: expected a tensor made outside of inference mode, got ",
      where);
  TORCH_CHECK(!parameter.is_neg() && !parameter._is_zerotensor(),
              "root_optim::OrthogonalizedOptimizer: expected a tensor whose elements are in its "
              "memory, got ",
              where, ", a lazily negated or zero one");
  TORCH_CHECK(at::has_internal_overlap(parameter) != at::MemOverlap::Yes,
              "root_optim::OrthogonalizedOptimizer: expected a tensor whose elements have memory "
              "of their own, got ",
              where, ", an expanded tensor");
}

ROOT_OPTIM_INLINE void check_gradient(const at::Tensor& parameter, const at::Tensor& gradient,
                                      const std::string& where) {
  TORCH_CHECK(
      gradient.layout() == c10::kStrided,
      "root_optim::OrthogonalizedOptimizer: expected a strided gradient, got layout ",
      gradient.layout(), " for ", where,
      gradient.layout() == c10::kSparse
          ? "; make the embedding with sparse(false), or put parameter.grad().to_dense() in "
            "its place before the step"
          : "");
  TORCH_CHECK(
      gradient.sizes() == parameter.sizes(),
      "root_optim::OrthogonalizedOptimizer: expected a gradient of the parameter's shape, got ",
      gradient.sizes(), " for ", where);
  TORCH_CHECK(
      is_supported(gradient.scalar_type()),
      "root_optim::OrthogonalizedOptimizer: expected a real floating-point gradient, got dtype ",
      c10::toString(gradient.scalar_type()), " for ", where);
  TORCH_CHECK(!gradient.is_neg() && !gradient._is_zerotensor(),
              "root_optim::OrthogonalizedOptimizer: expected a gradient whose elements are in its "
              "memory, got a "
              "lazily negated or zero one for ",
              where);
  TORCH_CHECK(gradient.device() == parameter.device(),
              "root_optim::OrthogonalizedOptimizer: expected a gradient on ", parameter.device(),
              ", got ", gradient.device(), " for ", where);
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE at::Tensor converted_state(const at::Tensor& tensor,
                                                             const at::Tensor& parameter,
                                                             const std::string& where) {
  TORCH_CHECK(
      is_supported(tensor.scalar_type()),
      "root_optim::OrthogonalizedOptimizer: expected state of a real floating-point dtype, got ",
      c10::toString(tensor.scalar_type()), " for ", where);
  const at::ScalarType dtype = state_dtype(parameter);
  if (dtype == at::kFloat && tensor.scalar_type() == at::kDouble && tensor.numel() > 0) {
    const double largest = max_abs(tensor.reshape({1, -1})).item<double>();
    TORCH_CHECK(!is_finite(largest) || fits_float32(largest),
                "root_optim::OrthogonalizedOptimizer: expected state that float32 can hold, got ",
                largest, " for ", where);
  }
  return tensor.to(parameter.device(), dtype, /*non_blocking=*/false, /*copy=*/true);
}

ROOT_OPTIM_INLINE Rule resolve_rule(Rule rule, const MatrixLayout& layout,
                                    const at::Tensor& parameter, const std::string& where) {
  const bool is_plain = layout == MatrixLayout();
  if (rule == Rule::AdamW) {
    TORCH_CHECK(is_plain,
                "root_optim::OrthogonalizedOptimizer: expected no layout under Rule::AdamW, got '",
                to_string(layout), "' for ", where);
    return rule;
  }
  if (rule == Rule::Auto && parameter.dim() < 2) return Rule::AdamW;
  TORCH_CHECK(
      parameter.dim() >= 2,
      "root_optim::OrthogonalizedOptimizer: expected rank >= 2 under Rule::Orthogonalized, got ",
      where);
  Suitability verdict{true, ""};
  try {
    if (rule == Rule::Auto) {
      verdict = suitability(parameter.sizes(), layout);
    } else {
      matrix_shapes(parameter.sizes(), layout);
    }
  } catch (const c10::Error& error) {
    TORCH_CHECK(false, error.what_without_backtrace(), ", for ", where);
  }
  TORCH_CHECK(verdict.orthogonalize || is_plain,
              "root_optim::OrthogonalizedOptimizer: expected a layout whose matrices suit "
              "orthogonalization, or "
              "Rule::Orthogonalized to insist on it, got '",
              to_string(layout), "', which makes ", verdict.reason, ", for ", where);
  return verdict.orthogonalize ? Rule::Orthogonalized : Rule::AdamW;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
