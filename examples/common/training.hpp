// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The training loop: the same for every task and for any torch::optim::Optimizer.
#pragma once

#include <torch/nn/utils/clip_grad.h>
#include <torch/optim/optimizer.h>
#include <torch/utils.h>  // NoGradGuard
#include <root_optim/schedules/lr_scheduler.hpp>

#include <chrono>
#include <cstdint>
#include <functional>

#include "calibration.hpp"
#include "device.hpp"
#include "losses_csv.hpp"  // StepRecord
#include "run_options.hpp"
#include "task.hpp"

namespace examples {

inline Evaluation evaluate(Task& task) {
  const torch::NoGradGuard no_grad;
  task.model().eval();
  const Evaluation result = task.evaluate();
  task.model().train();
  return result;
}

/// Trains from step `record.step` on and calls `on_step` after every step. `record` is that of the
/// last step done (its seconds go on counting), or as constructed.
inline void train(Task& task, torch::optim::Optimizer& optimizer,
                  root_optim::LrScheduler& scheduler, Calibration& calibration,
                  const RunOptions& options, StepRecord record,
                  const std::function<void(const StepRecord&)>& on_step) {
  using Clock = std::chrono::steady_clock;
  const auto seconds_since = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  const at::Device device(options.device);
  const auto evaluations_until = [&](int64_t step) {
    return step * options.evaluations / options.steps;
  };

  while (record.step < options.steps) {
    const auto step_start = Clock::now();
    optimizer.zero_grad();
    const at::Tensor loss = task.next_loss();
    loss.backward();
    if (options.clip > 0) {
      torch::nn::utils::clip_grad_norm_(task.model().parameters(), options.clip);
    }
    calibration.step();
    synchronize(device);
    const auto update_start = Clock::now();
    optimizer.step();
    synchronize(device);
    record.optimizer_seconds += seconds_since(update_start);
    record.seconds += seconds_since(step_start);
    scheduler.step();

    ++record.step;
    record.train_loss = loss.item<double>();
    record.validation_loss.reset();
    record.validation_accuracy.reset();
    if (evaluations_until(record.step) > evaluations_until(record.step - 1)) {
      const Evaluation evaluation = evaluate(task);
      record.validation_loss = evaluation.loss;
      record.validation_accuracy = evaluation.accuracy;
    }
    on_step(record);
  }
}

}  // namespace examples
