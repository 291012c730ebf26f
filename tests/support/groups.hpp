// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Groups of parameters with options of their own.
#pragma once

#include "catch_torch.hpp"

#include <root_optim/root.hpp>

#include <memory>
#include <utility>
#include <vector>

namespace test {

template <class Options>
torch::optim::OptimizerParamGroup group(std::vector<at::Tensor> parameters,
                                        const Options& options) {
  return {std::move(parameters), std::make_unique<Options>(options)};
}

/// The options of a group that is not in an optimizer yet; of one that is, see its `options`.
/// @throws std::bad_cast if they are not Root's
inline const root_optim::RootOptions& options_of(const torch::optim::OptimizerParamGroup& group) {
  return dynamic_cast<const root_optim::RootOptions&>(group.options());
}

}  // namespace test
