// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A byte-level GPT: causal, pre-norm, learned positions, one fused QKV projection per block. What
// it is trained with is decided elsewhere.
#pragma once

#include <ATen/Functions.h>
#include <c10/util/Exception.h>
#include <torch/nn/functional/loss.h>
#include <torch/nn/init.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>  // TORCH_MODULE
#include <torch/version.h>

#include <cmath>  // sqrt
#include <string>

namespace language_model {

inline constexpr int64_t vocabulary = 256;  // one token per byte value

struct GptOptions {
  int64_t width = 128;  ///< size of the residual stream
  int64_t layers = 4;
  int64_t heads = 4;     ///< must divide width
  int64_t context = 64;  ///< bytes the model can look at
};

/// softmax(q kᵀ / √d) v with a causal mask; q, k, v: [batch, heads, time, head size].
inline at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
#if TORCH_VERSION_MAJOR >= 2
  return at::scaled_dot_product_attention(q, k, v, {}, 0.0, /*is_causal=*/true);
#else
  const int64_t time = q.size(2);
  const at::Tensor future = at::ones({time, time}, q.options().dtype(at::kBool)).triu(1);
  const double scale = 1.0 / std::sqrt(static_cast<double>(q.size(3)));
  const at::Tensor scores = at::matmul(q, k.transpose(2, 3)).mul(scale).masked_fill(future, -1e9);
  return at::matmul(at::softmax(scores, -1), v);
#endif
}

inline torch::nn::Linear linear(int64_t in, int64_t out) {
  return torch::nn::Linear(torch::nn::LinearOptions(in, out).bias(false));
}

inline torch::nn::LayerNorm layer_norm(int64_t width) {
  return torch::nn::LayerNorm(torch::nn::LayerNormOptions({width}));
}

/// x + attention(norm(x)), then x + mlp(norm(x)).
struct BlockImpl : torch::nn::Module {
  explicit BlockImpl(const GptOptions& o) : heads(o.heads) {
    attention_norm = register_module("attention_norm", layer_norm(o.width));
    qkv = register_module("qkv", linear(o.width, 3 * o.width));
    projection = register_module("projection", linear(o.width, o.width));
    mlp_norm = register_module("mlp_norm", layer_norm(o.width));
    up = register_module("up", linear(o.width, 4 * o.width));
    down = register_module("down", linear(4 * o.width, o.width));
  }

  at::Tensor forward(at::Tensor x) {
    const int64_t batch = x.size(0), time = x.size(1), width = x.size(2);
    // [batch, time, 3·width] -> 3 × [batch, heads, time, width / heads]
    const auto parts = qkv(attention_norm(x))
                           .view({batch, time, 3, heads, width / heads})
                           .permute({2, 0, 3, 1, 4})
                           .unbind(0);
    const at::Tensor mixed = causal_attention(parts[0], parts[1], parts[2]);
    x = x + projection(mixed.transpose(1, 2).reshape({batch, time, width}));
    return x + down(at::gelu(up(mlp_norm(x))));
  }

  int64_t heads;
  torch::nn::LayerNorm attention_norm{nullptr}, mlp_norm{nullptr};
  torch::nn::Linear qkv{nullptr}, projection{nullptr}, up{nullptr}, down{nullptr};
};
TORCH_MODULE(Block);

/// Bytes [batch, time] (int64, time <= context) -> logits of the next byte [batch, time, 256].
struct GptImpl : torch::nn::Module {
  explicit GptImpl(const GptOptions& options) : options_(options) {
    TORCH_CHECK(options.width % options.heads == 0, "--heads must divide --width, got ",
                options.heads, " heads for a width of ", options.width);
    bytes = register_module("bytes", torch::nn::Embedding(vocabulary, options.width));
    positions = register_module("positions", torch::nn::Embedding(options.context, options.width));
    blocks = register_module("blocks", torch::nn::ModuleList());
    for (int64_t i = 0; i < options.layers; ++i) blocks->push_back(Block(options));
    norm = register_module("norm", layer_norm(options.width));
    lm_head = register_module("lm_head", linear(options.width, vocabulary));
    initialize();
  }

  at::Tensor forward(const at::Tensor& input) {
    at::Tensor x = bytes(input) + positions->weight.slice(0, 0, input.size(1));
    for (const auto& block : *blocks) x = block->as<Block>()->forward(x);
    return lm_head(norm(x));
  }

  /// Mean cross-entropy of the next byte, in nats.
  at::Tensor loss(const at::Tensor& input, const at::Tensor& target) {
    return torch::nn::functional::cross_entropy(forward(input).flatten(0, 1), target.flatten());
  }

  const GptOptions& options() const { return options_; }

  torch::nn::Embedding bytes{nullptr}, positions{nullptr};
  torch::nn::ModuleList blocks{nullptr};
  torch::nn::LayerNorm norm{nullptr};
  torch::nn::Linear lm_head{nullptr};

 private:
  /// N(0, 1 / inputs); the two projections that write to the residual stream get 1/√(2·layers) of
  /// that deviation, so that its variance does not grow with depth. Embeddings: N(0, 0.1²).
  void initialize() {
    const double residual = 1.0 / std::sqrt(2.0 * static_cast<double>(options_.layers));
    for (auto& item : named_parameters()) {
      const std::string& name = item.key();
      at::Tensor& weight = item.value();
      if (weight.dim() < 2) continue;  // norms keep 1 and 0
      const bool is_embedding = name.rfind("bytes.", 0) == 0 || name.rfind("positions.", 0) == 0;
      const bool writes_residual =
          name.find("projection.") != std::string::npos || name.find("down.") != std::string::npos;
      double deviation = 1.0 / std::sqrt(static_cast<double>(weight.size(1)));
      if (is_embedding) deviation = 0.1;
      if (writes_residual) deviation *= residual;
      torch::nn::init::normal_(weight, 0.0, deviation);
    }
  }

  GptOptions options_;
};
TORCH_MODULE(Gpt);

}  // namespace language_model
