// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// AdaNewton: Newton–Schulz with a triple per step, and as many steps as a shape affords. The
// iteration itself is `orthogonalize` in newton_schulz.hpp; how the triples were made is in
// default_coefficients.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <root_optim/default_coefficients.hpp>
#include <root_optim/detail/finite.hpp>
#include <root_optim/detail/tensor_checks.hpp>
#include <root_optim/iteration_plan.hpp>
#include <root_optim/newton_schulz.hpp>
#include <root_optim/policy.hpp>  // Fields

namespace root_optim {
inline namespace v0 {

/// Policy: Newton–Schulz with the shipped coefficients, steps per shape, and Schatten-8 normalization.
///
/// Steps:   `budget` fixes the cost, relative to the FLOP of the plain five-step iteration on the same
///          shape, and each shape gets as many steps as fit. In float32 wide matrices are cheap in
///          Gram space, so with the default they get more: 5 for square ones, 6 for 1:2, 9 for 1:4.
///          In bfloat16, which is always direct, every shape gets 5. `steps` fixes the number instead.
/// Coefficients: a triple per step, one schedule per number of steps for all shapes: for the mixture
///          of spectra that they serve, designs for single shapes are better by about 0.5 % only. All
///          pass validation in every compute dtype; the published ones, which do not, are
///          CoefficientSet::root_paper() for NewtonSchulz.
/// Reference: ROOT, arXiv 2511.20626, "AdaNewton". Deviations from the paper: a triple of its own for
///          every step in place of one repeated, another norm, steps by shape.
class AdaNewton {
 public:
  static constexpr const char* name = "ada_newton";

  /// Cost relative to five direct steps, 4m²n + 2m³ FLOP each. Range: finite, > 0. Default: 1.05.
  AdaNewton& budget(double budget) {
    budget_ = budget;
    steps_ = std::nullopt;
    return *this;
  }
  /// Number of steps for every shape, 3 to 12, whatever they cost. Default: by `budget`.
  AdaNewton& steps(int64_t steps) {
    steps_ = steps;
    return *this;
  }
  /// float64, float32, bfloat16 or nullopt for `default_compute_dtype`. Default: nullopt.
  AdaNewton& compute_dtype(std::optional<at::ScalarType> dtype) {
    compute_dtype_ = dtype;
    return *this;
  }
  /// How the polynomials are applied; see iteration_plan.hpp. Default: Auto.
  AdaNewton& form(Form form) {
    form_ = form;
    return *this;
  }

  double budget() const { return budget_; }
  std::optional<int64_t> steps() const { return steps_; }
  std::optional<at::ScalarType> compute_dtype() const { return compute_dtype_; }
  Form form() const { return form_; }

  /// The number of steps on a rows × cols matrix: `steps`, or as many as `budget` affords, but at
  /// least three.
  int64_t steps_for(int64_t rows, int64_t cols, Precision precision) const {
    if (steps_) return *steps_;
    const double affordable = budget_ * direct_flops(rows, cols, 5);
    int64_t steps = max_default_steps;
    while (steps > min_default_steps &&
           plan_iteration(rows, cols, default_schedule(steps), precision, form_).flops >
               affordable) {
      --steps;
    }
    return steps;
  }

  /// The triples for a rows × cols matrix.
  Schedule schedule(int64_t rows, int64_t cols, Precision precision) const {
    return default_schedule(steps_for(rows, cols, precision));
  }

  /// @throws c10::Error if a setting is out of range.
  void validate() const {
    TORCH_CHECK(detail::is_finite(budget_) && budget_ > 0,
                "root_optim::AdaNewton: expected budget to be finite and > 0, got ", budget_);
    TORCH_CHECK(!steps_ || (*steps_ >= min_default_steps && *steps_ <= max_default_steps),
                "root_optim::AdaNewton: expected ", min_default_steps,
                " <= steps <= ", max_default_steps, ", got ", *steps_);
    detail::check_compute_dtype(compute_dtype_, "AdaNewton");
    detail::check_enum("AdaNewton", "form", form_, Form::Gram);
  }
  void serialize(Fields& out) const {
    out.set("budget", budget_);
    out.set("steps", steps_ ? std::vector<int64_t>{*steps_} : std::vector<int64_t>{});
    out.set("compute_dtype", detail::dtype_name(compute_dtype_));
    out.set("form", static_cast<int64_t>(form_));
  }
  void deserialize(const Fields& in) {
    budget_ = in.get<double>("budget");
    const auto& steps = in.get<std::vector<int64_t>>("steps");
    steps_ = steps.empty() ? std::nullopt : std::optional<int64_t>(steps.front());
    compute_dtype_ = detail::dtype_from_name(in.get<std::string>("compute_dtype"));
    form_ = in.get_enum("form", Form::Gram);
  }

  /// `orthogonalize` with the triples for the shape of x, [k, m, n].
  at::Tensor operator()(const at::Tensor& x) const {
    validate();
    detail::check_matrices(x, "AdaNewton");
    OrthogonalizeOptions options;
    options.compute_dtype = compute_dtype_.value_or(default_compute_dtype(x));
    options.form = form_;
    const Precision precision = detail::precision_of(*options.compute_dtype, x);
    return orthogonalize(x, schedule(x.size(-2), x.size(-1), precision), options);
  }

 private:
  double budget_ = 1.05;
  std::optional<int64_t> steps_;
  std::optional<at::ScalarType> compute_dtype_;
  Form form_ = Form::Auto;
};

}  // namespace v0
}  // namespace root_optim
