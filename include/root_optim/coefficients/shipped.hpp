// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The shipped coefficients of AdaNewton: a list of triples for each number of steps, the same for all shapes.
// Designed for matrices normalized by their Schatten-8 norm, for the spectra of ShapeModel
// (coefficients/design/shape_model.hpp) at 1024x1024, within the limits of validation in float32 or in
// bfloat16. The triples and their figures are in coefficients/detail/shipped_triples.hpp, the published
// sets in coefficients/published.hpp.
#pragma once

#include <cstdint>
#include <vector>

#include <root_optim/coefficients/precision.hpp>
#include <root_optim/coefficients/quintic.hpp>
#include <root_optim/coefficients/spectrum.hpp>  // HeavyTail
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

inline constexpr int64_t min_default_steps = 3;   ///< of a shipped schedule
inline constexpr int64_t max_default_steps = 12;  ///< of a shipped schedule

/// Our triples for `steps` steps after Schatten-8 normalization. Those for bfloat16 are valid in every
/// precision; those for float32 and float64, which are the same, have errors some percent smaller.
/// @throws c10::Error unless min_default_steps <= steps <= max_default_steps.
Quintics shipped_quintics(int64_t steps, Precision precision = Precision::BFloat16);

/// Families of momentum spectra, fitted to momentum captured in training.
std::vector<HeavyTail> momentum_families();

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/coefficients/detail/shipped_impl.hpp>
#endif
