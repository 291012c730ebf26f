// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// lm: the byte-level GPT of examples/language_model.
#pragma once

#include <ATen/ATen.h>
#include <torch/nn/functional/loss.h>
#include <torch/serialize/input-archive.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "../examples/data/text.hpp"
#include "../examples/models/language_model.hpp"
#include "adapters.hpp"
#include "task.hpp"

namespace experiments {

inline std::string read_texts(const Settings& s) {
  namespace lm = language_model;
  if (s.data.empty()) {
    const lm::fs::path include = EXPERIMENTS_TEXT_DIR;
    return lm::read_directories({include / "ATen", include / "c10", include / "torch"});
  }
  std::string text;
  for (const std::string& path : s.data) {
    text += lm::fs::is_directory(path) ? lm::read_directories({path}) : lm::read_file(path);
  }
  return text;
}

class LanguageTask : public Task {
 public:
  explicit LanguageTask(const Settings& s)
      : corpus_(language_model::split_text(read_texts(s), s.seed)),
        batches_(corpus_.training, s.batch, s.context, s.seed),
        validation_(language_model::fixed_batches(corpus_.validation, s.validation_examples, 64,
                                                  s.context)),
        model_(language_model::GptOptions{s.width, s.layers, s.heads, s.context}) {
    if (!s.start.empty()) {
      torch::serialize::InputArchive archive;
      archive.load_from(s.start);
      model_->load(archive);
    }
    if (s.adapters > 0) {
      for (const at::Tensor& p : model_->parameters()) p.requires_grad_(false);
      adapters_ = Adapters(*model_->blocks, s.adapters);
    }
  }

  torch::nn::Module& model() override {
    if (adapters_) return *adapters_;
    return *model_;
  }

  at::Tensor training_loss(Noise& noise, int64_t step) override {
    const language_model::Batch batch = batches_.next();
    if (adapters_) adapters_->apply_to_layers();
    return model_->loss(batch.input, noise.labels(batch.target, language_model::vocabulary, step));
  }

  Evaluation evaluate() override {
    if (adapters_) adapters_->apply_to_layers();
    Evaluation sum;
    double count = 0;
    for (const language_model::Batch& batch : validation_) {
      const at::Tensor logits = model_->forward(batch.input).flatten(0, 1);
      const at::Tensor target = batch.target.flatten();
      const auto tokens = static_cast<double>(target.numel());
      sum.loss += tokens * torch::nn::functional::cross_entropy(logits, target).item<double>();
      sum.accuracy += logits.argmax(1).eq(target).sum().item().toDouble();
      count += tokens;
    }
    return {sum.loss / count, sum.accuracy / count};
  }

  double trivial_loss() const override {
    return loss_of_frequencies(corpus_.training, corpus_.validation, language_model::vocabulary);
  }

 private:
  language_model::Corpus corpus_;
  language_model::RandomBatches batches_;
  std::vector<language_model::Batch> validation_;
  language_model::Gpt model_;
  Adapters adapters_{nullptr};
};

}  // namespace experiments
