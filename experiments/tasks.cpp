// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
#include "language_task.hpp"
#include "task.hpp"
#include "vision_task.hpp"

namespace experiments {

std::unique_ptr<Task> make_task(const Settings& settings) {
  if (settings.task == "lm") return std::make_unique<LanguageTask>(settings);
  return make_vision_task(settings);
}

}  // namespace experiments
