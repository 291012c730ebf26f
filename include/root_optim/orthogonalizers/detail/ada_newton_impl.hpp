// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of orthogonalizers/ada_newton.hpp.
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
#include <root_optim/core/fields.hpp>
#include <root_optim/core/finite.hpp>
#include <root_optim/core/tensor_checks.hpp>
#include <root_optim/orthogonalizers/ada_newton.hpp>
#include <root_optim/orthogonalizers/iteration_plan.hpp>
#include <root_optim/orthogonalizers/newton_schulz.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

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

ROOT_OPTIM_INLINE int64_t AdaNewton::steps_for(int64_t rows, int64_t cols,
                                               Precision precision) const {
  validate();
  TORCH_CHECK(rows >= 1 && cols >= 1, "root_optim::AdaNewton: expected rows, cols >= 1, got ", rows,
              ", ", cols);
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

ROOT_OPTIM_INLINE Quintics AdaNewton::quintics(int64_t rows, int64_t cols,
                                               Precision precision) const {
  if (const TableEntry* entry = find(rows, cols, precision)) return entry->quintics;
  return shipped_quintics(steps_for(rows, cols, precision), precision);
}

ROOT_OPTIM_INLINE Precision AdaNewton::precision_for(const at::Tensor& parameter) const {
  return detail::precision_of(compute_dtype_.value_or(default_compute_dtype(parameter)), parameter);
}

ROOT_OPTIM_INLINE void AdaNewton::validate() const {
  TORCH_CHECK(detail::is_finite(budget_) && budget_ > 0,
              "root_optim::AdaNewton: expected budget to be finite and > 0, got ", budget_);
  TORCH_CHECK(!steps_ || (*steps_ >= min_default_steps && *steps_ <= max_default_steps),
              "root_optim::AdaNewton: expected ", min_default_steps,
              " <= steps <= ", max_default_steps, ", got ", *steps_);
  detail::check_compute_dtype(compute_dtype_, "AdaNewton");
  detail::check_enum("AdaNewton", "form", form_, Form::Gram);
}

ROOT_OPTIM_INLINE void AdaNewton::serialize(Fields& out) const {
  out.set("budget", budget_);
  out.set("steps", steps_ ? std::vector<int64_t>{*steps_} : std::vector<int64_t>{});
  out.set("compute_dtype", detail::dtype_name(compute_dtype_));
  out.set("form", static_cast<int64_t>(form_));
  out.set("table", table_ ? table_->to_text() : std::string());
}

ROOT_OPTIM_INLINE void AdaNewton::deserialize(const Fields& in) {
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

ROOT_OPTIM_INLINE void AdaNewton::validate_for(int64_t rows, int64_t cols,
                                               const at::Tensor& parameter) const {
  TORCH_CHECK(
      !was_designed_ || find(rows, cols, precision_for(parameter)) != nullptr,
      "root_optim::load: expected coefficients for ", rows, "x", cols,
      " in the table, got none: the checkpoint was written with coefficients designed on first "
      "use, which this version does not make; with that version, save it with a table that "
      "root_optim::design_coefficients or CoefficientTable::set has filled for every shape");
}

ROOT_OPTIM_INLINE at::Tensor AdaNewton::operator()(const at::Tensor& x, Scratch scratch) const {
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

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
