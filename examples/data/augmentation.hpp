// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// From stored pixels to what a model is shown.
#pragma once

#include <ATen/Functions.h>
#include <ATen/TensorIndexing.h>
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <vector>

namespace vision {

/// Every image moved by up to 4 pixels in each direction (black comes in) and, half of them, mirrored.
/// @param pixels uint8, [n, channels, height, width]; the result is alike
inline at::Tensor augment(const at::Tensor& pixels, const at::Generator& generator) {
  constexpr int64_t most = 4;
  const int64_t count = pixels.size(0), height = pixels.size(2), width = pixels.size(3);
  const auto draw = [&](int64_t end) {
    return at::randint(end, {count, 1}, generator, at::TensorOptions(at::kLong));
  };
  const at::Tensor rows = draw(2 * most + 1) + at::arange(height);
  const at::Tensor across = at::arange(width);
  const at::Tensor columns =
      draw(2 * most + 1) + at::where(draw(2).to(at::kBool), across.flip(0), across);
  const at::Tensor padded = at::constant_pad_nd(pixels, {most, most, most, most});
  using at::indexing::Slice;
  // Index tensors around a slice put the channels last.
  return padded
      .index(
          {at::arange(count).view({count, 1, 1}), Slice(), rows.unsqueeze(2), columns.unsqueeze(1)})
      .permute({0, 3, 1, 2})
      .contiguous();
}

/// Bytes to float32 with mean 0 and deviation 1 per channel, if these are their statistics in [0, 1].
inline at::Tensor normalize(const at::Tensor& pixels, const std::vector<double>& mean,
                            const std::vector<double>& deviation) {
  const auto per_channel = [](const std::vector<double>& values) {
    return at::tensor(values, at::kFloat).mul(255).view({1, -1, 1, 1});
  };
  return pixels.to(at::kFloat).sub(per_channel(mean)).div(per_channel(deviation));
}

}  // namespace vision
