// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// AdaNewton: Newton–Schulz with a triple for each step, and as many steps as a shape affords. The
// iteration itself is `orthogonalize` in newton_schulz.hpp. The shipped triples are in
// coefficients/shipped.hpp, triples for single shapes in coefficients/table.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstdint>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/coefficients/shipped.hpp>
#include <root_optim/coefficients/table.hpp>
#include <root_optim/core/finite.hpp>
#include <root_optim/core/policy.hpp>  // Fields
#include <root_optim/core/tensor_checks.hpp>
#include <root_optim/orthogonalizers/iteration_plan.hpp>
#include <root_optim/orthogonalizers/newton_schulz.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// Policy: Newton–Schulz with coefficients and steps by matrix shape, and Schatten-8 normalization.
///
/// Coefficients: if `table` has an entry for the shape (m, n) and the precision, that entry, with its
///          number of steps and its form. Otherwise the shipped triples, one for each step, which are
///          the same for all shapes. Their error is within a few percent of what `design_coefficients`
///          (calibration.hpp) reaches for a shape (docs/precision.md). All pass validation. The
///          published set, which does not, is CoefficientSet::root_paper() for NewtonSchulz.
/// Steps:   `budget` bounds the cost (IterationPlan::cost) relative to that of the plain five-step
///          iteration on the same shape, and each shape gets as many steps as fit. In float32 wide
///          matrices are cheap in Gram space and large ones by symmetry, so the default gives them more.
///          From a smaller side of 512 on it is 5 for square matrices, 6 for 1:2 and 9 for 1:4; below,
///          5, 5 and 8. In bfloat16, which is always direct and plain, every shape gets 5. `steps` fixes
///          the number instead.
/// Reference: ROOT, arXiv 2511.20626, "AdaNewton". Deviations from the paper: a triple for every step in
///          place of one that repeats, another norm, steps by shape.
class AdaNewton {
 public:
  static constexpr const char* name = "ada_newton";  ///< stable: checkpoints record it

  /// Cost relative to five plain direct steps, 4m²n + 2m³ FLOP each. Range: finite, > 0. Default: 1.
  AdaNewton& budget(double budget) {
    budget_ = budget;
    steps_ = std::nullopt;
    return *this;
  }
  /// Number of steps of shapes without an entry in the table, 3 to 12, whatever they cost.
  /// Default: by `budget`.
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
  /// Coefficients for single shapes, which take precedence over the shipped ones. Copies of a policy
  /// share them; they never change. Default: none.
  AdaNewton& table(CoefficientTable table) {
    table_ = table.empty() ? nullptr : std::make_shared<const CoefficientTable>(std::move(table));
    return *this;
  }

  double budget() const { return budget_; }
  std::optional<int64_t> steps() const { return steps_; }
  std::optional<at::ScalarType> compute_dtype() const { return compute_dtype_; }
  Form form() const { return form_; }
  CoefficientTable table() const { return table_ ? *table_ : CoefficientTable(); }  ///< a copy

  /// The number of steps on a rows × cols matrix: the table's entry, else `steps`, else as many as
  /// `budget` affords, but at least three.
  /// @throws c10::Error unless rows, cols >= 1, and as `validate`.
  int64_t steps_for(int64_t rows, int64_t cols, Precision precision) const {
    validate();
    TORCH_CHECK(rows >= 1 && cols >= 1, "root_optim::AdaNewton: expected rows, cols >= 1, got ",
                rows, ", ", cols);
    if (const TableEntry* entry = find(rows, cols, precision)) {
      return static_cast<int64_t>(entry->quintics.size());
    }
    if (steps_) return *steps_;
    const double affordable = budget_ * direct_flops(rows, cols, 5);
    int64_t steps = max_default_steps;
    while (steps > min_default_steps &&
           plan_iteration(rows, cols, shipped_quintics(steps, precision), precision, form_).cost >
               affordable) {
      --steps;
    }
    return steps;
  }

  /// The triples for a rows × cols matrix.
  /// @throws c10::Error as `steps_for`.
  Quintics quintics(int64_t rows, int64_t cols, Precision precision) const {
    if (const TableEntry* entry = find(rows, cols, precision)) return entry->quintics;
    return shipped_quintics(steps_for(rows, cols, precision), precision);
  }

  /// The precision of the products for a parameter, which tables and schedules depend on.
  Precision precision_for(const at::Tensor& parameter) const {
    return detail::precision_of(compute_dtype_.value_or(default_compute_dtype(parameter)),
                                parameter);
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
    out.set("table", table_ ? table_->to_text() : std::string());
  }
  void deserialize(const Fields& in) {
    AdaNewton read;
    read.budget_ = in.get<double>("budget");
    const auto& steps = in.get<std::vector<int64_t>>("steps");
    if (!steps.empty()) read.steps_ = steps.front();
    read.compute_dtype_ = detail::dtype_from_name(in.get<std::string>("compute_dtype"));
    read.form_ = in.get_enum("form", Form::Gram);
    const auto& text = in.get<std::string>("table");
    if (!text.empty()) {
      CoefficientTable table;
      std::istringstream stream(text);
      table.read(stream, "the stored table");
      read.table(std::move(table));
    }
    // Formats 1 to 3: spectra for which coefficients were designed on first use.
    read.was_designed_ = in.contains("model") && !in.get<std::vector<double>>("model").empty();
    *this = std::move(read);
  }

  /// @throws c10::Error if the settings come from a checkpoint whose coefficients were designed on first
  /// use, and the table has none for this shape: others would take their place.
  void validate_for(int64_t rows, int64_t cols, const at::Tensor& parameter) const {
    TORCH_CHECK(
        !was_designed_ || find(rows, cols, precision_for(parameter)) != nullptr,
        "root_optim::load: expected coefficients for ", rows, "x", cols,
        " in the table, got none: the checkpoint was written with coefficients designed on first "
        "use, which this version does not make; with that version, save it with a table that "
        "root_optim::design_coefficients or CoefficientTable::set has filled for every shape");
  }

  /// `orthogonalize` with the triples for the shape of x, [k, m, n].
  at::Tensor operator()(const at::Tensor& x) const { return (*this)(x, Scratch()); }
  /// The same with what a step offers: see Scratch.
  at::Tensor operator()(const at::Tensor& x, Scratch scratch) const {
    validate();
    detail::check_matrices(x, "AdaNewton");
    const int64_t rows = x.size(-2), cols = x.size(-1);
    const Precision precision = precision_for(x);
    OrthogonalizeOptions options;
    options.compute_dtype = compute_dtype_;
    options.form = form_;
    const TableEntry* entry = find(rows, cols, precision);
    if (entry != nullptr && entry->form != Form::Auto) options.form = entry->form;
    return orthogonalize(x, quintics(rows, cols, precision), options, scratch);
  }

 private:
  const TableEntry* find(int64_t rows, int64_t cols, Precision precision) const {
    return table_ ? table_->find(rows, cols, precision) : nullptr;
  }

  double budget_ = 1;
  std::optional<int64_t> steps_;
  std::optional<at::ScalarType> compute_dtype_;
  Form form_ = Form::Auto;
  std::shared_ptr<const CoefficientTable> table_;
  bool was_designed_ = false;
};

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
