// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The memory that an optimizer keeps.
#pragma once

#include <torch/optim/optimizer.h>
#include <root_optim/parameters/param_state.hpp>

#include <cstdint>

namespace benchmarks {

/// All tensors that an optimizer of this library keeps for its parameters, whatever they are.
inline int64_t state_bytes(const torch::optim::Optimizer& optimizer) {
  int64_t bytes = 0;
  for (const auto& entry : optimizer.state()) {
    const auto& state = static_cast<const root_optim::ParamState&>(*entry.second);
    for (const auto& slot : root_optim::ParamState::slot_list()) {
      const at::Tensor& tensor = state.*slot.tensor;
      if (tensor.defined()) bytes += static_cast<int64_t>(tensor.nbytes());
    }
  }
  return bytes;
}

}  // namespace benchmarks
