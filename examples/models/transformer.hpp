// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What the language model and the vision transformer are made of: pre-norm blocks of attention and
// MLP with one fused projection for query, key and value, and how their weights begin.
#pragma once

#include <ATen/Functions.h>
#include <c10/util/Exception.h>
#include <torch/nn/init.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>  // TORCH_MODULE
#include <torch/version.h>

#include <cmath>  // sqrt
#include <cstdint>
#include <string>
#include <vector>

namespace examples {

/// softmax(q kᵀ / √d) v, with a causal mask if asked for; q, k, v: [batch, heads, time, head size].
inline at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            bool causal) {
#if TORCH_VERSION_MAJOR >= 2
  return at::scaled_dot_product_attention(q, k, v, {}, 0.0, causal);
#else
  const double scale = 1.0 / std::sqrt(static_cast<double>(q.size(3)));
  at::Tensor scores = at::matmul(q, k.transpose(2, 3)).mul(scale);
  if (causal) {
    const int64_t time = q.size(2);
    const at::Tensor future = at::ones({time, time}, q.options().dtype(at::kBool)).triu(1);
    scores = scores.masked_fill(future, -1e9);
  }
  return at::matmul(at::softmax(scores, -1), v);
#endif
}

inline torch::nn::Linear linear(int64_t in, int64_t out) {
  return torch::nn::Linear(torch::nn::LinearOptions(in, out).bias(false));
}

inline torch::nn::LayerNorm layer_norm(int64_t width) {
  return torch::nn::LayerNorm(torch::nn::LayerNormOptions({width}));
}

struct TransformerOptions {
  int64_t width = 128;  ///< size of the residual stream
  int64_t layers = 4;
  int64_t heads = 4;  ///< must divide width
  bool causal = true;
};

/// x + attention(norm(x)), then x + mlp(norm(x)).
struct BlockImpl : torch::nn::Module {
  explicit BlockImpl(const TransformerOptions& o) : heads(o.heads), causal(o.causal) {
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
    const at::Tensor mixed = attention(parts[0], parts[1], parts[2], causal);
    x = x + projection(mixed.transpose(1, 2).reshape({batch, time, width}));
    return x + down(at::gelu(up(mlp_norm(x))));
  }

  int64_t heads;
  bool causal;
  torch::nn::LayerNorm attention_norm{nullptr}, mlp_norm{nullptr};
  torch::nn::Linear qkv{nullptr}, projection{nullptr}, up{nullptr}, down{nullptr};
};
TORCH_MODULE(Block);

inline torch::nn::ModuleList blocks(const TransformerOptions& options) {
  TORCH_CHECK(options.width % options.heads == 0,
              "expected a number of heads that divides the width, got ", options.heads,
              " heads for a width of ", options.width);
  torch::nn::ModuleList list;
  for (int64_t i = 0; i < options.layers; ++i) list->push_back(Block(options));
  return list;
}

inline at::Tensor forward_blocks(const torch::nn::ModuleList& blocks, at::Tensor x) {
  for (const auto& block : *blocks) x = block->as<Block>()->forward(x);
  return x;
}

/// Weights: N(0, 1 / inputs); the two projections that write to the residual stream get 1/√(2·layers)
/// of that deviation, so that its variance does not grow with depth. Parameters whose names start
/// with one of `embeddings`: N(0, 0.1²). What has less than two dimensions stays as it is.
inline void initialize_transformer(torch::nn::Module& model, int64_t layers,
                                   const std::vector<std::string>& embeddings) {
  const double residual = 1.0 / std::sqrt(2.0 * static_cast<double>(layers));
  for (auto& item : model.named_parameters()) {
    const std::string& name = item.key();
    at::Tensor& weight = item.value();
    if (weight.dim() < 2) continue;
    double deviation = 1.0 / std::sqrt(static_cast<double>(weight[0].numel()));
    for (const std::string& embedding : embeddings) {
      if (name.rfind(embedding, 0) == 0) deviation = 0.1;
    }
    const bool writes_residual =
        name.find("projection.") != std::string::npos || name.find("down.") != std::string::npos;
    if (writes_residual) deviation *= residual;
    torch::nn::init::normal_(weight, 0.0, deviation);
  }
}

}  // namespace examples
