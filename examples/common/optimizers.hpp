// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The three optimizers that the programs compare, by name. All of them use the same weight decay,
// and one learning rate for all parameters of a model: `LrScale::MatchRmsAdamW` gives
// orthogonalized updates the size of AdamW's, so Muon and ROOT can share it with their built-in
// AdamW.
#pragma once

#include <c10/util/Exception.h>
#include <torch/nn/module.h>
#include <torch/optim/adamw.h>
#include <root_optim/muon.hpp>
#include <root_optim/parameters/routing_table.hpp>
#include <root_optim/root.hpp>

#include <memory>
#include <string>
#include <tuple>

namespace examples {

inline constexpr double weight_decay = 0.1;

/// Matrices -> orthogonalized; embeddings, norms and the output head -> AdamW. Query, key and value
/// share one tensor but are three matrices.
template <class Options>
auto routed(const torch::nn::Module& model, const Options& options) {
  return root_optim::route(model, options, [](root_optim::RoutingEntry& entry) {
    const std::string qkv = "qkv.weight";
    if (entry.name.size() >= qkv.size() &&
        entry.name.compare(entry.name.size() - qkv.size(), qkv.size(), qkv) == 0) {
      entry.layout.split_rows(3);
    }
  });
}

template <class Optimizer, class Options>
std::unique_ptr<torch::optim::Optimizer> orthogonalized(const torch::nn::Module& model,
                                                        const Options& options) {
  return std::make_unique<Optimizer>(routed(model, options).groups(), options);
}

/// "adamw", "muon" or "root".
inline std::unique_ptr<torch::optim::Optimizer> make_optimizer(const std::string& name,
                                                               const torch::nn::Module& model,
                                                               double lr) {
  if (name == "adamw") {
    return std::make_unique<torch::optim::AdamW>(model.parameters(),
                                                 torch::optim::AdamWOptions(lr)
                                                     .betas(std::make_tuple(0.9, 0.95))
                                                     .weight_decay(weight_decay));
  }
  if (name == "muon") {
    return orthogonalized<root_optim::Muon>(model, root_optim::MuonOptions(lr)
                                                       .scale(root_optim::LrScale::MatchRmsAdamW)
                                                       .weight_decay(weight_decay));
  }
  TORCH_CHECK(name == "root", "expected the optimizer adamw, muon or root, got ", name);
  return orthogonalized<root_optim::Root>(model,
                                          root_optim::RootOptions(lr).weight_decay(weight_decay));
}

}  // namespace examples
