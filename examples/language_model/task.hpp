// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Learning a text, as the common training loop sees it.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>  // max
#include <cstdint>
#include <string>
#include <vector>

#include "../common/device.hpp"
#include "../common/run_options.hpp"
#include "../common/task.hpp"
#include "../data/text.hpp"
#include "../models/language_model.hpp"

namespace language_model {

class TextTask : public examples::Task {
 public:
  TextTask(const Corpus& corpus, const GptOptions& shape, at::ScalarType dtype,
           const examples::RunOptions& run)
      : gpt_(shape),
        device_(examples::find_device(run.device)),
        batches_(corpus.training, run.batch, shape.context, run.seed),
        validation_(fixed_batches(corpus.validation,
                                  std::max<int64_t>(1, validation_tokens / shape.context),
                                  run.batch, shape.context)) {
    gpt_->to(device_, dtype);
  }

  torch::nn::Module& model() override { return *gpt_; }
  Gpt& gpt() { return gpt_; }

  at::Tensor next_loss() override { return loss(batches_.next()); }

  examples::Evaluation evaluate() override {
    double sum = 0, count = 0;
    for (const Batch& batch : validation_) {
      const auto tokens = static_cast<double>(batch.target.numel());
      sum += tokens * loss(batch).item<double>();
      count += tokens;
    }
    return {sum / count, {}};
  }

  std::string batches_state() const override { return batches_.state(); }
  void set_batches_state(const std::string& state) override { batches_.set_state(state); }

 private:
  static constexpr int64_t validation_tokens = 32768;

  at::Tensor loss(const Batch& batch) {
    return gpt_->loss(batch.input.to(device_), batch.target.to(device_));
  }

  Gpt gpt_;
  at::Device device_;
  RandomBatches batches_;
  std::vector<Batch> validation_;
};

}  // namespace language_model
