// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The optimizer of a run, put together from its settings.
#pragma once

#include <torch/optim/optimizer.h>
#include <root_optim/diagnostics/next_matrices.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "settings.hpp"
#include "task.hpp"

namespace experiments {

struct Subject {
  std::unique_ptr<torch::optim::Optimizer> optimizer;
  /// The matrices that the next step orthogonalizes; none for AdamW.
  std::function<std::vector<root_optim::NextMatrix>()> next_matrices;
  std::function<void()> filter_gradients;  ///< before a mean over ranks; none for AdamW
};

Subject make_optimizer(const Settings& settings, Task& task);

/// The settings that muon, root and root_paper start from, a line each: what a result depends on
/// beside the command line.
std::string optimizer_defaults();

}  // namespace experiments
