// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A byte-level GPT language model, trained with ROOT and compared with Muon and AdamW.
//
//   language_model --demo                  AdamW, Muon and ROOT from the same weights and batches
//   language_model --text book.txt         ROOT alone, on a text of yours
//   language_model --help                  all options
//
// plot.py draws the losses.csv that it writes.
#include <ATen/Parallel.h>  // set_num_threads
#include <fmt/format.h>
#include <torch/utils.h>  // manual_seed

#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <vector>

#include "calibration.hpp"
#include "data.hpp"
#include "model.hpp"
#include "optimizers.hpp"
#include "options.hpp"
#include "report.hpp"
#include "sampling.hpp"
#include "training.hpp"

namespace language_model {
namespace {

std::string read_text(const Options& options) {
  if (!options.text.empty()) return read_file(options.text);
  std::vector<fs::path> directories(options.text_dirs.begin(), options.text_dirs.end());
  if (directories.empty()) {
    const fs::path include = LANGUAGE_MODEL_TEXT_DIR;
    TORCH_CHECK(fs::is_directory(include / "c10"), "no LibTorch headers in \"", include.string(),
                "\" to learn from: give a text with --text FILE or --text-dir DIR");
    directories = {include / "ATen", include / "c10", include / "torch"};
  }
  return read_directories(directories);
}

void run(const Options& options) {
  if (options.threads > 0) at::set_num_threads(options.threads);
  fs::create_directories(options.out);
  const fs::path csv_path = fs::path(options.out) / "losses.csv";
  LossesCsv csv(csv_path);

  const Corpus corpus = split_text(read_text(options), options.training.seed);
  const GptOptions& shape = options.model;
  const int64_t tokens_per_step = options.training.batch * shape.context;

  std::vector<Summary> summaries;
  Gpt model{nullptr};
  for (const std::string& name : options.optimizers) {
    torch::manual_seed(static_cast<uint64_t>(options.training.seed));  // the same initial weights
    model = Gpt(shape);
    TrainingOptions training = options.training;
    training.lr = options.lr.at(name);
    const auto optimizer = make_optimizer(name, model, training.lr);

    if (summaries.empty()) {
      int64_t parameters = 0;
      for (const at::Tensor& p : model->parameters()) parameters += p.numel();
      fmt::print(
          "text: {:.1f} MB to train on, {:.1f} MB held out\n"
          "model: {} layers of width {}, {} heads, context {}: {} parameters\n"
          "each run: {} steps of {} x {} bytes, {} threads\n\n",
          static_cast<double>(corpus.training.numel()) / 1e6,
          static_cast<double>(corpus.validation.numel()) / 1e6, shape.layers, shape.width,
          shape.heads, shape.context, parameters, training.steps, training.batch, shape.context,
          at::get_num_threads());
      std::fflush(stdout);
    }

    std::vector<StepRecord> records;
    Calibration calibration(*optimizer, options.calibrate);
    ProgressLine progress(fmt::format("{:<5}", name), training.steps, tokens_per_step);
    train(
        model, *optimizer, corpus, training,
        [&](const StepRecord& record) {
          records.push_back(record);
          csv.write(name, record);
          progress.show(record);
        },
        [&calibration] { calibration.step(); });
    calibration.report(records.back().seconds);
    summaries.push_back(summarize(name, training.lr, records));
  }

  print_table(summaries);
  fmt::print("\nlosses of every step: {}\n", csv_path.string());
  if (options.sample_length > 0) {
    const std::string sample = generate(model, options.prompt, options.sample_length, 0.8);
    fmt::print("\n--- a sample of the model trained with {} ---\n{}\n", options.optimizers.back(),
               printable(sample));
  }
}

}  // namespace
}  // namespace language_model

int main(int argc, char** argv) {
  const auto options = language_model::parse_options(argc, argv);
  try {
    language_model::run(options);
  } catch (const c10::Error& e) {
    fmt::print(stderr, "language_model: {}\n", e.what_without_backtrace());
    return 1;
  } catch (const std::exception& e) {
    fmt::print(stderr, "language_model: {}\n", e.what());
    return 1;
  }
  return 0;
}
