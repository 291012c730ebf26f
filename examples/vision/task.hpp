// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Telling images apart, as the common training loop sees it.
#pragma once

#include <ATen/Functions.h>
#include <ATen/core/Tensor.h>
#include <torch/nn/functional/loss.h>

#include <cstdint>
#include <string>
#include <utility>

#include "../common/device.hpp"
#include "../common/run_options.hpp"
#include "../common/task.hpp"
#include "../data/augmentation.hpp"
#include "../data/images.hpp"
#include "batches.hpp"

namespace vision {

/// @tparam Model a module of images -> logits
template <class Model>
class ClassificationTask : public examples::Task {
 public:
  /// @param data must outlive the task
  ClassificationTask(Model model, const ImageData& data, bool augmented,
                     const examples::RunOptions& run)
      : model_(std::move(model)),
        device_(examples::find_device(run.device)),
        data_(data),
        batches_(data, run.batch, run.seed, augmented) {
    model_->to(device_);
  }

  torch::nn::Module& model() override { return *model_; }

  at::Tensor next_loss() override {
    const Images batch = batches_.next();
    const at::Tensor logits = model_->forward(batch.pixels.to(device_));
    return torch::nn::functional::cross_entropy(logits, batch.labels.to(device_));
  }

  /// On all test images.
  examples::Evaluation evaluate() override {
    constexpr int64_t at_once = 250;
    const int64_t count = data_.test.labels.size(0);
    double loss = 0, right = 0;
    for (int64_t first = 0; first < count; first += at_once) {
      const at::Tensor pixels = data_.test.pixels.slice(0, first, first + at_once);
      const at::Tensor labels = data_.test.labels.slice(0, first, first + at_once).to(device_);
      const at::Tensor logits =
          model_->forward(normalize(pixels, data_.mean, data_.deviation).to(device_));
      loss += torch::nn::functional::cross_entropy(logits, labels).template item<double>() *
              static_cast<double>(labels.size(0));
      right += logits.argmax(1).eq(labels).sum().template item<double>();
    }
    return {loss / static_cast<double>(count), right / static_cast<double>(count)};
  }

  std::string batches_state() const override { return std::to_string(batches_.position()); }
  void set_batches_state(const std::string& state) override { batches_.skip_to(std::stoll(state)); }

 private:
  Model model_;
  at::Device device_;
  const ImageData& data_;
  TrainingBatches batches_;
};

}  // namespace vision
