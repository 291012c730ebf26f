// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What the program shows and writes: the progress line, losses.csv, the closing table.
#pragma once

#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <unistd.h>  // isatty

#include <algorithm>  // min
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "training.hpp"  // StepRecord

namespace language_model {

/// losses.csv: one row per step of every run; it is complete up to the last step at any time.
class LossesCsv {
 public:
  explicit LossesCsv(const std::filesystem::path& path) : path_(path), out_(path) {
    out_ << "optimizer,step,train_loss,validation_loss,seconds,optimizer_seconds\n";
    check();
  }

  void write(const std::string& optimizer, const StepRecord& r) {
    const std::string validation =
        r.validation_loss ? fmt::format("{:.6f}", *r.validation_loss) : std::string();
    out_ << fmt::format("{},{},{:.6f},{},{:.4f},{:.4f}\n", optimizer, r.step, r.train_loss,
                        validation, r.seconds, r.optimizer_seconds);
    out_.flush();
    check();
  }

 private:
  void check() const { TORCH_CHECK(out_, "cannot write ", path_.string()); }

  std::filesystem::path path_;
  std::ofstream out_;
};

/// One line per run, rewritten in place on a terminal; elsewhere a line per evaluation.
class ProgressLine {
 public:
  ProgressLine(std::string title, int64_t steps, int64_t tokens_per_step)
      : title_(std::move(title)), steps_(steps), tokens_per_step_(tokens_per_step) {}

  void show(const StepRecord& r) {
    const bool terminal = isatty(fileno(stdout)) == 1;
    const bool last = r.step == steps_;
    if (r.validation_loss) validation_ = fmt::format("  validation {:.4f}", *r.validation_loss);
    if (!(terminal ? last || r.seconds - shown_at_ > 0.2 : r.validation_loss.has_value())) return;
    shown_at_ = r.seconds;

    const double per_step = r.seconds / static_cast<double>(r.step);
    const auto left = static_cast<int64_t>(per_step * static_cast<double>(steps_ - r.step) + 0.5);
    fmt::print("{}{}  step {:>{}}/{}  loss {:.4f}{}  {:.0f} tokens/s  {}:{:02} left{}",
               terminal ? "\r" : "", title_, r.step, std::to_string(steps_).size(), steps_,
               r.train_loss, validation_, static_cast<double>(tokens_per_step_) / per_step,
               left / 60, left % 60, terminal && !last ? "\x1b[K" : "\n");
    std::fflush(stdout);
  }

 private:
  std::string title_;
  int64_t steps_, tokens_per_step_;
  double shown_at_ = -1;
  std::string validation_;
};

/// What the closing table says of one run.
struct Summary {
  std::string optimizer;
  double lr = 0;
  double train_loss = 0;  ///< mean of the last 20 steps: a single batch is noisy
  double validation_loss = 0;
  double ms_per_step = 0;
  double optimizer_share = 0;
};

inline Summary summarize(const std::string& optimizer, double lr,
                         const std::vector<StepRecord>& records) {
  const StepRecord& last = records.back();
  const size_t count = std::min<size_t>(20, records.size());
  Summary s{optimizer, lr, 0, last.validation_loss.value_or(0), 0, 0};
  for (size_t i = records.size() - count; i < records.size(); ++i) {
    s.train_loss += records[i].train_loss / static_cast<double>(count);
  }
  s.ms_per_step = 1e3 * last.seconds / static_cast<double>(last.step);
  s.optimizer_share = last.optimizer_seconds / last.seconds;
  return s;
}

inline void print_table(const std::vector<Summary>& summaries) {
  fmt::print("\n{:<9} {:>13} {:>10} {:>15} {:>11} {:>15}\n", "optimizer", "learning rate",
             "train loss", "validation loss", "ms per step", "optimizer share");
  for (const Summary& s : summaries) {
    fmt::print("{:<9} {:>13g} {:>10.4f} {:>15.4f} {:>11.1f} {:>14.1f}%\n", s.optimizer, s.lr,
               s.train_loss, s.validation_loss, s.ms_per_step, 100 * s.optimizer_share);
  }
}

}  // namespace language_model
