// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// vit and resnet: the models of examples/models.
#pragma once

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/util/Exception.h>
#include <torch/nn/functional/loss.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "../examples/data/augmentation.hpp"
#include "../examples/data/images.hpp"
#include "../examples/models/resnet.hpp"
#include "../examples/models/vit.hpp"
#include "task.hpp"

namespace experiments {

/// @tparam Model VisionTransformer or ResNet
template <class Model>
class VisionTask : public Task {
 public:
  VisionTask(const Settings& s, vision::ImageData data, Model model)
      : data_(std::move(data)),
        model_(std::move(model)),
        batch_(s.batch),
        random_(at::detail::createCPUGenerator(static_cast<uint64_t>(s.seed))) {
    if (!s.test) hold_out_from_training(s.seed);
    const int64_t count = std::min(s.validation_examples, data_.test.labels.size(0));
    const at::Tensor evenly = at::arange(count).mul(data_.test.labels.size(0)).floor_divide(count);
    data_.test = part(data_.test, evenly);
  }

  torch::nn::Module& model() override { return *model_; }

  at::Tensor training_loss(Noise& noise, int64_t step) override {
    model_->train();
    const int64_t count = data_.train.labels.size(0);
    const vision::Images batch =
        part(data_.train, at::randint(count, {batch_}, random_, at::TensorOptions(at::kLong)));
    const at::Tensor logits = model_->forward(normalized(vision::augment(batch.pixels, random_)));
    return torch::nn::functional::cross_entropy(logits,
                                                noise.labels(batch.labels, vision::classes, step));
  }

  Evaluation evaluate() override {
    model_->eval();
    Evaluation sum;
    const int64_t count = data_.test.labels.size(0);
    for (int64_t start = 0; start < count; start += 256) {
      const at::Tensor labels = data_.test.labels.slice(0, start, start + 256);
      const at::Tensor logits =
          model_->forward(normalized(data_.test.pixels.slice(0, start, start + 256)));
      sum.loss += static_cast<double>(labels.size(0)) *
                  torch::nn::functional::cross_entropy(logits, labels).template item<double>();
      sum.accuracy += logits.argmax(1).eq(labels).sum().item().toDouble();
    }
    const auto images = static_cast<double>(count);
    return {sum.loss / images, sum.accuracy / images};
  }

  double trivial_loss() const override {
    return loss_of_frequencies(data_.train.labels, data_.test.labels, vision::classes);
  }

 private:
  static vision::Images part(const vision::Images& images, const at::Tensor& index) {
    return {images.pixels.index_select(0, index), images.labels.index_select(0, index)};
  }

  at::Tensor normalized(const at::Tensor& pixels) const {
    return vision::normalize(pixels, data_.mean, data_.deviation);
  }

  /// Every tenth training image, from number `seed` mod 10 on, takes the test set's place.
  void hold_out_from_training(int64_t seed) {
    const at::Tensor held_out = at::arange(data_.train.labels.size(0)).remainder(10).eq(seed % 10);
    data_.test = part(data_.train, held_out.nonzero().flatten());
    data_.train = part(data_.train, held_out.logical_not().nonzero().flatten());
  }

  vision::ImageData data_;
  Model model_;
  int64_t batch_;
  at::Generator random_;
};

inline std::unique_ptr<Task> make_vision_task(const Settings& s) {
  TORCH_CHECK(s.data.size() == 1, "expected --data with one folder of images, got ", s.data.size());
  vision::ImageData data = vision::read_images(s.data.front());
  const int64_t channels = data.train.pixels.size(1), size = data.train.pixels.size(2);
  if (s.task == "resnet") {
    vision::ResNet model(vision::ResNetOptions{channels, vision::classes, s.width, s.layers});
    return std::make_unique<VisionTask<vision::ResNet>>(s, std::move(data), model);
  }
  constexpr int64_t patch = 4;
  vision::VisionTransformer model(
      vision::VitOptions{size, channels, vision::classes, patch, s.width, s.layers, s.heads});
  return std::make_unique<VisionTask<vision::VisionTransformer>>(s, std::move(data), model);
}

}  // namespace experiments
