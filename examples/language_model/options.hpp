// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The command line.
#pragma once

#include <root_optim/calibrator.hpp>  // CalibratorOptions

#include <CLI/CLI.hpp>

#include <algorithm>  // find
#include <cstdint>
#include <cstdlib>  // exit
#include <map>
#include <string>
#include <vector>

#include "model.hpp"
#include "training.hpp"

namespace language_model {

/// Where the LibTorch headers are, the default text; the build sets it.
#ifndef LANGUAGE_MODEL_TEXT_DIR
#define LANGUAGE_MODEL_TEXT_DIR ""
#endif

struct Options {
  bool demo = false;
  std::string text;                    ///< a file; empty: text_dirs
  std::vector<std::string> text_dirs;  ///< empty: the LibTorch headers
  std::string out = "build/demo";
  std::string prompt = "\n";
  int64_t sample_length = 600;
  int threads = 0;
  GptOptions model;
  TrainingOptions training;
  int64_t calibrate = 0;  ///< steps between two calibrations of root; 0: never
  std::vector<std::string> optimizers;
  std::map<std::string, double> lr{
      {"adamw", 4e-3}, {"muon", 16e-3}, {"root", 16e-3}};  // docs/learning-rates.md
};

/// Ends the program for --help and for a command line that is not understood.
inline Options parse_options(int argc, char** argv) {
  Options o;
  o.training.steps = 1000;
  o.training.batch = 16;
  o.training.seed = 1;
  o.training.validation_tokens = 32768;

  CLI::App app{
      "Trains a byte-level GPT on text with ROOT, or with several optimizers from the same\n"
      "initial weights and on the same batches, and writes DIR/losses.csv."};
  app.name("language_model");
  const auto positive = CLI::PositiveNumber;

  app.add_flag("--demo", o.demo, "Train with adamw, muon and root, one after the other");
  app.add_option("--optimizer", o.optimizers,
                 "Train with this one; may be repeated (default: root)")
      ->check(CLI::IsMember({"adamw", "muon", "root"}))
      ->take_all();
  app.add_option(
         "--calibrate", o.calibrate,
         "Redesign root's coefficients every N steps from the momentum it meets, and report "
         "what that costs; 0: never")
      ->expected(0, 1)
      ->default_str(std::to_string(root_optim::CalibratorOptions().every))
      ->check(CLI::NonNegativeNumber);
  app.add_option("--out", o.out, "Directory for losses.csv")
      ->type_name("DIR")
      ->capture_default_str();

  const std::string text = "Text";
  app.add_option("--text", o.text, "Text to learn (default: the LibTorch headers, a code model)")
      ->type_name("FILE")
      ->check(CLI::ExistingFile)
      ->group(text);
  app.add_option("--text-dir", o.text_dirs,
                 "Learn the C++ sources and texts below this directory; may be repeated")
      ->type_name("DIR")
      ->check(CLI::ExistingDirectory)
      ->take_all()
      ->group(text);
  app.add_option("--prompt", o.prompt, "Start of the generated sample (default: a line break)")
      ->group(text);
  app.add_option("--sample", o.sample_length, "Bytes to generate at the end; 0: none")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(text);

  const std::string model = "Model";
  app.add_option("--width", o.model.width, "Size of the residual stream")
      ->check(positive)
      ->capture_default_str()
      ->group(model);
  app.add_option("--layers", o.model.layers, "Transformer blocks")
      ->check(positive)
      ->capture_default_str()
      ->group(model);
  app.add_option("--heads", o.model.heads, "Attention heads; must divide the width")
      ->check(positive)
      ->capture_default_str()
      ->group(model);
  app.add_option("--context", o.model.context, "Bytes that the model looks at")
      ->check(positive)
      ->capture_default_str()
      ->group(model);

  const std::string training = "Training";
  app.add_option("--steps", o.training.steps, "Optimizer steps; one batch each")
      ->check(positive)
      ->capture_default_str()
      ->group(training);
  app.add_option("--batch", o.training.batch, "Windows of --context bytes per batch")
      ->check(positive)
      ->capture_default_str()
      ->group(training);
  for (auto& [name, lr] : o.lr) {
    app.add_option("--lr-" + name, lr,
                   "Highest learning rate of " + name + "; 5% of warm-up, then linear decay to 0")
        ->check(positive)
        ->capture_default_str()
        ->group(training);
  }
  app.add_option("--evaluations", o.training.evaluations,
                 "Times that the validation loss is computed, the last one at the end")
      ->check(positive)
      ->capture_default_str()
      ->group(training);
  app.add_option("--seed", o.training.seed,
                 "Decides the initial weights, the batches and which tenth of the text is held out")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(training);
  app.add_option("--threads", o.threads, "CPU threads; 0: as many as LibTorch chooses")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(training);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    std::exit(app.exit(e));
  }

  if (o.optimizers.empty()) {
    o.optimizers = o.demo ? std::vector<std::string>{"adamw", "muon", "root"}
                          : std::vector<std::string>{"root"};
  }
  return o;
}

}  // namespace language_model
