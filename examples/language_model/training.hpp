// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The training loop: the same for every optimizer, and for any torch::optim::Optimizer.
#pragma once

#include <c10/util/Exception.h>
#include <torch/optim/optimizer.h>
#include <torch/types.h>
#include <torch/utils.h>  // NoGradGuard

#include <algorithm>  // min
#include <chrono>
#include <functional>
#include <optional>
#include <vector>

#include "data.hpp"
#include "model.hpp"
#include "optimizers.hpp"  // set_learning_rate

namespace language_model {

struct TrainingOptions {
  int64_t steps = 0;
  int64_t batch = 0;
  int64_t seed = 0;
  double lr = 0;             ///< the schedule's highest value
  double warmup = 0.05;      ///< share of the steps
  int64_t evaluations = 10;  ///< on the validation text, spread over the run; one is at its end
  int64_t validation_tokens = 0;
};

/// One row of losses.csv.
struct StepRecord {
  int64_t step = 0;                       ///< from 1
  double train_loss = 0;                  ///< of this step's batch, before its update
  std::optional<double> validation_loss;  ///< after the update, where it was evaluated
  double seconds = 0;                     ///< spent training so far: evaluation does not count
  double optimizer_seconds = 0;           ///< of these, inside Optimizer::step()
};

/// Factor on the learning rate at `step` (from 0): linear warm-up, then linear decay to zero.
inline double schedule(int64_t step, int64_t steps, double warmup_share) {
  const auto warmup = std::max(1.0, warmup_share * static_cast<double>(steps));
  const double up = static_cast<double>(step + 1) / warmup;
  const double down = static_cast<double>(steps - step) / (static_cast<double>(steps) - warmup + 1);
  return std::min({1.0, up, down});
}

/// Mean loss over the batches.
inline double evaluate(Gpt& model, const std::vector<Batch>& batches) {
  const torch::NoGradGuard no_grad;
  double sum = 0, count = 0;
  for (const Batch& batch : batches) {
    const auto tokens = static_cast<double>(batch.target.numel());
    sum += tokens * model->loss(batch.input, batch.target).item<double>();
    count += tokens;
  }
  return sum / count;
}

/// Trains the model and calls `on_step` after every step. `before_step`, if given, is called with the
/// gradients in place; its time counts as training, not as the optimizer's.
inline void train(Gpt& model, torch::optim::Optimizer& optimizer, const Corpus& corpus,
                  const TrainingOptions& options,
                  const std::function<void(const StepRecord&)>& on_step,
                  const std::function<void()>& before_step = {}) {
  using Clock = std::chrono::steady_clock;
  const auto seconds_since = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  const int64_t context = model->options().context;
  RandomBatches batches(corpus.training, options.batch, context, options.seed);
  const std::vector<Batch> validation =
      fixed_batches(corpus.validation, std::max<int64_t>(1, options.validation_tokens / context),
                    options.batch, context);
  const int64_t evaluate_every = std::max<int64_t>(1, options.steps / options.evaluations);

  StepRecord record;
  for (int64_t step = 0; step < options.steps; ++step) {
    const auto step_start = Clock::now();
    set_learning_rate(optimizer, options.lr * schedule(step, options.steps, options.warmup));
    const Batch batch = batches.next();
    optimizer.zero_grad();
    const at::Tensor loss = model->loss(batch.input, batch.target);
    loss.backward();
    if (before_step) before_step();
    const auto update_start = Clock::now();
    optimizer.step();
    record.optimizer_seconds += seconds_since(update_start);
    record.seconds += seconds_since(step_start);

    record.step = step + 1;
    record.train_loss = loss.item<double>();
    record.validation_loss.reset();
    if (record.step % evaluate_every == 0 || record.step == options.steps) {
      record.validation_loss = evaluate(model, validation);
    }
    on_step(record);
  }
}

}  // namespace language_model
