// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A vision transformer: patches as tokens, learned positions, the mean of the tokens to the head.
#pragma once

#include <ATen/Functions.h>
#include <c10/util/Exception.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>  // TORCH_MODULE

#include <cstdint>

#include "transformer.hpp"

namespace vision {

struct VitOptions {
  int64_t image_size = 32;  ///< of both sides, in pixels; a multiple of patch
  int64_t channels = 3;
  int64_t classes = 10;
  int64_t patch = 4;   ///< side of a patch in pixels
  int64_t width = 96;  ///< size of the residual stream
  int64_t layers = 4;
  int64_t heads = 3;  ///< must divide width
};

/// Images [batch, channels, size, size] -> logits of the classes [batch, classes].
struct VisionTransformerImpl : torch::nn::Module {
  explicit VisionTransformerImpl(const VitOptions& o) {
    TORCH_CHECK(o.image_size % o.patch == 0, "expected a patch that divides the image's side of ",
                o.image_size, " pixels, got ", o.patch);
    const int64_t tokens = (o.image_size / o.patch) * (o.image_size / o.patch);
    patch_embed = register_module(
        "patch_embed",
        torch::nn::Conv2d(
            torch::nn::Conv2dOptions(o.channels, o.width, o.patch).stride(o.patch).bias(false)));
    // A table of vectors, one per place: by this name it follows AdamW.
    pos_embed = register_parameter("pos_embed", at::empty({tokens, o.width}));
    blocks =
        register_module("blocks", examples::blocks({o.width, o.layers, o.heads, /*causal=*/false}));
    norm = register_module("norm", examples::layer_norm(o.width));
    head = register_module("head", examples::linear(o.width, o.classes));
    examples::initialize_transformer(*this, o.layers, {"pos_embed"});
  }

  at::Tensor forward(const at::Tensor& images) {
    const at::Tensor patches = patch_embed(images).flatten(2).transpose(1, 2);
    const at::Tensor x = examples::forward_blocks(blocks, patches + pos_embed);
    return head(norm(x).mean(1));
  }

  torch::nn::Conv2d patch_embed{nullptr};
  at::Tensor pos_embed;
  torch::nn::ModuleList blocks{nullptr};
  torch::nn::LayerNorm norm{nullptr};
  torch::nn::Linear head{nullptr};
};
TORCH_MODULE(VisionTransformer);

}  // namespace vision
