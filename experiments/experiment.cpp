// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// One training run of the experiments. experiments.py has the list of them, runs them and makes
// tables and plots of their results.
#include <ATen/Parallel.h>  // set_num_threads
#include <fmt/format.h>
#include <torch/serialize/output-archive.h>
#include <torch/utils.h>  // manual_seed
#include <torch/version.h>

#include <cstdio>
#include <exception>

#include "optimizers.hpp"
#include "result.hpp"
#include "settings.hpp"
#include "task.hpp"
#include "training.hpp"

namespace experiments {
namespace {

void write_result(const Settings& s, Task& task, const Outcome& outcome, double process_seconds) {
  int64_t parameters = 0;
  for (const at::Tensor& p : task.model().parameters()) parameters += p.numel();
  Result result;
  result.set("validation_loss", outcome.validation.loss);
  result.set("validation_accuracy", outcome.validation.accuracy);
  result.set("train_loss", outcome.train_loss);
  result.set("trivial_loss", task.trivial_loss());
  result.set("diverged", outcome.diverged);
  result.set("steps_done", outcome.steps);
  result.set("seconds", outcome.seconds);
  result.set("optimizer_seconds", outcome.optimizer_seconds);
  result.set("process_seconds", process_seconds);
  result.set("parameters", parameters);
  result.set("threads_used", static_cast<int64_t>(at::get_num_threads()));
  result.set("torch", std::string(TORCH_VERSION));
  result.write(s.result);
}

void run(const Settings& s) {
  Stopwatch watch;
  if (s.threads > 0) at::set_num_threads(s.threads);
  torch::manual_seed(static_cast<uint64_t>(s.seed));
  const auto task = make_task(s);
  Subject subject = make_optimizer(s, *task);
  const Outcome outcome = train(*task, subject, s);
  if (!s.weights.empty()) {
    torch::serialize::OutputArchive archive;
    task->model().save(archive);
    archive.save_to(s.weights);
  }
  if (!s.result.empty()) write_result(s, *task, outcome, watch.lap());
  fmt::print(
      "{} of {} steps{}: validation loss {:.4f}, accuracy {:.4f}; {:.1f} ms a step, {:.1f} % of it "
      "the optimizer\n",
      outcome.steps, s.steps, outcome.diverged ? ", diverged" : "", outcome.validation.loss,
      outcome.validation.accuracy, 1e3 * outcome.seconds / static_cast<double>(outcome.steps),
      100 * outcome.optimizer_seconds / outcome.seconds);
}

}  // namespace
}  // namespace experiments

int main(int argc, char** argv) {
  const experiments::Settings settings = experiments::parse_settings(argc, argv);
  try {
    if (settings.defaults) {
      fmt::print("{}", experiments::optimizer_defaults());
    } else {
      experiments::run(settings);
    }
  } catch (const c10::Error& e) {
    fmt::print(stderr, "experiment: {}\n", e.what_without_backtrace());
    return 1;
  } catch (const std::exception& e) {
    fmt::print(stderr, "experiment: {}\n", e.what());
    return 1;
  }
  return 0;
}
