// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What coefficients for a matrix shape are designed for when nothing has been measured, and the
// design. ROOT, arXiv 2511.20626, "AdaNewton": (a, b, c)^(m,n). The generator is in
// coefficients/design/design.hpp; the schedules that it gave for all shapes, in coefficients/shipped.hpp.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include <root_optim/coefficients/design/design.hpp>
#include <root_optim/coefficients/shipped.hpp>
#include <root_optim/coefficients/spectrum.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// What a shape's coefficients are designed for: a Gaussian matrix of that shape and heavy-tailed
/// families (the paper calibrates on random and real matrices).
struct ShapeModel {
  double gaussian_weight = 0.2;  ///< share of the Gaussian part, in [0, 1]
  /// Families that share the rest equally. Default: fitted to momentum captured in training.
  std::vector<HeavyTail> tails = momentum_families();
};

/// The model's spectra for a rows × cols matrix after Schatten-8 normalization, with their weights.
/// @throws c10::Error unless rows, cols >= 1, 0 <= gaussian_weight <= 1, and there are tails if it
/// is below 1.
std::vector<std::pair<double, Spectrum>> shape_spectra(int64_t rows, int64_t cols,
                                                       const ShapeModel& model = {});

/// Designs the triples for a rows × cols matrix by `design_mixture`, starting among others from the
/// shipped schedule of as many steps.
/// @param precision of the products: its slack and margins; BFloat16's serve every precision.
/// @throws c10::Error as shape_spectra, and unless 1 <= steps <= 16.
Design design_for_shape(int64_t rows, int64_t cols, int64_t steps,
                        Precision precision = Precision::Float32, const ShapeModel& model = {});

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/coefficients/design/detail/shape_model_impl.hpp>
#endif
