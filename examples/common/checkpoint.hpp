// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Where a program stands, in one file: the weights, the optimizer's state, how many steps are done,
// where the batches are, and the settings that decide the numbers. root_optim::save writes it, so
// that it is replaced as a whole and carries a digest.
#pragma once

#include <ATen/core/ivalue.h>
#include <c10/util/Exception.h>
#include <torch/nn/module.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize/archive.h>
#include <root_optim/checkpoint/checkpoint.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace examples {

/// Names and values of what decides the numbers of a run, in a stated order.
using Settings = std::vector<std::pair<std::string, std::string>>;

/// What a checkpoint holds beside weights and the optimizer's state.
struct Position {
  std::string optimizer;  ///< whose run it is in
  int64_t step = 0;       ///< steps of it that are done
  std::string batches;    ///< Task::batches_state
};

/// What root_optim::save and load see of a program.
class Checkpoint {
 public:
  /// @param model, optimizer null: `load` reads the position alone
  Checkpoint(Settings settings, Position position, torch::nn::Module* model,
             torch::optim::Optimizer* optimizer)
      : settings_(std::move(settings)),
        position_(std::move(position)),
        model_(model),
        optimizer_(optimizer) {}

  const Position& position() const { return position_; }

  void save(torch::serialize::OutputArchive& archive) const {
    archive.write("settings", c10::IValue(static_cast<int64_t>(settings_.size())));
    for (size_t i = 0; i < settings_.size(); ++i) {
      archive.write("name" + std::to_string(i), c10::IValue(settings_[i].first));
      archive.write("value" + std::to_string(i), c10::IValue(settings_[i].second));
    }
    archive.write("run", c10::IValue(position_.optimizer));
    archive.write("step", c10::IValue(position_.step));
    archive.write("batches", c10::IValue(position_.batches));
    torch::serialize::OutputArchive model(archive.compilation_unit());
    torch::serialize::OutputArchive optimizer(archive.compilation_unit());
    model_->save(model);
    optimizer_->save(optimizer);
    archive.write("model", model);
    archive.write("optimizer", optimizer);
  }

  /// @throws c10::Error if the file is of a run with other settings.
  void load(torch::serialize::InputArchive& archive) {
    c10::IValue value;
    const auto read = [&](const std::string& key) {
      TORCH_CHECK(archive.try_read(key, value), "expected a checkpoint of this program, got '", key,
                  "' missing");
      return value;
    };
    const auto count = static_cast<size_t>(read("settings").toInt());
    TORCH_CHECK(count == settings_.size(), "expected a checkpoint with ", settings_.size(),
                " settings, got ", count);
    for (size_t i = 0; i < count; ++i) {
      const std::string name = read("name" + std::to_string(i)).toStringRef();
      const std::string stored = read("value" + std::to_string(i)).toStringRef();
      TORCH_CHECK(name == settings_[i].first && stored == settings_[i].second, "expected ", name,
                  " = ", stored, " as in the run that wrote the checkpoint, got ",
                  settings_[i].first, " = ", settings_[i].second);
    }
    position_ = {read("run").toStringRef(), read("step").toInt(), read("batches").toStringRef()};
    if (model_ == nullptr) return;
    torch::serialize::InputArchive model, optimizer;
    archive.read("model", model);
    archive.read("optimizer", optimizer);
    model_->load(model);
    optimizer_->load(optimizer);
  }

 private:
  Settings settings_;
  Position position_;
  torch::nn::Module* model_;
  torch::optim::Optimizer* optimizer_;
};

}  // namespace examples
