// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The table at the end of a comparison.
#pragma once

#include <fmt/format.h>

#include <algorithm>  // min
#include <map>
#include <string>
#include <vector>

#include "losses_csv.hpp"  // Run

namespace examples {

/// One line per run; the training loss is the mean of the last 20 steps, since a single batch is
/// noisy.
inline void print_summary(const std::vector<Run>& runs, const std::map<std::string, double>& lr) {
  const bool accuracy = runs.front().records.back().validation_accuracy.has_value();
  fmt::print("\n{:<9} {:>13} {:>10} {:>15} {}{:>11} {:>15}\n", "optimizer", "learning rate",
             "train loss", "validation loss", accuracy ? "accuracy " : "", "ms per step",
             "optimizer share");
  for (const Run& run : runs) {
    const StepRecord& last = run.records.back();
    const size_t count = std::min<size_t>(20, run.records.size());
    double train_loss = 0;
    for (size_t i = run.records.size() - count; i < run.records.size(); ++i) {
      train_loss += run.records[i].train_loss / static_cast<double>(count);
    }
    fmt::print("{:<9} {:>13g} {:>10.4f} {:>15.4f} {}{:>11.1f} {:>14.1f}%\n", run.optimizer,
               lr.at(run.optimizer), train_loss, last.validation_loss.value_or(0),
               accuracy ? fmt::format("{:>7.2f}% ", 100 * *last.validation_accuracy) : "",
               1e3 * last.seconds / static_cast<double>(last.step),
               100 * last.optimizer_seconds / last.seconds);
  }
}

}  // namespace examples
