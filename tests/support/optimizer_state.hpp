// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What an optimizer keeps for a parameter, for tests to read or to change.
#pragma once

#include "catch_torch.hpp"

#include <root_optim/core/state_key.hpp>
#include <root_optim/parameters/param_state.hpp>

namespace test {

/// The state of a parameter.
/// @throws std::out_of_range if it has none
inline root_optim::ParamState& state_of(torch::optim::Optimizer& optimizer,
                                        const at::Tensor& parameter) {
  return static_cast<root_optim::ParamState&>(
      *optimizer.state().at(root_optim::detail::state_key(parameter)));
}

}  // namespace test
