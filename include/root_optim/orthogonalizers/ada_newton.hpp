// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// AdaNewton: Newton–Schulz with a triple for each step, and as many steps as a shape affords. The
// iteration itself is `orthogonalize` in newton_schulz.hpp. The shipped triples are in
// coefficients/shipped.hpp, triples for single shapes in coefficients/table.hpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>

#include <root_optim/coefficients/table.hpp>
#include <root_optim/core/fields.hpp>
#include <root_optim/core/scratch.hpp>
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
  AdaNewton& budget(double budget);
  /// Number of steps of shapes without an entry in the table, 3 to 12, whatever they cost.
  /// Default: by `budget`.
  AdaNewton& steps(int64_t steps);
  /// float64, float32, bfloat16 or nullopt for `default_compute_dtype`. Default: nullopt.
  AdaNewton& compute_dtype(std::optional<at::ScalarType> dtype);
  /// How the polynomials are applied; see iteration_plan.hpp. Default: Auto.
  AdaNewton& form(Form form);
  /// Coefficients for single shapes, which take precedence over the shipped ones. Copies of a policy
  /// share them; they never change. Default: none.
  AdaNewton& table(CoefficientTable table);

  double budget() const { return budget_; }
  std::optional<int64_t> steps() const { return steps_; }
  std::optional<at::ScalarType> compute_dtype() const { return compute_dtype_; }
  Form form() const { return form_; }
  CoefficientTable table() const { return table_ ? *table_ : CoefficientTable(); }  ///< a copy

  /// The number of steps on a rows × cols matrix: the table's entry, else `steps`, else as many as
  /// `budget` affords, but at least three.
  /// @throws c10::Error unless rows, cols >= 1, and as `validate`.
  int64_t steps_for(int64_t rows, int64_t cols, Precision precision) const;

  /// The triples for a rows × cols matrix.
  /// @throws c10::Error as `steps_for`.
  Quintics quintics(int64_t rows, int64_t cols, Precision precision) const;

  /// The precision of the products for a parameter, which tables and schedules depend on.
  Precision precision_for(const at::Tensor& parameter) const;

  /// @throws c10::Error if a setting is out of range.
  void validate() const;
  void serialize(Fields& out) const;
  void deserialize(const Fields& in);

  /// @throws c10::Error if the settings come from a checkpoint whose coefficients were designed on first
  /// use, and the table has none for this shape: others would take their place.
  void validate_for(int64_t rows, int64_t cols, const at::Tensor& parameter) const;

  /// `orthogonalize` with the triples for the shape of x, [k, m, n].
  at::Tensor operator()(const at::Tensor& x) const { return (*this)(x, Scratch()); }
  /// The same with what a step offers: see Scratch.
  at::Tensor operator()(const at::Tensor& x, Scratch scratch) const;

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

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/orthogonalizers/detail/ada_newton_impl.hpp>
#endif
