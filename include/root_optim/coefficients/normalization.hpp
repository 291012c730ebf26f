// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The norm that a matrix is divided by before an iteration.
#pragma once

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// How a matrix is scaled before the first step so that its singular values lie in [0, 1].
enum class Normalization {
  /// X / max(‖X‖_F, ε): torch.optim.Muon.
  FrobeniusFloor,
  /// X / (‖X‖_F + ε): ROOT as published.
  FrobeniusPlus,
  /// X / ‖X‖_S8, the Schatten-8 norm (Σσ⁸)^⅛ = ‖(XXᵀ)²‖_F^¼, from products that the first step
  /// forms anyway. Never below σ_max and much closer to it than ‖X‖_F: for a Gaussian 2048² worth
  /// about one step. Scale invariant: no absolute ε.
  Schatten8
};

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
