// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What the two vision programs have in common: all but their model and its options.
#pragma once

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include <algorithm>  // max
#include <cmath>      // llround
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "../common/comparison.hpp"
#include "../common/run_options.hpp"
#include "../data/images.hpp"
#include "task.hpp"

namespace vision {

struct Options {
  examples::RunOptions run;
  std::string data;
  double epochs = 5;
  bool augment = true;
};

/// Adds the options that both programs have; those of the model are added by the caller.
inline void add_options(CLI::App& app, Options& o) {
  app.add_option("--data", o.data,
                 "Where CIFAR-10 is (binary version: data_batch_1.bin ...) or Fashion-MNIST (IDX: "
                 "train-images-idx3-ubyte ...)")
      ->type_name("DIR")
      ->group("Data");
  app.add_flag("--augment,!--no-augment", o.augment,
               "Move and mirror the training images at random (default: yes)")
      ->group("Data");
  examples::add_run_options(app, o.run, "Images");
  app.get_option("--steps")->default_str("from --epochs");
  app.add_option("--epochs", o.epochs, "Passes over the training images, instead of --steps")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->excludes("--steps")
      ->group("Training");
}

/// Trains and prints.
/// @param model      what it is, for the first lines
/// @param settings   the model's options, which a resumed run must have too
/// @param make_model from the images' channels and side
template <class MakeModel>
void run(Options& options, const std::string& model, examples::Settings settings,
         const MakeModel& make_model) {
  TORCH_CHECK(!options.data.empty(), "expected --data DIR, got none: ", how_to_get_images);
  const ImageData data = read_images(options.data);
  const int64_t images = data.train.labels.size(0);
  const int64_t channels = data.train.pixels.size(1), side = data.train.pixels.size(2);
  examples::RunOptions& run = options.run;
  if (run.steps == 0) {
    const double steps = options.epochs * static_cast<double>(images / run.batch);
    run.steps = std::max<int64_t>(1, std::llround(steps));
  }

  settings.emplace_back("training images", std::to_string(images));
  settings.emplace_back("--augment", options.augment ? "yes" : "no");
  examples::Comparison comparison;
  comparison.data = fmt::format("images of {} x {} x {}: {} to train on, {} to test with", channels,
                                side, data.train.pixels.size(3), images, data.test.labels.size(0));
  comparison.model = model;
  comparison.batch = fmt::format("{} images", run.batch);
  comparison.unit = "images";
  comparison.units_per_step = run.batch;
  comparison.accuracy = true;
  comparison.settings = std::move(settings);
  comparison.make_task = [&]() -> std::unique_ptr<examples::Task> {
    auto made = make_model(channels, side);
    return std::make_unique<ClassificationTask<decltype(made)>>(std::move(made), data,
                                                                options.augment, run);
  };
  examples::compare(run, comparison);
}

}  // namespace vision
