// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// AdaNewton: the Newton iteration with coefficients by matrix shape. By inverses (rational.hpp) where they are
// faster, by products alone (newton_schulz.hpp) elsewhere. The shipped coefficients are in
// coefficients/shipped_rational.hpp and coefficients/shipped.hpp, those for single shapes in
// coefficients/table.hpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <root_optim/coefficients/rational.hpp>
#include <root_optim/coefficients/table.hpp>
#include <root_optim/core/fields.hpp>
#include <root_optim/core/scratch.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// The two iterations of AdaNewton.
enum class Iteration {
  /// Rational for parameters on the CPU that are computed in float32 or float64, unless `steps` or `form` asks for
  /// NewtonSchulz; else NewtonSchulz
  Auto,
  NewtonSchulz,  ///< quintics, products alone: the paper's, and the faster on GPUs
  Rational  ///< stages with inverses: the faster on CPUs, and the more exact where σ is spread wide
};

/// Policy: the adaptive Newton iteration, with coefficients by matrix shape.
///
/// Iteration: for each parameter one of two, which `iteration` sets. Auto decides by device, dtype and these settings
///          alone, so that equal programs choose alike on unlike CPUs.
/// Rational: `orthogonalize_rational` (Schatten-4 normalization). Stages: the table's entry for the shape (m, n), else
///          shipped ones (coefficients/shipped_rational.hpp). Without a `budget` RationalPlan::Default, the cheapest
///          whose relative error is at most .75 of that of Muon's five steps, in the mean over captured momentum and
///          on a Gaussian matrix: more has shown no use in training. With a budget the most exact that it affords, and
///          the cheapest if it affords none.
/// NewtonSchulz: `orthogonalize` (Schatten-8 normalization). Triples: the table's entry for the shape and the precision,
///          with its form; else the shipped ones (coefficients/shipped.hpp), which are the same for all shapes and
///          within a few percent of what `design_coefficients` reaches for a shape (docs/precision.md), with as many
///          steps as `budget` affords. By default, 1: from a smaller side of 512 on 5 for square matrices, 6 for 1:2
///          and 9 for 1:4; below, 5, 5 and 8; in bfloat16 5. `steps` fixes the number instead.
/// Cost:    the unit is the time of five plain quintic steps in float32 on the same CPU: rational_cost and
///          IterationPlan::cost in iteration_plan.hpp.
/// Failure: a matrix whose factorization fails counts as a step that is skipped (`skipped`): nothing is thrown.
/// Reference: ROOT, arXiv 2511.20626, "AdaNewton". Deviations from the paper: a triple for every step in
///          place of one that repeats, another norm, steps by shape, and the iteration by inverses.
class AdaNewton {
 public:
  static constexpr const char* name = "ada_newton";  ///< stable: checkpoints record it

  /// Which iteration. Default: Auto.
  AdaNewton& iteration(Iteration iteration);
  /// What a shape may cost. Takes back `steps`. Range: finite, > 0. Default: none, see above.
  AdaNewton& budget(double budget);
  /// Number of Newton–Schulz steps of shapes without an entry in the table, 3 to 12, whatever they cost; with Auto
  /// it chooses NewtonSchulz, and Rational refuses it. Default: by `budget`.
  AdaNewton& steps(int64_t steps);
  /// float64, float32, bfloat16 (NewtonSchulz alone) or nullopt: float32 for Rational, else `default_compute_dtype`;
  /// float64 for float64 parameters. Default: nullopt.
  AdaNewton& compute_dtype(std::optional<at::ScalarType> dtype);
  /// How the polynomials of NewtonSchulz are applied; see iteration_plan.hpp. Direct and Gram choose it with
  /// Iteration::Auto, and Rational refuses them. Default: Auto.
  AdaNewton& form(Form form);
  /// Coefficients for single shapes, which take precedence over the shipped ones; with Auto their kind decides
  /// the iteration. Copies of a policy share them; they never change. Default: none.
  AdaNewton& table(CoefficientTable table);

  Iteration iteration() const { return iteration_; }
  std::optional<double> budget() const { return budget_; }
  std::optional<int64_t> steps() const { return steps_; }
  std::optional<at::ScalarType> compute_dtype() const { return compute_dtype_; }
  Form form() const { return form_; }
  CoefficientTable table() const { return table_ ? *table_ : CoefficientTable(); }  ///< a copy

  /// The iteration for a rows × cols matrix of a parameter: NewtonSchulz or Rational.
  /// @throws c10::Error as `validate`.
  Iteration iteration_for(int64_t rows, int64_t cols, const at::Tensor& parameter) const;

  /// The same as a sentence: which iteration, of what length, at what cost, and why.
  /// @throws c10::Error as `validate_for`.
  std::string explain(int64_t rows, int64_t cols, const at::Tensor& parameter) const;

  /// The stages of the rational iteration for a rows × cols matrix.
  /// @throws c10::Error as `validate`, and unless rows, cols >= 1.
  RationalStages stages(int64_t rows, int64_t cols) const;

  /// The number of Newton–Schulz steps on a rows × cols matrix: the table's entry, else `steps`, else as many as
  /// `budget` affords, but at least three.
  /// @throws c10::Error unless rows, cols >= 1, and as `validate`.
  int64_t steps_for(int64_t rows, int64_t cols, Precision precision) const;

  /// The triples of Newton–Schulz for a rows × cols matrix.
  /// @throws c10::Error as `steps_for`.
  Quintics quintics(int64_t rows, int64_t cols, Precision precision) const;

  /// The precision of the products for a parameter, which tables and schedules depend on.
  Precision precision_for(const at::Tensor& parameter) const;

  /// @throws c10::Error if a setting is out of range.
  void validate() const;
  void serialize(Fields& out) const;
  void deserialize(const Fields& in);

  /// @throws c10::Error if the settings come from a checkpoint whose coefficients were designed on first
  /// use, and the table has none for this shape: others would take their place; if the table's entry is of the
  /// other kind than `iteration` demands; and if Rational is demanded where products are rounded to less than
  /// float32.
  void validate_for(int64_t rows, int64_t cols, const at::Tensor& parameter) const;

  /// The factors of x, [k, m, n], by the iteration and the coefficients for its shape.
  at::Tensor operator()(const at::Tensor& x) const { return (*this)(x, Scratch()); }
  /// The same with what a step offers: see Scratch.
  at::Tensor operator()(const at::Tensor& x, Scratch scratch) const;

 private:
  const TableEntry* find(int64_t rows, int64_t cols, Precision precision) const {
    return table_ ? table_->find(rows, cols, precision) : nullptr;
  }

  /// The compute dtype for a parameter.
  at::ScalarType dtype_for(const at::Tensor& parameter) const;

  Iteration iteration_ = Iteration::Auto;
  std::optional<double> budget_;
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
