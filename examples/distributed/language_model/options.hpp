// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The command line: the same on every rank.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include <cstdint>
#include <cstdlib>  // exit
#include <string>
#include <vector>

#include "../../common/checkpoint.hpp"  // Settings
#include "../../language_model/options.hpp"

namespace language_model {

struct DistributedRun {
  std::string text;
  std::vector<std::string> text_dirs;
  GptOptions model;
  int64_t steps = 1000;
  int64_t batch = 24;  ///< of all ranks together
  double lr = 16e-3;   // docs/learning-rates.md
  double clip = 0;
  int64_t seed = 1;
  int threads = 1;
  int64_t timeout = 60;  ///< in seconds
  std::string out = "build/distributed";
  int64_t checkpoint_every = 200;
  int64_t stop_after = 0;
  bool overlap = false;
  bool resume = false;

  /// What decides the losses, but for the number of ranks and of threads: a resumed run must have the same.
  examples::Settings settings() const {
    return {{"--steps", std::to_string(steps)},
            {"--batch", std::to_string(batch)},
            {"--lr", fmt::format("{:g}", lr)},
            {"--clip", fmt::format("{:g}", clip)},
            {"--seed", std::to_string(seed)},
            {"--width", std::to_string(model.width)},
            {"--layers", std::to_string(model.layers)},
            {"--heads", std::to_string(model.heads)},
            {"--context", std::to_string(model.context)}};
  }
};

/// Ends the program for --help and for a command line that is not understood.
inline DistributedRun parse_distributed_run(int argc, char** argv) {
  DistributedRun o;
  CLI::App app{
      "Trains a byte-level GPT on text with ROOT, whose steps the started processes share. A "
      "shell,\n"
      "torchrun --no-python or mpirun starts them, with RANK, WORLD_SIZE, MASTER_ADDR and "
      "MASTER_PORT."};
  app.name("distributed_language_model");
  app.add_option("--text", o.text, "Text to learn (default: the LibTorch headers, a code model)")
      ->type_name("FILE")
      ->check(CLI::ExistingFile);
  app.add_option("--text-dir", o.text_dirs,
                 "Learn the C++ sources and texts below this directory; may be repeated")
      ->type_name("DIR")
      ->check(CLI::ExistingDirectory)
      ->take_all();
  add_model_options(app, o.model);
  const auto number = [&app](const std::string& name, auto& value, const std::string& what,
                             const CLI::Validator& check) {
    app.add_option(name, value, what)->check(check)->capture_default_str();
  };
  number("--steps", o.steps, "Optimizer steps; one batch each", CLI::PositiveNumber);
  number("--batch", o.batch, "Windows of --context bytes per batch, of all ranks together",
         CLI::PositiveNumber);
  number("--lr", o.lr, "Highest learning rate", CLI::PositiveNumber);
  number("--clip", o.clip, "Scale all gradients together down to this norm; 0: never",
         CLI::NonNegativeNumber);
  number("--seed", o.seed, "Decides all that is random", CLI::NonNegativeNumber);
  number("--threads", o.threads, "CPU threads of each rank", CLI::PositiveNumber);
  number("--timeout", o.timeout, "Seconds that a rank waits for others", CLI::PositiveNumber);
  app.add_option("--out", o.out, "Directory for the checkpoint, the same folder for all ranks")
      ->type_name("DIR")
      ->capture_default_str();
  number("--checkpoint-every", o.checkpoint_every, "Steps between two; 0: only at the end",
         CLI::NonNegativeNumber);
  number("--stop-after", o.stop_after, "End after this step, with a checkpoint; 0: at the end",
         CLI::NonNegativeNumber);
  app.add_flag("--overlap", o.overlap,
               "Average gradients while backward() runs: pays over a network, less on one machine");
  app.add_flag("--resume", o.resume,
               "Go on from the checkpoint, with any number of ranks; other options as before");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    std::exit(app.exit(e));
  }
  return o;
}

}  // namespace language_model
