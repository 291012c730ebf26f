// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Text from a trained model.
#pragma once

#include <ATen/Functions.h>
#include <torch/utils.h>  // NoGradGuard

#include <algorithm>  // max
#include <cstring>    // memcpy
#include <string>

#include "../models/language_model.hpp"

namespace language_model {

/// `length` bytes after the prompt, drawn one by one from softmax(logits / temperature).
inline std::string generate(Gpt& model, const std::string& prompt, int64_t length,
                            double temperature) {
  const torch::NoGradGuard no_grad;
  std::string text = prompt.empty() ? "\n" : prompt;
  for (int64_t i = 0; i < length; ++i) {
    const auto size = static_cast<int64_t>(text.size());
    const int64_t seen = std::min(size, model->options().context);
    const at::Tensor bytes = at::empty({1, seen}, at::kByte);
    std::memcpy(bytes.data_ptr<uint8_t>(), text.data() + (size - seen), static_cast<size_t>(seen));
    const at::Tensor input = bytes.to(model->bytes->weight.device(), at::kLong);
    const at::Tensor logits = model->forward(input).select(1, seen - 1).to(at::kFloat);
    const at::Tensor next = at::multinomial(at::softmax(logits.div(temperature), -1), 1);
    text.push_back(static_cast<char>(next.item<int64_t>()));
  }
  return text;
}

/// The text with everything that a terminal might not show replaced by '?'.
inline std::string printable(std::string text) {
  for (char& c : text) {
    const bool shown = (c >= ' ' && c <= '~') || c == '\n' || c == '\t';
    if (!shown) c = '?';
  }
  return text;
}

}  // namespace language_model
