// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The shipped rational plans of AdaNewton: stages for five classes of shapes, designed for captured momentum
// (coefficients/design/rational_design.hpp). The stages and their figures are in
// coefficients/detail/shipped_rationals.hpp.
#pragma once

#include <cstdint>
#include <vector>

#include <root_optim/coefficients/rational.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// How much a shipped plan may cost, by what it reaches on the momentum that it was designed for and on momentum that
/// was held out.
enum class RationalPlan {
  Fast,  ///< the cheapest whose mean relative error is at most that of Muon's five quintics
  Default,  ///< the cheapest with at most .75 of that error, there and on a Gaussian matrix of the shape
  Precise,  ///< the one with the least error
};

/// The poles of each stage of the shipped plans, from the cheapest to the dearest.
ROOT_OPTIM_COLD inline std::vector<std::vector<int64_t>> shipped_rational_poles() {
  return {{2}, {3}, {1, 1}, {1, 2}, {2, 2}, {2, 3}, {1, 2, 2}};
}

/// Our stages for a rows × cols matrix after Schatten-4 normalization. They pass `validate_rational` in float32,
/// hence in float64, with outputs of at most 1.2 in exact arithmetic.
///
/// The class of a shape is that of its longer side over its shorter: 1, 2, 3, 4 or 8 and more, whichever is
/// nearest in the logarithm.
/// @param poles of each stage: one of `shipped_rational_poles`.
/// @throws c10::Error for other poles, and unless rows, cols >= 1.
RationalStages shipped_rational(int64_t rows, int64_t cols, const std::vector<int64_t>& poles);

/// The same by what a plan reaches: which poles that takes depends on the shape.
/// @throws c10::Error unless rows, cols >= 1.
RationalStages shipped_rational(int64_t rows, int64_t cols,
                                RationalPlan plan = RationalPlan::Default);

/// What a shipped plan reaches: the mean relative error ‖X_T − UVᵀ‖_F / ‖UVᵀ‖_F on captured momentum of the shape's
/// class, in exact arithmetic.
struct ShippedRationalError {
  double training = 0;       ///< on the matrices that the plan was designed for
  double held_out = 0;       ///< on others, of other layers and runs
  double muon_training = 0;  ///< of Muon's five quintics on the former
  double muon_held_out = 0;  ///< of Muon's five quintics on the latter
};

/// The errors of `shipped_rational(rows, cols, poles)`.
/// @throws c10::Error as that.
ShippedRationalError shipped_rational_error(int64_t rows, int64_t cols,
                                            const std::vector<int64_t>& poles);

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/coefficients/detail/shipped_rational_impl.hpp>
#endif
