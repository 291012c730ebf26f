// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The two ways of spd_inverse.hpp, for what chooses between them without a tensor.
#pragma once

namespace root_optim {
inline namespace v0 {

/// How (R + cI)⁻¹ is computed, R symmetric and positive semidefinite.
enum class InverseMethod {
  Halves,  ///< by halves with explicit Schur complements: 4/3 m³ FLOP, an error of (‖R‖₂/c)² ε
  Factor  ///< by a Cholesky factor and its inverse, by halves: 2 m³ FLOP, an error of ‖R‖₂/c ε, as LAPACK's
};

}  // namespace v0
}  // namespace root_optim
