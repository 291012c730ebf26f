// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A byte-level GPT: causal, pre-norm, learned positions, one fused QKV projection per block. What
// it is trained with is decided elsewhere.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/functional/loss.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>  // TORCH_MODULE

#include <cstdint>

#include "transformer.hpp"

namespace language_model {

inline constexpr int64_t vocabulary = 256;  // one token per byte value

struct GptOptions {
  int64_t width = 128;  ///< size of the residual stream
  int64_t layers = 4;
  int64_t heads = 4;     ///< must divide width
  int64_t context = 64;  ///< bytes the model can look at
};

/// Bytes [batch, time] (int64, time <= context) -> logits of the next byte [batch, time, 256].
struct GptImpl : torch::nn::Module {
  explicit GptImpl(const GptOptions& options) : options_(options) {
    bytes = register_module("bytes", torch::nn::Embedding(vocabulary, options.width));
    positions = register_module("positions", torch::nn::Embedding(options.context, options.width));
    blocks = register_module("blocks", examples::blocks({options.width, options.layers,
                                                         options.heads, /*causal=*/true}));
    norm = register_module("norm", examples::layer_norm(options.width));
    lm_head = register_module("lm_head", examples::linear(options.width, vocabulary));
    examples::initialize_transformer(*this, options.layers, {"bytes.", "positions."});
  }

  at::Tensor forward(const at::Tensor& input) {
    const at::Tensor x = bytes(input) + positions->weight.slice(0, 0, input.size(1));
    return lm_head(norm(examples::forward_blocks(blocks, x)));
  }

  /// Mean cross-entropy of the next byte, in nats; in float32 for a model in bfloat16, which has no
  /// more than three digits.
  at::Tensor loss(const at::Tensor& input, const at::Tensor& target) {
    const at::Tensor logits = forward(input).flatten(0, 1).to(at::kFloat);
    return torch::nn::functional::cross_entropy(logits, target.flatten());
  }

  const GptOptions& options() const { return options_; }

  torch::nn::Embedding bytes{nullptr}, positions{nullptr};
  torch::nn::ModuleList blocks{nullptr};
  torch::nn::LayerNorm norm{nullptr};
  torch::nn::Linear lm_head{nullptr};

 private:
  GptOptions options_;
};
TORCH_MODULE(Gpt);

}  // namespace language_model
