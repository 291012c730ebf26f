// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Checkpoints in memory.
#pragma once

#include "catch_torch.hpp"

#include <root_optim/checkpoint/checkpoint.hpp>

#include <sstream>
#include <string>

namespace test {

/// What `save` writes of an optimizer, or of an optimizer and its scheduler.
template <class... What>
std::string saved(const What&... what) {
  std::ostringstream file;
  root_optim::save(what..., file);
  return file.str();
}

/// Loads it.
/// @param options none, or LoadOptions: then the report of the load is returned
template <class Optimizer, class... Options>
auto load_from(Optimizer& optimizer, const std::string& content, const Options&... options) {
  std::istringstream file(content);
  return root_optim::load(optimizer, file, options...);
}

/// The same, and the scheduler.
template <class Optimizer>
void load_from(Optimizer& optimizer, root_optim::LrScheduler& scheduler,
               const std::string& content) {
  std::istringstream file(content);
  root_optim::load(optimizer, scheduler, file);
}

}  // namespace test
