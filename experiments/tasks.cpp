// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
#include <ATen/ATen.h>

#include "language_task.hpp"
#include "task.hpp"
#include "vision_task.hpp"

namespace experiments {

double loss_of_frequencies(const at::Tensor& training, const at::Tensor& held_out,
                           int64_t classes) {
  const auto counts = [classes](const at::Tensor& labels) {
    return at::bincount(labels, {}, classes).to(at::kDouble).add_(1e-3);
  };
  const at::Tensor before = counts(training), now = counts(held_out);
  return -before.div(before.sum()).log_().mul_(now).sum().item<double>() / now.sum().item<double>();
}

std::unique_ptr<Task> make_task(const Settings& settings) {
  if (settings.task == "lm") return std::make_unique<LanguageTask>(settings);
  return make_vision_task(settings);
}

}  // namespace experiments
