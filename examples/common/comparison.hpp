// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Trains a task with one optimizer after the other, from the same weights and on the same batches:
// what the programs share between reading the command line and what they do with the trained model.
#pragma once

#include <ATen/Parallel.h>  // set_num_threads
#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <torch/utils.h>  // manual_seed
#include <root_optim/checkpoint/checkpoint.hpp>
#include <root_optim/schedules/lr_scheduler.hpp>

#include <algorithm>  // find_if
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "calibration.hpp"
#include "checkpoint.hpp"
#include "interrupt.hpp"
#include "losses_csv.hpp"
#include "optimizers.hpp"
#include "progress_line.hpp"
#include "run_options.hpp"
#include "schedule.hpp"
#include "summary.hpp"
#include "task.hpp"
#include "training.hpp"

namespace examples {

/// What a program says about itself.
struct Comparison {
  std::string data;   ///< for the first lines: "text: 5 MB to train on"
  std::string model;  ///< "4 layers of width 128"
  std::string batch;  ///< "16 x 64 bytes"
  std::string unit;   ///< "tokens", for the progress line
  int64_t units_per_step = 0;
  bool accuracy = false;  ///< whether the task's evaluations have one
  Settings settings;      ///< what decides the losses beside RunOptions
  /// A task with fresh weights; called with LibTorch's generator seeded.
  std::function<std::unique_ptr<Task>()> make_task;
};

namespace detail {

/// The rows of losses.csv up to the checkpoint.
inline std::vector<Run> rows_up_to(const LossesCsv& csv, const Position& position,
                                   const RunOptions& options) {
  std::vector<Run> runs, read = csv.read();
  for (const std::string& name : options.optimizers) {
    const bool last = name == position.optimizer;
    const auto expected = static_cast<size_t>(last ? position.step : options.steps);
    const auto found = std::find_if(read.begin(), read.end(),
                                    [&](const Run& run) { return run.optimizer == name; });
    const size_t rows = found == read.end() ? 0 : found->records.size();
    TORCH_CHECK(rows > 0 && rows >= expected, csv.path().string(), ": expected ", expected,
                " rows of ", name, ", which the checkpoint has seen, got ", rows);
    found->records.resize(expected);
    runs.push_back(std::move(*found));
    if (last) break;
  }
  return runs;
}

}  // namespace detail

/// Trains, prints the table and writes losses.csv and the checkpoint.
/// @return the task trained last.
/// @throws Interrupted after it has saved because of a signal.
inline std::unique_ptr<Task> compare(const RunOptions& options, const Comparison& comparison) {
  if (options.threads > 0) at::set_num_threads(options.threads);
  const auto schedule = make_schedule(options.schedule, options.steps);
  find_device(options.device);
  fs::create_directories(options.out);
  const std::string checkpoint = options.checkpoint_path().string();
  Settings settings = options.settings();
  settings.insert(settings.end(), comparison.settings.begin(), comparison.settings.end());

  LossesCsv csv(fs::path(options.out) / "losses.csv", comparison.accuracy);
  std::vector<Run> runs;
  Position position;
  if (options.resume) {
    TORCH_CHECK(fs::exists(checkpoint), "--resume: expected a checkpoint, got no file ",
                checkpoint);
    Checkpoint saved(settings, {}, nullptr, nullptr);
    root_optim::load(saved, checkpoint);
    position = saved.position();
    runs = detail::rows_up_to(csv, position, options);
  }
  csv.start(runs);
  catch_interrupts();

  std::unique_ptr<Task> task;
  for (size_t i = runs.empty() ? 0 : runs.size() - 1; i < options.optimizers.size(); ++i) {
    const std::string& name = options.optimizers[i];
    const bool resumed = i < runs.size();
    if (!resumed) runs.push_back({name, {}});
    std::vector<StepRecord>& records = runs[i].records;

    torch::manual_seed(static_cast<uint64_t>(options.seed));
    task = comparison.make_task();
    const auto optimizer = make_optimizer(name, task->model(), options.lr.at(name));
    root_optim::LrScheduler scheduler(*optimizer, schedule);
    if (resumed) {
      Checkpoint saved(settings, {}, &task->model(), optimizer.get());
      root_optim::load(saved, checkpoint);
      scheduler.set_step(position.step);
      task->set_batches_state(position.batches);
      fmt::print("{}: goes on after step {} of {}\n", checkpoint, position.step, name);
    } else if (i == 0) {
      int64_t parameters = 0;
      for (const at::Tensor& p : task->model().parameters()) parameters += p.numel();
      fmt::print("{}\nmodel: {}: {} parameters\neach run: {} steps of {}, {} threads\n\n",
                 comparison.data, comparison.model, parameters, options.steps, comparison.batch,
                 at::get_num_threads());
    }
    std::fflush(stdout);

    Calibration calibration(*optimizer, options.calibrate);
    ProgressLine progress(fmt::format("{:<5}", name), options.steps, comparison.unit,
                          comparison.units_per_step);
    const auto on_step = [&](const StepRecord& record) {
      records.push_back(record);
      csv.write(name, record);
      progress.show(record);
      const int signal = interrupting_signal();
      const bool due = options.checkpoint_every > 0 && record.step % options.checkpoint_every == 0;
      if (signal == 0 && !due && record.step != options.steps) return;
      root_optim::save(Checkpoint(settings, {name, record.step, task->batches_state()},
                                  &task->model(), optimizer.get()),
                       checkpoint);
      if (signal == 0) return;
      progress.end();
      fmt::print(stderr,
                 "interrupted after step {} of {}, which is saved in {}; the same command "
                 "with --resume goes on from there\n",
                 record.step, name, checkpoint);
      throw Interrupted{signal};
    };
    train(*task, *optimizer, scheduler, calibration, options,
          records.empty() ? StepRecord() : records.back(), on_step);
    calibration.report(records.back().seconds);
  }

  print_summary(runs, options.lr);
  fmt::print("\nlosses of every step: {}\n", csv.path().string());
  return task;
}

/// Runs a program's body and turns what it throws into a message and an exit code.
inline int exit_code_of(const std::string& program, const std::function<void()>& body) {
  try {
    body();
    return 0;
  } catch (const Interrupted& interrupted) {
    return 128 + interrupted.signal;  // what a shell reports of a program that a signal ended
  } catch (const c10::Error& e) {
    fmt::print(stderr, "{}: {}\n", program, e.what_without_backtrace());
  } catch (const std::exception& e) {
    fmt::print(stderr, "{}: {}\n", program, e.what());
  }
  return 1;
}

}  // namespace examples
