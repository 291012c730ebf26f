// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The command line.
#pragma once

#include <CLI/CLI.hpp>

#include <cstdint>
#include <string>
#include <vector>

#include "../common/run_options.hpp"
#include "../models/language_model.hpp"

namespace language_model {

struct Options {
  examples::RunOptions run;
  std::string text;                    ///< a file; empty: text_dirs
  std::vector<std::string> text_dirs;  ///< empty: the LibTorch headers
  std::string prompt = "\n";
  int64_t sample_length = 600;
  GptOptions model;
  std::string dtype = "float32";  ///< of the parameters: "float32" or "bfloat16"
};

/// Adds the model's shape to a command line, with the values in `model` as defaults.
inline void add_model_options(CLI::App& app, GptOptions& model) {
  const std::string group = "Model";
  app.add_option("--width", model.width, "Size of the residual stream")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--layers", model.layers, "Transformer blocks")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--heads", model.heads, "Attention heads; must divide the width")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--context", model.context, "Bytes that the model looks at")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
}

/// Ends the program for --help and for a command line that is not understood.
inline Options parse_options(int argc, char** argv) {
  Options o;
  o.run.out = "build/demo";
  o.run.steps = 1000;
  o.run.batch = 16;
  o.run.lr = {{"adamw", 4e-3}, {"muon", 16e-3}, {"root", 16e-3}};  // docs/learning-rates.md

  CLI::App app{
      "Trains a byte-level GPT on text with ROOT, or with several optimizers from the same\n"
      "initial weights and on the same batches, and writes DIR/losses.csv."};
  app.name("language_model");

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

  add_model_options(app, o.model);
  app.add_option("--dtype", o.dtype, "Of the parameters")
      ->check(CLI::IsMember({"float32", "bfloat16"}))
      ->capture_default_str()
      ->group("Model");

  examples::add_run_options(app, o.run, "Windows of --context bytes");
  examples::parse_or_exit(app, o.run, argc, argv);
  return o;
}

}  // namespace language_model
