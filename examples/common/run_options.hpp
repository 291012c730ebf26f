// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The part of the command line that all programs have.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>                           // join
#include <root_optim/calibration/calibrator.hpp>  // CalibratorOptions

#include <CLI/CLI.hpp>

#include <cstdint>
#include <cstdlib>  // exit
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "checkpoint.hpp"  // Settings
#include "schedule.hpp"

namespace examples {

struct RunOptions {
  std::vector<std::string> optimizers;  ///< trained one after the other, from the same weights
  std::map<std::string, double> lr;     ///< of each optimizer: the schedule's highest value
  int64_t steps = 0;
  int64_t batch = 0;
  int64_t evaluations = 10;  ///< spread over the run; one is at its end
  int64_t seed = 1;
  ScheduleOptions schedule;
  double clip = 0;        ///< largest norm of all gradients together; 0: any
  int64_t calibrate = 0;  ///< steps between two calibrations of root; 0: never
  int threads = 0;        ///< 0: as many as LibTorch chooses
  std::string device = "cpu";
  std::string out;
  std::string checkpoint = "checkpoint.pt";  ///< a path relative to `out`, or absolute
  int64_t checkpoint_every = 200;            ///< 0: only at the end of each run
  bool resume = false;

  std::filesystem::path checkpoint_path() const { return std::filesystem::path(out) / checkpoint; }

  /// What decides the losses, but for the number of threads: a resumed run must have the same.
  Settings settings() const {
    std::string rates;
    for (const std::string& name : optimizers) rates += fmt::format(" {} {:g}", name, lr.at(name));
    return {{"--optimizer, --lr-*", rates.substr(1)},
            {"--steps", std::to_string(steps)},
            {"--batch", std::to_string(batch)},
            {"--evaluations", std::to_string(evaluations)},
            {"--seed", std::to_string(seed)},
            {"--schedule", schedule.name},
            {"--warmup", fmt::format("{:g}", schedule.warmup)},
            {"--decay", fmt::format("{:g}", schedule.decay)},
            {"--clip", fmt::format("{:g}", clip)},
            {"--calibrate", std::to_string(calibrate)},
            {"--device", device}};
  }
};

/// Adds the options to the program's command line, with the values in `o` as defaults.
/// @param batch_unit what a batch has: "Images"
inline void add_run_options(CLI::App& app, RunOptions& o, const std::string& batch_unit) {
  const auto positive = CLI::PositiveNumber;
  const auto share = CLI::Range(0.0, 1.0);

  app.add_flag_callback(
      "--demo",
      [&o] {
        o.optimizers = {"adamw", "muon", "root"};
      },
      "Train with adamw, muon and root, one after the other");
  app.add_option("--optimizer", o.optimizers,
                 "Train with this one; may be repeated (default: root)")
      ->check(CLI::IsMember({"adamw", "muon", "root"}))
      ->take_all();
  app.add_option("--out", o.out, "Directory for losses.csv and the checkpoint")
      ->type_name("DIR")
      ->capture_default_str();

  const std::string training = "Training";
  app.add_option("--steps", o.steps, "Optimizer steps; one batch each")
      ->check(positive)
      ->capture_default_str()
      ->group(training);
  app.add_option("--batch", o.batch, batch_unit + " per batch")
      ->check(positive)
      ->capture_default_str()
      ->group(training);
  for (auto& [name, lr] : o.lr) {
    app.add_option("--lr-" + name, lr, "Highest learning rate of " + name)
        ->check(positive)
        ->capture_default_str()
        ->group(training);
  }
  app.add_option(
         "--schedule", o.schedule.name,
         "Learning rate: after a linear warm-up linear or cosine down to 0, or wsd: constant, "
         "then linear down to 0")
      ->check(CLI::IsMember({"linear", "cosine", "wsd"}))
      ->capture_default_str()
      ->group(training);
  app.add_option("--warmup", o.schedule.warmup, "Share of the steps that is warm-up")
      ->check(share)
      ->capture_default_str()
      ->group(training);
  app.add_option("--decay", o.schedule.decay, "Share of the steps that is decay, with wsd")
      ->check(share)
      ->capture_default_str()
      ->group(training);
  app.add_option("--clip", o.clip, "Scale all gradients together down to this norm; 0: never")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(training);
  app.add_option(
         "--calibrate", o.calibrate,
         "Redesign root's coefficients every N steps from the momentum it meets, and report "
         "what that costs; 0: never")
      ->expected(0, 1)
      ->default_str(std::to_string(root_optim::CalibratorOptions().every))
      ->check(CLI::NonNegativeNumber)
      ->group(training);
  app.add_option("--evaluations", o.evaluations,
                 "Times that the validation loss is computed, the last one at the end")
      ->check(positive)
      ->capture_default_str()
      ->group(training);
  app.add_option("--seed", o.seed, "Decides all that is random")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(training);
  app.add_option("--threads", o.threads, "CPU threads; 0: as many as LibTorch chooses")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(training);
  app.add_option("--device", o.device, "Where to train")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str()
      ->group(training);

  const std::string resuming = "Checkpoint (Ctrl-C and SIGTERM write it too)";
  app.add_option("--checkpoint", o.checkpoint, "The file, below --out")
      ->type_name("FILE")
      ->capture_default_str()
      ->group(resuming);
  app.add_option("--checkpoint-every", o.checkpoint_every,
                 "Steps between two; 0: only at the end of a run")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(resuming);
  app.add_flag("--resume", o.resume,
               "Go on from the checkpoint; every other option as in the command that wrote it")
      ->group(resuming);
}

/// Ends the program for --help and for a command line that is not understood.
inline void parse_or_exit(CLI::App& app, RunOptions& o, int argc, char** argv) {
  try {
    app.parse(argc, argv);
    if (o.optimizers.empty()) o.optimizers = {"root"};
    if (std::set<std::string>(o.optimizers.begin(), o.optimizers.end()).size() !=
        o.optimizers.size()) {
      throw CLI::ValidationError(
          "--optimizer", fmt::format("expected each once, got {}", fmt::join(o.optimizers, ", ")));
    }
  } catch (const CLI::ParseError& e) {
    std::exit(app.exit(e));
  }
}

}  // namespace examples
