// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Coefficients for the shapes of a model, before training. How one shape's are made is in
// coefficients/design/shape_model.hpp; coefficients that follow the training are in calibrator.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/coefficients/design/rational_design.hpp>
#include <root_optim/coefficients/design/shape_model.hpp>
#include <root_optim/coefficients/precision.hpp>
#include <root_optim/coefficients/table.hpp>
#include <root_optim/optimizer/detail/group_options.hpp>
#include <root_optim/optimizer/optimizer.hpp>
#include <root_optim/orthogonalizers/ada_newton.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/parameters/layout.hpp>
#include <root_optim/parameters/rule.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// Designs coefficients for every matrix shape of an optimizer's parameters and puts them into the
/// tables of its groups. An entry that a table has already stays.
///
/// Math:      for the model's spectra, with as many steps, or stages and poles, as the group's AdaNewton takes
///            for the shape: `design_for_shape` in the precision in which it computes for the parameter, or
///            `design_rational`.
/// Complexity: about 20 to 50 ms for each shape and precision, once: equal shapes share a design. Checkpoints
///            keep the tables, so a resumed run has them without designing anew.
/// @return the number of designs made.
/// @throws c10::Error as `shape_spectra`, for a group whose options are of another type, and for a
/// parameter whose layout does not fit; no table has changed then.
template <class F>
int64_t design_coefficients(OrthogonalizedOptimizer<F, AdaNewton>& optimizer,
                            const ShapeModel& model = {}) {
  using Options = OrthogonalizedOptions<F, AdaNewton>;
  shape_spectra(1, 1, model);  // checks it
  auto& groups = optimizer.param_groups();
  std::vector<CoefficientTable> tables;
  int64_t designs = 0;
  for (size_t g = 0; g < groups.size(); ++g) {
    const Options& options = detail::group_options<Options>(groups, g, "design_coefficients");
    const AdaNewton& policy = options.orthogonalizer();
    CoefficientTable table = policy.table();
    for (size_t i = 0; i < groups[g].params().size(); ++i) {
      const at::Tensor& parameter = groups[g].params()[i];
      const std::string where = detail::describe(parameter, g, i, options.names());
      if (detail::resolve_rule(options.rule(), options.layout(), parameter, where) !=
          Rule::Orthogonalized) {
        continue;
      }
      const Precision precision = policy.precision_for(parameter);
      for (const MatrixShape shape : matrix_shapes(parameter.sizes(), options.layout())) {
        if (table.find(shape.rows, shape.cols, precision) != nullptr) continue;
        TableEntry entry;
        entry.rows = shape.rows;
        entry.cols = shape.cols;
        entry.precision = precision;
        if (policy.iteration_for(shape.rows, shape.cols, parameter) == Iteration::Rational) {
          RationalDesignOptions wanted;
          wanted.poles = poles_of(policy.stages(shape.rows, shape.cols));
          auto parts = shape_spectra(shape.rows, shape.cols, model);
          const auto count = static_cast<double>((std::min)(shape.rows, shape.cols));
          for (auto& part : parts) part.second = schatten4_spectrum(part.second, count);
          entry.stages = design_rational(parts, wanted).schedule;
        } else {
          entry.quintics = design_for_shape(shape.rows, shape.cols,
                                            policy.steps_for(shape.rows, shape.cols, precision),
                                            precision, model)
                               .quintics;
        }
        entry.origin = "designed";
        table.set(std::move(entry));
        ++designs;
      }
    }
    tables.push_back(std::move(table));
  }
  for (size_t g = 0; g < groups.size(); ++g) {
    auto& options = static_cast<Options&>(groups[g].options());
    options.orthogonalizer(AdaNewton(options.orthogonalizer()).table(std::move(tables[g])));
  }
  return designs;
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
