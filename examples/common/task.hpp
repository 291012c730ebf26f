// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <optional>
#include <string>

namespace examples {

/// Of a model on data that it is not trained on.
struct Evaluation {
  double loss = 0;
  std::optional<double> accuracy;  ///< share of right answers, of classifiers
};

/// What is trained: a model, its batches, and how it is judged. The loop (training.hpp) knows no more.
class Task {
 public:
  virtual ~Task() = default;
  virtual torch::nn::Module& model() = 0;
  /// The loss of the next training batch.
  virtual at::Tensor next_loss() = 0;
  /// Called without gradients and with the model in evaluation mode.
  virtual Evaluation evaluate() = 0;
  /// Where it is in the sequence of batches, as text; setting it goes on from there.
  virtual std::string batches_state() const = 0;
  virtual void set_batches_state(const std::string& state) = 0;
};

}  // namespace examples
