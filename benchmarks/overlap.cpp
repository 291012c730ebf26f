// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// One rank of overlap.py: a training of the demo's language model, whose gradients travel behind backward() and, in
// every other step, during it. Prints one line of JSON: medians over steps. scripts/bench.sh overlap runs it.
#include <fmt/format.h>
#include <torch/torch.h>
#include <root_optim/distributed.hpp>
#include <root_optim/root.hpp>

#include <CLI/CLI.hpp>
#include <array>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <string>
#include <vector>

#include "../examples/common/optimizers.hpp"
#include "../examples/distributed/process_group.hpp"
#include "../examples/models/language_model.hpp"
#include "timing.hpp"

namespace {

using benchmarks::median;
using benchmarks::milliseconds;

/// Of each step: milliseconds, and those of all threads' CPU time, Gloo's too.
struct Times {
  std::vector<double> backward, reduce, both, whole, cpu;
};

std::string json(const Times& times) {
  return fmt::format(
      "{{\"backward\": {}, \"reduce\": {}, \"both\": {}, \"whole\": {}, \"cpu\": {}}}",
      median(times.backward), median(times.reduce), median(times.both), median(times.whole),
      median(times.cpu));
}

}  // namespace

int main(int argc, char** argv) {
  language_model::GptOptions model;
  int64_t steps = 40, batch = 12, bucket_bytes = int64_t{1} << 20;
  CLI::App app{"One rank of the benchmark \"overlap\""};
  app.add_option("--width", model.width, "Of the model")->capture_default_str();
  app.add_option("--layers", model.layers, "Of the model")->capture_default_str();
  app.add_option("--batch", batch, "Windows of each rank")->capture_default_str();
  app.add_option("--bucket-bytes", bucket_bytes, "Of both reducers")->capture_default_str();
  app.add_option("--steps", steps, "Of each kind that are measured")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  at::set_num_threads(1);
  torch::manual_seed(1);
  language_model::Gpt gpt(model);
  root_optim::Root optimizer(examples::routed(*gpt, root_optim::RootOptions()).groups());
  const examples::LaunchedRank launched = examples::launched_rank();
  const auto group = examples::make_process_group(launched, std::chrono::minutes(2));
  root_optim::distribute(optimizer, group);
  const auto options = root_optim::ReducerOptions().bucket_bytes(bucket_bytes);
  root_optim::GradientReducer behind(gpt->parameters(), group, options);
  root_optim::GradientReducer during(gpt->parameters(), group,
                                     root_optim::ReducerOptions(options).overlap(true));
  double bytes = 0;
  for (const at::Tensor& parameter : gpt->parameters()) {
    bytes += static_cast<double>(parameter.nbytes());
  }

  std::array<Times, 2> times;  // behind, during
  for (int64_t step = 0; step < 2 * (steps + 1); ++step) {
    const bool overlap = step % 2 != 0;
    const at::Tensor input = at::randint(language_model::vocabulary, {batch, model.context});
    std::vector<at::Tensor> barrier{at::zeros({1})};
    group->allreduce(barrier)->wait();
    const double cpu = milliseconds(CLOCK_PROCESS_CPUTIME_ID);
    const double start = milliseconds(CLOCK_MONOTONIC);
    optimizer.zero_grad();
    const at::Tensor loss = gpt->loss(input, input.roll(-1, 1));
    const double forward = milliseconds(CLOCK_MONOTONIC);
    if (overlap) {
      loss.backward();
    } else {
      const auto only_add = during.no_sync();
      loss.backward();
    }
    const double backward = milliseconds(CLOCK_MONOTONIC);
    (overlap ? during : behind).reduce();
    const double reduced = milliseconds(CLOCK_MONOTONIC);
    optimizer.step();
    const double end = milliseconds(CLOCK_MONOTONIC);
    if (step < 2) continue;  // brings state into being
    Times& one = times[overlap ? 1 : 0];
    one.backward.push_back(backward - forward);
    one.reduce.push_back(reduced - backward);
    one.both.push_back(reduced - forward);
    one.whole.push_back(end - start);
    one.cpu.push_back(milliseconds(CLOCK_PROCESS_CPUTIME_ID) - cpu);
  }
  fmt::print("{{\"bytes\": {}, \"behind\": {}, \"during\": {}}}\n", bytes, json(times[0]),
             json(times[1]));
}
