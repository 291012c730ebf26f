// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A small residual network for small images: three stages of basic blocks, of width w, 2w and 4w, that
// each halve the resolution. Nearly all of its weights have rank 4.
#pragma once

#include <ATen/Functions.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>  // TORCH_MODULE

#include <cstdint>

namespace vision {

struct ResNetOptions {
  int64_t channels = 3;
  int64_t classes = 10;
  int64_t width = 32;  ///< channels of the first stage
  int64_t blocks = 1;  ///< per stage
};

inline torch::nn::Conv2d convolution(int64_t in, int64_t out, int64_t kernel, int64_t stride) {
  return torch::nn::Conv2d(
      torch::nn::Conv2dOptions(in, out, kernel).stride(stride).padding(kernel / 2).bias(false));
}

/// relu(shortcut(x) + two convolutions of x).
struct ResidualBlockImpl : torch::nn::Module {
  ResidualBlockImpl(int64_t in, int64_t out, int64_t stride) {
    first = register_module("first", convolution(in, out, 3, stride));
    first_norm = register_module("first_norm", torch::nn::BatchNorm2d(out));
    second = register_module("second", convolution(out, out, 3, 1));
    second_norm = register_module("second_norm", torch::nn::BatchNorm2d(out));
    if (in == out && stride == 1) return;
    shortcut = register_module("shortcut", convolution(in, out, 1, stride));
    shortcut_norm = register_module("shortcut_norm", torch::nn::BatchNorm2d(out));
  }

  at::Tensor forward(const at::Tensor& x) {
    const at::Tensor hidden = at::relu(first_norm(first(x)));
    const at::Tensor past = shortcut.is_empty() ? x : shortcut_norm(shortcut(x));
    return at::relu(past + second_norm(second(hidden)));
  }

  torch::nn::Conv2d first{nullptr}, second{nullptr}, shortcut{nullptr};
  torch::nn::BatchNorm2d first_norm{nullptr}, second_norm{nullptr}, shortcut_norm{nullptr};
};
TORCH_MODULE(ResidualBlock);

/// Images [batch, channels, height, width] -> logits of the classes [batch, classes].
struct ResNetImpl : torch::nn::Module {
  explicit ResNetImpl(const ResNetOptions& o) {
    stem = register_module("stem", convolution(o.channels, o.width, 3, 1));
    stem_norm = register_module("stem_norm", torch::nn::BatchNorm2d(o.width));
    stages = register_module("stages", torch::nn::Sequential());
    int64_t in = o.width;
    for (int64_t stage = 0; stage < 3; ++stage) {
      const int64_t out = o.width << stage;
      for (int64_t block = 0; block < o.blocks; ++block) {
        stages->push_back(ResidualBlock(in, out, block == 0 ? 2 : 1));
        in = out;
      }
    }
    head = register_module("head", torch::nn::Linear(in, o.classes));
  }

  at::Tensor forward(const at::Tensor& images) {
    const at::Tensor x = stages->forward(at::relu(stem_norm(stem(images))));
    return head(x.mean({2, 3}));
  }

  torch::nn::Conv2d stem{nullptr};
  torch::nn::BatchNorm2d stem_norm{nullptr};
  torch::nn::Sequential stages{nullptr};
  torch::nn::Linear head{nullptr};
};
TORCH_MODULE(ResNet);

}  // namespace vision
