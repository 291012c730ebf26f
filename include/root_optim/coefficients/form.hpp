// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// How the polynomials of an iteration are applied.
#pragma once

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// How the polynomials of a schedule are applied.
enum class Form {
  Auto,    ///< Gram where the precision allows it and it costs less, else Direct
  Direct,  ///< X ← aX + (bA + cA²)X with A = XXᵀ at every step
  Gram     ///< the steps act on the m × m Gram matrix alone and are applied to X once per run; not
           ///< in bfloat16, which stays direct
};

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
