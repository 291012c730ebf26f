// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Low-rank adapters: a trained model whose matrices change by products of two thin ones.
#pragma once

#include <ATen/Functions.h>
#include <torch/nn/init.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>  // TORCH_MODULE

#include <algorithm>  // replace
#include <cmath>      // sqrt
#include <cstdint>
#include <string>
#include <vector>

namespace experiments {

/// W + B A for each linear layer W [out, in] of some blocks, with A [rank, in] and B [out, rank] (arXiv
/// 2106.09685, with α = rank). W is left as it is; A starts as N(0, 1/in), B as 0.
class AdaptersImpl : public torch::nn::Module {
 public:
  AdaptersImpl(torch::nn::ModuleListImpl& blocks, int64_t rank) {
    for (const auto& item : blocks.named_modules(std::string(), /*include_self=*/false)) {
      auto* linear = item.value()->as<torch::nn::LinearImpl>();
      if (linear == nullptr) continue;
      const at::Tensor weight = linear->weight;
      std::string name = item.key();
      std::replace(name.begin(), name.end(), '.', '_');
      const at::Tensor in = register_parameter(name + "_in", at::empty({rank, weight.size(1)}));
      torch::nn::init::normal_(in, 0.0, 1.0 / std::sqrt(static_cast<double>(weight.size(1))));
      const at::Tensor out = register_parameter(name + "_out", at::zeros({weight.size(0), rank}));
      adapted_.push_back({linear, weight, in, out});
    }
  }

  /// To be called before each forward pass: the layers compute with W + B A from then on.
  void apply_to_layers() {
    for (const Adapted& a : adapted_) a.linear->weight = a.weight.detach() + a.out.mm(a.in);
  }

 private:
  struct Adapted {
    torch::nn::LinearImpl* linear;
    at::Tensor weight, in, out;
  };
  std::vector<Adapted> adapted_;
};
TORCH_MODULE(Adapters);

}  // namespace experiments
