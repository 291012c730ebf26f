// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The language model of ../../language_model, trained by several processes that share the optimizer: each
// has its part of every batch, and steps its part of the parameters.
//
//   export MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 WORLD_SIZE=2
//   for RANK in 0 1; do RANK=$RANK distributed_language_model & done; wait
//
//   torchrun --no-python --nproc-per-node 2 distributed_language_model
//   mpirun -n 2 -x MASTER_ADDR=127.0.0.1 distributed_language_model
//
// With --resume it goes on from its checkpoint, with as many ranks as you like.
#include <ATen/Parallel.h>  // set_num_threads
#include <fmt/format.h>
#include <torch/utils.h>  // manual_seed
#include <root_optim/checkpoint/checkpoint.hpp>
#include <root_optim/distributed.hpp>
#include <root_optim/root.hpp>
#include <root_optim/schedules/lr_scheduler.hpp>

#include <algorithm>  // min
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "../../common/checkpoint.hpp"
#include "../../common/comparison.hpp"  // exit_code_of
#include "../../common/optimizers.hpp"
#include "../../data/text.hpp"
#include "../../language_model/text_source.hpp"
#include "../../models/language_model.hpp"
#include "../process_group.hpp"
#include "options.hpp"

namespace language_model {
namespace {

/// This rank's windows of a batch that all ranks draw alike: the batch is the same for any number of them.
Batch own_part(const Batch& batch, const examples::LaunchedRank& ranks) {
  const int64_t part = batch.input.size(0) / ranks.size;
  return {batch.input.narrow(0, part * ranks.rank, part),
          batch.target.narrow(0, part * ranks.rank, part)};
}

/// The mean over the ranks. Collective.
double mean(const at::Tensor& loss, c10d::ProcessGroup& group) {
  std::vector<at::Tensor> sum{loss.detach().clone()};
  group.allreduce(sum)->wait();
  return sum[0].item<double>() / group.getSize();
}

double validation_loss(Gpt& gpt, const Corpus& corpus, const DistributedRun& options) {
  const torch::NoGradGuard no_grad;
  double sum = 0, count = 0;
  for (const Batch& batch :
       fixed_batches(corpus.validation, 256, options.batch, options.model.context)) {
    const auto tokens = static_cast<double>(batch.target.numel());
    sum += tokens * gpt->loss(batch.input, batch.target).item<double>();
    count += tokens;
  }
  return sum / count;
}

void run(const DistributedRun& options) {
  at::set_num_threads(options.threads);
  const examples::LaunchedRank ranks = examples::launched_rank();
  TORCH_CHECK(options.batch % ranks.size == 0, "--batch: expected a multiple of ", ranks.size,
              " ranks, got ", options.batch);
  const bool first = ranks.rank == 0;  // it speaks and saves for all
  const Corpus corpus = split_text(read_text(options.text, options.text_dirs), options.seed);

  torch::manual_seed(static_cast<uint64_t>(options.seed));  // the same weights on every rank
  Gpt gpt(options.model);
  const auto root = root_optim::RootOptions(options.lr).weight_decay(examples::weight_decay);
  root_optim::Root optimizer(examples::routed(*gpt, root).groups(), root);
  root_optim::LrScheduler scheduler(optimizer, examples::make_schedule({}, options.steps));
  RandomBatches batches(corpus.training, options.batch, options.model.context, options.seed);

  const std::string file = (fs::path(options.out) / "checkpoint.pt").string();
  int64_t step = 0;
  if (options.resume) {  // every rank reads the whole file, and `distribute` leaves it its part
    examples::Checkpoint saved(options.settings(), {}, &*gpt, &optimizer);
    root_optim::load(saved, file);
    step = saved.position().step;
    scheduler.set_step(step);
    batches.set_state(saved.position().batches);
  }

  const auto group = examples::make_process_group(ranks, std::chrono::seconds(options.timeout));
  root_optim::distribute(optimizer, group);
  // From the first gradient of backward() to reduce() nothing else here uses the group, as overlap demands.
  root_optim::GradientReducer reducer(
      gpt->parameters(), group,
      root_optim::ReducerOptions().overlap(options.overlap).bucket_bytes(int64_t{1} << 20));
  if (first) {
    fs::create_directories(options.out);
    int64_t parameters = 0;
    for (const at::Tensor& p : gpt->parameters()) parameters += p.numel();
    fmt::print("{} ranks of {} threads, {} parameters, steps {} to {}\n", ranks.size,
               options.threads, parameters, step + 1, options.steps);
  }

  const int64_t last =
      options.stop_after > 0 ? std::min(options.stop_after, options.steps) : options.steps;
  const int64_t report_every = std::max<int64_t>(options.steps / 10, 1);
  while (step < last) {
    optimizer.zero_grad();
    const Batch batch = own_part(batches.next(), ranks);
    const at::Tensor loss = gpt->loss(batch.input, batch.target);
    loss.backward();
    reducer.reduce();
    if (options.clip > 0) reducer.clip_norm(options.clip);
    optimizer.step();
    scheduler.step();

    ++step;
    if (step % report_every == 0) {
      const double loss_of_all = mean(loss, *group);
      if (first) fmt::print("step {:>6}: loss {:.4f}\n", step, loss_of_all);
      std::fflush(stdout);
    }
    const bool due = options.checkpoint_every > 0 && step % options.checkpoint_every == 0;
    if (!due && step != last) continue;
    root_optim::consolidate(optimizer, 0);
    if (first) {
      const examples::Position position{"root", step, batches.state()};
      root_optim::save(examples::Checkpoint(options.settings(), position, &*gpt, &optimizer), file);
    }
  }
  if (first)
    fmt::print("validation loss {:.4f}\n{}\n", validation_loss(gpt, corpus, options), file);
}

}  // namespace
}  // namespace language_model

int main(int argc, char** argv) {
  const auto options = language_model::parse_distributed_run(argc, argv);
  return examples::exit_code_of("distributed_language_model",
                                [&] { language_model::run(options); });
}
