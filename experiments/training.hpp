// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The loop of a run.
#pragma once

#include <ATen/core/Tensor.h>
#include <fmt/format.h>
#include <torch/nn/utils/clip_grad.h>
#include <torch/utils.h>  // NoGradGuard
#include <root_optim/schedules/lr_scheduler.hpp>

#include <chrono>
#include <cmath>
#include <cstdint>

#include "cautious_decay.hpp"
#include "noise.hpp"
#include "observation.hpp"
#include "optimizers.hpp"
#include "result.hpp"
#include "settings.hpp"
#include "task.hpp"

namespace experiments {

/// How a run ended.
struct Outcome {
  int64_t steps = 0;      ///< fewer than asked for if it diverged
  bool diverged = false;  ///< a loss was not finite; the validation's are then NaN
  double train_loss = 0;  ///< mean since the last evaluation but one
  Evaluation validation;
  double seconds = 0;  ///< batches, gradients, clipping and steps; not noise and evaluation
  double optimizer_seconds = 0;  ///< of these, inside step()
};

inline root_optim::LrSchedule schedule_of(const Settings& s) {
  using root_optim::LrSchedule;
  LrSchedule schedule = s.schedule == "linear"   ? LrSchedule::linear(s.steps)
                        : s.schedule == "cosine" ? LrSchedule::cosine(s.steps)
                                                 : LrSchedule::constant();
  return schedule.warmup(s.steps / 20);
}

class Stopwatch {
 public:
  /// Seconds since the last call, or since it was made.
  double lap() {
    const auto now = Clock::now();
    const double seconds = std::chrono::duration<double>(now - start_).count();
    start_ = now;
    return seconds;
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

inline Evaluation evaluate(Task& task) {
  const torch::NoGradGuard no_grad;
  return task.evaluate();
}

/// Whether something done `times` in `steps` steps, the last time at the end, is due after `done`.
inline bool is_due(int64_t done, int64_t steps, int64_t times) {
  return done * times / steps != (done - 1) * times / steps;
}

inline Outcome train(Task& task, Subject& subject, const Settings& s) {
  Rows rows(s.csv, "step,train_loss,validation_loss,validation_accuracy,seconds,optimizer_seconds");
  PrecisionAlongTraining precision(s.precision);
  Tails tails(s.tails);
  Noise noise(s.noise, s.seed);
  TORCH_CHECK(!s.filter_ranks || subject.filter_gradients,
              "expected a filter for --filter-ranks, got the optimizer ", s.optimizer);
  const RankMean mean{s.filter_ranks ? subject.filter_gradients : nullptr, s.median_of_ranks,
                      s.limit_ranks};
  TORCH_CHECK(mean.is_plain() || noise.has_ranks(),
              "expected a noise of ranks for what joins them, got ", s.noise);
  CautiousDecay decay(s.cautious_decay ? s.weight_decay : 0);
  root_optim::LrScheduler scheduler(*subject.optimizer, schedule_of(s));
  const auto parameters = task.model().parameters();

  Outcome outcome;
  double loss_sum = 0;
  int64_t losses = 0;
  while (outcome.steps < s.steps && !outcome.diverged) {
    Stopwatch watch;
    subject.optimizer->zero_grad();
    const at::Tensor loss = task.training_loss(noise, outcome.steps);
    loss.backward();
    outcome.seconds += watch.lap();

    noise.gradients(parameters, mean);
    watch.lap();
    if (s.clip > 0) torch::nn::utils::clip_grad_norm_(parameters, s.clip);
    outcome.seconds += watch.lap();

    const int64_t done = outcome.steps + 1;
    if (is_due(done, s.steps, s.observations)) {
      if (precision.wanted()) precision.write(done, subject.next_matrices());
      if (tails.wanted()) tails.write(done, subject.next_matrices());
    }
    decay.before_step(*subject.optimizer);
    watch.lap();
    subject.optimizer->step();
    const double step_seconds = watch.lap();
    decay.behind_step(*subject.optimizer);
    watch.lap();
    outcome.seconds += step_seconds;
    outcome.optimizer_seconds += step_seconds;
    scheduler.step();

    outcome.steps = done;
    const double value = loss.item<double>();
    outcome.diverged = !std::isfinite(value);
    loss_sum += value;
    ++losses;
    if (!is_due(done, s.steps, s.evaluations) && !outcome.diverged) continue;
    outcome.train_loss = loss_sum / static_cast<double>(losses);
    outcome.validation = evaluate(task);
    outcome.diverged = outcome.diverged || !std::isfinite(outcome.validation.loss);
    rows.write(fmt::format("{},{:.6f},{:.6f},{:.6f},{:.4f},{:.4f}", done, outcome.train_loss,
                           outcome.validation.loss, outcome.validation.accuracy, outcome.seconds,
                           outcome.optimizer_seconds));
    loss_sum = 0;
    losses = 0;
  }
  return outcome;
}

}  // namespace experiments
