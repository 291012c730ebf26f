// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// AdaNewton: Newton–Schulz with a triple per step, looked up by the shape of the matrix. The
// iteration itself is `orthogonalize` in newton_schulz.hpp; how the triples were made is in
// default_coefficients.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstdint>
#include <optional>
#include <string>

#include <root_optim/default_coefficients.hpp>
#include <root_optim/detail/tensor_checks.hpp>
#include <root_optim/newton_schulz.hpp>
#include <root_optim/policy.hpp>  // Fields

namespace root_optim {
inline namespace v0 {

/// Policy: Newton–Schulz with coefficients per step and per shape, Schatten-8 normalization.
///
/// Its triples pass validation in every compute dtype; the published ones, which do not, are
/// CoefficientSet::root_paper() for NewtonSchulz.
/// Reference: ROOT, arXiv 2511.20626, "AdaNewton". Deviation from the paper: a triple of its own
/// for every step in place of one repeated, and another norm.
class AdaNewton {
 public:
  static constexpr const char* name = "ada_newton";

  /// Number of steps, 3 to 12. Default: 5, the cost of Muon.
  AdaNewton& steps(int64_t steps) {
    steps_ = steps;
    return *this;
  }
  /// float64, float32, bfloat16 or nullopt for `default_compute_dtype`. Default: nullopt.
  AdaNewton& compute_dtype(std::optional<at::ScalarType> dtype) {
    compute_dtype_ = dtype;
    return *this;
  }

  int64_t steps() const { return steps_; }
  std::optional<at::ScalarType> compute_dtype() const { return compute_dtype_; }

  /// The triples for a rows × cols matrix computed in `dtype`.
  Schedule schedule(int64_t rows, int64_t cols, at::ScalarType dtype) const {
    static_cast<void>(rows), static_cast<void>(cols);
    return default_schedule(steps_,
                            dtype == at::kBFloat16 ? Precision::BFloat16 : Precision::Float32);
  }

  /// @throws c10::Error if a setting is out of range.
  void validate() const {
    TORCH_CHECK(steps_ >= min_default_steps && steps_ <= max_default_steps,
                "root_optim::AdaNewton: expected ", min_default_steps,
                " <= steps <= ", max_default_steps, ", got ", steps_);
    detail::check_compute_dtype(compute_dtype_, "AdaNewton");
  }
  void serialize(Fields& out) const {
    out.set("steps", steps_);
    out.set("compute_dtype", detail::dtype_name(compute_dtype_));
  }
  void deserialize(const Fields& in) {
    steps_ = in.get<int64_t>("steps");
    compute_dtype_ = detail::dtype_from_name(in.get<std::string>("compute_dtype"));
  }

  /// `orthogonalize` with the triples for the shape of x, [k, m, n].
  at::Tensor operator()(const at::Tensor& x) const {
    validate();
    detail::check_matrices(x, "AdaNewton");
    OrthogonalizeOptions options;
    options.compute_dtype = compute_dtype_.value_or(default_compute_dtype(x));
    return orthogonalize(x, schedule(x.size(-2), x.size(-1), *options.compute_dtype), options);
  }

 private:
  int64_t steps_ = 5;
  std::optional<at::ScalarType> compute_dtype_;
};

}  // namespace v0
}  // namespace root_optim
