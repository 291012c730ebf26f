// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of orthogonalizers/ada_newton.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/coefficients/rational.hpp>
#include <root_optim/coefficients/shipped.hpp>
#include <root_optim/coefficients/shipped_rational.hpp>
#include <root_optim/coefficients/table.hpp>
#include <root_optim/core/fields.hpp>
#include <root_optim/core/finite.hpp>
#include <root_optim/core/tensor_checks.hpp>
#include <root_optim/orthogonalizers/ada_newton.hpp>
#include <root_optim/orthogonalizers/iteration_plan.hpp>
#include <root_optim/orthogonalizers/newton_schulz.hpp>
#include <root_optim/orthogonalizers/rational.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

ROOT_OPTIM_INLINE AdaNewton& AdaNewton::iteration(Iteration iteration) {
  iteration_ = iteration;
  return *this;
}

ROOT_OPTIM_INLINE AdaNewton& AdaNewton::budget(double budget) {
  budget_ = budget;
  steps_ = std::nullopt;
  return *this;
}

ROOT_OPTIM_INLINE AdaNewton& AdaNewton::steps(int64_t steps) {
  steps_ = steps;
  return *this;
}

ROOT_OPTIM_INLINE AdaNewton& AdaNewton::compute_dtype(std::optional<at::ScalarType> dtype) {
  compute_dtype_ = dtype;
  return *this;
}

ROOT_OPTIM_INLINE AdaNewton& AdaNewton::form(Form form) {
  form_ = form;
  return *this;
}

ROOT_OPTIM_INLINE AdaNewton& AdaNewton::table(CoefficientTable table) {
  table_ = table.empty() ? nullptr : std::make_shared<const CoefficientTable>(std::move(table));
  return *this;
}

ROOT_OPTIM_INLINE Iteration AdaNewton::iteration_for(int64_t rows, int64_t cols,
                                                     const at::Tensor& parameter) const {
  validate();
  if (iteration_ != Iteration::Auto) return iteration_;
  const Precision precision = precision_for(parameter);
  if (const TableEntry* entry = find(rows, cols, precision)) {
    return entry->is_rational() ? Iteration::Rational : Iteration::NewtonSchulz;
  }
  // What was designed on first use were triples.
  const bool rational = parameter.is_cpu() && precision != Precision::BFloat16 && !steps_ &&
                        form_ == Form::Auto && !was_designed_;
  return rational ? Iteration::Rational : Iteration::NewtonSchulz;
}

ROOT_OPTIM_INLINE std::string AdaNewton::explain(int64_t rows, int64_t cols,
                                                 const at::Tensor& parameter) const {
  validate_for(rows, cols, parameter);
  const Precision precision = precision_for(parameter);
  const TableEntry* entry = find(rows, cols, precision);
  std::ostringstream out;
  out.precision(2);
  out << rows << 'x' << cols << ": ";
  if (iteration_for(rows, cols, parameter) == Iteration::Rational) {
    const RationalStages schedule = stages(rows, cols);
    const std::vector<int64_t> poles = poles_of(schedule);
    out << "inverses, stages of ";
    for (size_t t = 0; t < poles.size(); ++t) out << (t > 0 ? " + " : "") << poles[t];
    out << " poles, cost " << rational_cost(rows, cols, poles);
    if (entry != nullptr) {
      out << "; the table's (" << entry->origin << ')';
    } else {
      const ShippedRationalError error = shipped_rational_error(rows, cols, poles);
      out << ", error " << error.training / error.muon_training << " of Muon's; "
          << (budget_ ? "the most exact that the budget affords"
                      : "the cheapest with at most .75 of Muon's error, on Gaussian matrices, too");
    }
    if (iteration_ == Iteration::Auto && entry == nullptr) {
      out << "; inverses because it is on the CPU in "
          << (precision == Precision::Float64 ? "float64" : "float32");
    }
    return out.str();
  }
  const IterationPlan plan =
      plan_iteration(rows, cols, quintics(rows, cols, precision), precision,
                     entry != nullptr && entry->form != Form::Auto ? entry->form : form_);
  out << "Newton–Schulz, " << steps_for(rows, cols, precision) << " steps, "
      << (plan.form == Form::Gram ? "Gram space" : "direct") << ", cost "
      << plan.cost / direct_flops(rows, cols, 5);
  if (entry != nullptr) {
    out << "; the table's (" << entry->origin << ')';
  } else if (iteration_ == Iteration::Auto) {
    out << "; products alone because "
        << (!parameter.is_cpu()                ? "it is not on the CPU"
            : precision == Precision::BFloat16 ? "they are in bfloat16"
                                               : "their number of steps or form is set");
  }
  return out.str();
}

ROOT_OPTIM_INLINE RationalStages AdaNewton::stages(int64_t rows, int64_t cols) const {
  validate();
  const TableEntry* entry = find(rows, cols, Precision::Float32);
  if (entry != nullptr && entry->is_rational()) return entry->stages;
  if (!budget_) return shipped_rational(rows, cols, RationalPlan::Default);
  const std::vector<std::vector<int64_t>> plans = shipped_rational_poles();  // the cheapest first
  std::vector<int64_t> best = plans.front();
  for (const std::vector<int64_t>& poles : plans) {
    const bool affordable = rational_cost(rows, cols, poles) <= *budget_;
    if (affordable && shipped_rational_error(rows, cols, poles).training <
                          shipped_rational_error(rows, cols, best).training) {
      best = poles;
    }
  }
  return shipped_rational(rows, cols, best);
}

ROOT_OPTIM_INLINE int64_t AdaNewton::steps_for(int64_t rows, int64_t cols,
                                               Precision precision) const {
  validate();
  TORCH_CHECK(rows >= 1 && cols >= 1, "root_optim::AdaNewton: expected rows, cols >= 1, got ", rows,
              ", ", cols);
  const TableEntry* entry = find(rows, cols, precision);
  if (entry != nullptr && !entry->is_rational()) {
    return static_cast<int64_t>(entry->quintics.size());
  }
  if (steps_) return *steps_;
  const double affordable = budget_.value_or(1) * direct_flops(rows, cols, 5);
  int64_t steps = max_default_steps;
  while (steps > min_default_steps &&
         plan_iteration(rows, cols, shipped_quintics(steps, precision), precision, form_).cost >
             affordable) {
    --steps;
  }
  return steps;
}

ROOT_OPTIM_INLINE Quintics AdaNewton::quintics(int64_t rows, int64_t cols,
                                               Precision precision) const {
  const TableEntry* entry = find(rows, cols, precision);
  if (entry != nullptr && !entry->is_rational()) return entry->quintics;
  return shipped_quintics(steps_for(rows, cols, precision), precision);
}

ROOT_OPTIM_INLINE at::ScalarType AdaNewton::dtype_for(const at::Tensor& parameter) const {
  if (compute_dtype_) return *compute_dtype_;
  if (iteration_ != Iteration::Rational) return default_compute_dtype(parameter);
  return parameter.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

ROOT_OPTIM_INLINE Precision AdaNewton::precision_for(const at::Tensor& parameter) const {
  return detail::precision_of(dtype_for(parameter), parameter);
}

ROOT_OPTIM_INLINE void AdaNewton::validate() const {
  detail::check_enum("AdaNewton", "iteration", iteration_, Iteration::Rational);
  TORCH_CHECK(!budget_ || (detail::is_finite(*budget_) && *budget_ > 0),
              "root_optim::AdaNewton: expected budget to be finite and > 0, got ", *budget_);
  TORCH_CHECK(!steps_ || (*steps_ >= min_default_steps && *steps_ <= max_default_steps),
              "root_optim::AdaNewton: expected ", min_default_steps,
              " <= steps <= ", max_default_steps, ", got ", *steps_);
  detail::check_compute_dtype(compute_dtype_, "AdaNewton");
  detail::check_enum("AdaNewton", "form", form_, Form::Gram);
  TORCH_CHECK(iteration_ != Iteration::Rational ||
                  (!steps_ && form_ == Form::Auto && compute_dtype_ != at::kBFloat16),
              "root_optim::AdaNewton: expected neither steps nor a form nor bfloat16 with "
              "Iteration::Rational, got ",
              steps_                ? c10::str(*steps_, " steps")
              : form_ != Form::Auto ? std::string("a form")
                                    : std::string("bfloat16"),
              ": they are of Iteration::NewtonSchulz");
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void AdaNewton::serialize(Fields& out) const {
  out.set("iteration", static_cast<int64_t>(iteration_));
  out.set("budget", budget_.value_or(0));  // 0: none
  out.set("steps", steps_ ? std::vector<int64_t>{*steps_} : std::vector<int64_t>{});
  out.set("compute_dtype", detail::dtype_name(compute_dtype_));
  out.set("form", static_cast<int64_t>(form_));
  out.set("table", table_ ? table_->to_text() : std::string());
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void AdaNewton::deserialize(const Fields& in) {
  AdaNewton read;
  // Formats 1 to 4: Newton–Schulz alone, with a budget always.
  read.iteration_ = in.contains("iteration") ? in.get_enum("iteration", Iteration::Rational)
                                             : Iteration::NewtonSchulz;
  const double budget = in.get<double>("budget");
  if (budget != 0) read.budget_ = budget;
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

ROOT_OPTIM_INLINE void AdaNewton::validate_for(int64_t rows, int64_t cols,
                                               const at::Tensor& parameter) const {
  validate();
  const Precision precision = precision_for(parameter);
  const TableEntry* entry = find(rows, cols, precision);
  TORCH_CHECK(
      !was_designed_ || entry != nullptr, "root_optim::load: expected coefficients for ", rows, "x",
      cols,
      " in the table, got none: the checkpoint was written with coefficients designed on first "
      "use, which this version does not make; with that version, save it with a table that "
      "root_optim::design_coefficients or CoefficientTable::set has filled for every shape");
  TORCH_CHECK(
      iteration_ != Iteration::Rational || precision != Precision::BFloat16,
      "root_optim::AdaNewton: expected products in float32 with Iteration::Rational, got "
      "LibTorch's setting that rounds them to less; set the matmul precision to highest, or "
      "choose Iteration::NewtonSchulz");
  TORCH_CHECK(entry == nullptr || iteration_ == Iteration::Auto ||
                  entry->is_rational() == (iteration_ == Iteration::Rational),
              "root_optim::AdaNewton: expected ",
              iteration_ == Iteration::Rational ? "stages" : "triples", " for ", rows, "x", cols,
              " in the table with Iteration::",
              iteration_ == Iteration::Rational ? "Rational" : "NewtonSchulz", ", got ",
              iteration_ == Iteration::Rational ? "triples" : "stages",
              "; choose Iteration::Auto, or replace the entry");
}

ROOT_OPTIM_INLINE at::Tensor AdaNewton::operator()(const at::Tensor& x, Scratch scratch) const {
  detail::check_matrices(x, "AdaNewton");
  const int64_t rows = x.size(-2), cols = x.size(-1);
  validate_for(rows, cols, x);
  if (iteration_for(rows, cols, x) == Iteration::Rational) {
    // The shipped stages and the table's have passed validation, which would take a small matrix's time.
    detail::check_no_autograd(x, "AdaNewton");
    RationalOutput output =
        detail::orthogonalize_valid(x, stages(rows, cols), dtype_for(x), false, scratch);
    if (scratch.failed != nullptr) *scratch.failed = output.failed;
    return output.x;
  }
  const Precision precision = precision_for(x);
  OrthogonalizeOptions options;
  options.compute_dtype = compute_dtype_;
  options.form = form_;
  const TableEntry* entry = find(rows, cols, precision);
  if (entry != nullptr && entry->form != Form::Auto) options.form = entry->form;
  return orthogonalize(x, quintics(rows, cols, precision), options, scratch);
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
