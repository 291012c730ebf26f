// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A byte-level GPT language model, trained with ROOT and compared with Muon and AdamW.
//
//   language_model --demo                  AdamW, Muon and ROOT from the same weights and batches
//   language_model --text book.txt         ROOT alone, on a text of yours
//   language_model --help                  all options
//
// ../common/plot.py draws the losses.csv that it writes.
#include <fmt/format.h>
#include <torch/utils.h>  // manual_seed

#include <cstdint>
#include <memory>
#include <string>

#include "../common/comparison.hpp"
#include "../data/text.hpp"
#include "../models/language_model.hpp"
#include "options.hpp"
#include "sampling.hpp"
#include "task.hpp"
#include "text_source.hpp"

namespace language_model {
namespace {

void run(const Options& options) {
  const Corpus corpus = split_text(read_text(options.text, options.text_dirs), options.run.seed);
  const GptOptions& shape = options.model;
  const auto dtype = options.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;

  examples::Comparison comparison;
  comparison.data = fmt::format("text: {:.1f} MB to train on, {:.1f} MB held out",
                                static_cast<double>(corpus.training.numel()) / 1e6,
                                static_cast<double>(corpus.validation.numel()) / 1e6);
  comparison.model = fmt::format("{} layers of width {}, {} heads, context {}", shape.layers,
                                 shape.width, shape.heads, shape.context);
  comparison.batch = fmt::format("{} x {} bytes", options.run.batch, shape.context);
  comparison.unit = "tokens";
  comparison.units_per_step = options.run.batch * shape.context;
  comparison.settings = {{"bytes of text", std::to_string(corpus.training.numel())},
                         {"--width", std::to_string(shape.width)},
                         {"--layers", std::to_string(shape.layers)},
                         {"--heads", std::to_string(shape.heads)},
                         {"--context", std::to_string(shape.context)},
                         {"--dtype", options.dtype}};
  comparison.make_task = [&] {
    return std::make_unique<TextTask>(corpus, shape, dtype, options.run);
  };
  const auto task = examples::compare(options.run, comparison);

  if (options.sample_length > 0) {
    torch::manual_seed(static_cast<uint64_t>(options.run.seed));  // the same in a resumed run
    Gpt& model = static_cast<TextTask&>(*task).gpt();
    const std::string sample = generate(model, options.prompt, options.sample_length, 0.8);
    fmt::print("\n--- a sample of the model trained with {} ---\n{}\n",
               options.run.optimizers.back(), printable(sample));
  }
}

}  // namespace
}  // namespace language_model

int main(int argc, char** argv) {
  const auto options = language_model::parse_options(argc, argv);
  return examples::exit_code_of("language_model", [&] { language_model::run(options); });
}
