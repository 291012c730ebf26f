// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What a run trains: a model, its batches and its validation set.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>

#include "noise.hpp"
#include "settings.hpp"

namespace experiments {

struct Evaluation {
  double loss = 0;
  double accuracy = 0;  ///< share of the labels (lm: next bytes) that were the most probable ones
};

class Task {
 public:
  virtual ~Task() = default;
  virtual torch::nn::Module& model() = 0;
  /// The loss of the next batch, whose labels may be spoiled.
  virtual at::Tensor training_loss(Noise& noise, int64_t step) = 0;
  virtual Evaluation evaluate() = 0;
  /// The validation loss of a model that knows nothing but how frequent each label is.
  virtual double trivial_loss() const = 0;
};

/// The mean cross-entropy of held-out labels under the frequencies of training labels, none of which counts as 0.
double loss_of_frequencies(const at::Tensor& training, const at::Tensor& held_out, int64_t classes);

/// The task of the settings, with weights drawn from LibTorch's generator.
std::unique_ptr<Task> make_task(const Settings& settings);

}  // namespace experiments
