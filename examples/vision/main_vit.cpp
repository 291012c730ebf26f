// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A small vision transformer on CIFAR-10 or Fashion-MNIST, trained with ROOT and compared with Muon
// and AdamW.
//
//   vision_transformer --data DIR --demo   AdamW, Muon and ROOT from the same weights and batches
//   vision_transformer --data DIR          ROOT alone
//   vision_transformer --help              all options
//
// ../common/plot.py draws the losses.csv that it writes.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include <cstdint>
#include <string>

#include "../common/comparison.hpp"
#include "../models/vit.hpp"
#include "program.hpp"

int main(int argc, char** argv) {
  vision::Options options;
  vision::VitOptions shape;
  options.run.out = "build/vision_transformer";
  options.run.batch = 32;
  options.run.evaluations = 5;
  options.run.lr = {{"adamw", 1e-3}, {"muon", 4e-3}, {"root", 4e-3}};

  CLI::App app{
      "Trains a vision transformer on CIFAR-10 or Fashion-MNIST with ROOT, or with several\n"
      "optimizers from the same initial weights and on the same batches, and writes "
      "DIR/losses.csv."};
  app.name("vision_transformer");
  const auto add_size = [&](const char* name, int64_t& value, const char* description) {
    app.add_option(name, value, description)
        ->check(CLI::PositiveNumber)
        ->capture_default_str()
        ->group("Model");
  };
  add_size("--patch", shape.patch, "Side of a patch in pixels; must divide the image's side");
  add_size("--width", shape.width, "Size of the residual stream");
  add_size("--layers", shape.layers, "Transformer blocks");
  add_size("--heads", shape.heads, "Attention heads; must divide the width");
  vision::add_options(app, options);
  examples::parse_or_exit(app, options.run, argc, argv);

  return examples::exit_code_of("vision_transformer", [&] {
    vision::run(options,
                fmt::format("{} layers of width {}, {} heads, patches of {} x {}", shape.layers,
                            shape.width, shape.heads, shape.patch, shape.patch),
                {{"--patch", std::to_string(shape.patch)},
                 {"--width", std::to_string(shape.width)},
                 {"--layers", std::to_string(shape.layers)},
                 {"--heads", std::to_string(shape.heads)}},
                [&](int64_t channels, int64_t side) {
                  shape.channels = channels;
                  shape.image_size = side;
                  return vision::VisionTransformer(shape);
                });
  });
}
