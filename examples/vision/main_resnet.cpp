// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A small residual network on CIFAR-10 or Fashion-MNIST, trained with ROOT and compared with Muon and
// AdamW.
//
//   resnet --data DIR --demo   AdamW, Muon and ROOT from the same weights and batches
//   resnet --data DIR          ROOT alone
//   resnet --help              all options
//
// ../common/plot.py draws the losses.csv that it writes.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include <cstdint>
#include <string>

#include "../common/comparison.hpp"
#include "../models/resnet.hpp"
#include "program.hpp"

int main(int argc, char** argv) {
  vision::Options options;
  vision::ResNetOptions shape;
  options.run.out = "build/resnet";
  options.run.batch = 64;
  options.run.evaluations = 5;
  options.run.lr = {{"adamw", 2e-3}, {"muon", 8e-3}, {"root", 8e-3}};

  CLI::App app{
      "Trains a residual network on CIFAR-10 or Fashion-MNIST with ROOT, or with several "
      "optimizers\n"
      "from the same initial weights and on the same batches, and writes DIR/losses.csv."};
  app.name("resnet");
  app.add_option("--width", shape.width, "Channels of the first stage; the others have 2x and 4x")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group("Model");
  app.add_option("--blocks", shape.blocks, "Residual blocks in each of the three stages")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group("Model");
  vision::add_options(app, options);
  examples::parse_or_exit(app, options.run, argc, argv);

  return examples::exit_code_of("resnet", [&] {
    vision::run(
        options, fmt::format("3 stages of {} blocks, width {}", shape.blocks, shape.width),
        {{"--width", std::to_string(shape.width)}, {"--blocks", std::to_string(shape.blocks)}},
        [&](int64_t channels, int64_t /*side*/) {
          shape.channels = channels;
          return vision::ResNet(shape);
        });
  });
}
