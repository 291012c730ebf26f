// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of coefficients/design/shape_model.hpp.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include <root_optim/coefficients/design/design.hpp>
#include <root_optim/coefficients/design/shape_model.hpp>
#include <root_optim/coefficients/shipped.hpp>
#include <root_optim/coefficients/spectrum.hpp>
#include <root_optim/coefficients/validation.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

ROOT_OPTIM_INLINE std::vector<std::pair<double, Spectrum>> shape_spectra(int64_t rows, int64_t cols,
                                                                         const ShapeModel& model) {
  TORCH_CHECK(rows >= 1 && cols >= 1, "root_optim::shape_spectra: expected rows, cols >= 1, got ",
              rows, ", ", cols);
  TORCH_CHECK(
      model.gaussian_weight >= 0 && model.gaussian_weight <= 1 &&
          (model.gaussian_weight == 1 || !model.tails.empty()),
      "root_optim::shape_spectra: expected 0 <= gaussian_weight <= 1, and tails below 1, got ",
      model.gaussian_weight, " and ", model.tails.size(), " tails");
  std::vector<std::pair<double, Spectrum>> parts;
  if (model.gaussian_weight > 0) {
    parts.emplace_back(model.gaussian_weight,
                       gaussian_spectrum(rows, cols, Normalization::Schatten8));
  }
  for (const HeavyTail& tail : model.tails) {
    if (model.gaussian_weight == 1) break;
    parts.emplace_back(
        (1 - model.gaussian_weight) / static_cast<double>(model.tails.size()),
        heavy_tailed_spectrum((std::min)(rows, cols), Normalization::Schatten8, tail));
  }
  return parts;
}

ROOT_OPTIM_INLINE Design design_for_shape(int64_t rows, int64_t cols, int64_t steps,
                                          Precision precision, const ShapeModel& model) {
  DesignOptions options;
  options.steps = steps;
  options.validation = ValidationOptions::for_precision(precision, Normalization::Schatten8);
  if (steps >= min_default_steps && steps <= max_default_steps) {
    options.warm_start = shipped_quintics(steps, precision);
  }
  return design_mixture(shape_spectra(rows, cols, model), options);
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
