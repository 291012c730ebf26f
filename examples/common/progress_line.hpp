// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
#pragma once

#include <fmt/format.h>
#include <unistd.h>  // isatty

#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>

#include "losses_csv.hpp"  // StepRecord

namespace examples {

/// One line per run, rewritten in place on a terminal; elsewhere a line per evaluation.
class ProgressLine {
 public:
  /// @param unit what a step has `per_step` of: "tokens", "images"
  ProgressLine(std::string title, int64_t steps, std::string unit, int64_t per_step)
      : title_(std::move(title)), steps_(steps), unit_(std::move(unit)), per_step_(per_step) {}

  void show(const StepRecord& r) {
    const bool terminal = isatty(fileno(stdout)) == 1;
    const bool last = r.step == steps_;
    if (r.validation_loss) {
      validation_ = fmt::format("  validation {:.4f}", *r.validation_loss);
      if (r.validation_accuracy) {
        validation_ += fmt::format("  accuracy {:.2f}%", 100 * *r.validation_accuracy);
      }
    }
    if (!(terminal ? last || r.seconds - shown_at_ > 0.2 : r.validation_loss.has_value())) return;
    shown_at_ = r.seconds;

    const double per_step = r.seconds / static_cast<double>(r.step);
    const auto left = static_cast<int64_t>(per_step * static_cast<double>(steps_ - r.step) + 0.5);
    fmt::print("{}{}  step {:>{}}/{}  loss {:.4f}{}  {:.0f} {}/s  {}:{:02} left{}",
               terminal ? "\r" : "", title_, r.step, std::to_string(steps_).size(), steps_,
               r.train_loss, validation_, static_cast<double>(per_step_) / per_step, unit_,
               left / 60, left % 60, terminal && !last ? "\x1b[K" : "\n");
    std::fflush(stdout);
    open_ = terminal && !last;
  }

  /// Ends a line that is still to be rewritten, so that other output can follow.
  void end() {
    if (open_) fmt::print("\n");
    open_ = false;
  }

 private:
  std::string title_;
  int64_t steps_;
  std::string unit_;
  int64_t per_step_;
  double shown_at_ = -1;
  bool open_ = false;
  std::string validation_;
};

}  // namespace examples
