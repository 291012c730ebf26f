// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Parameters that are spread over ranks, and others that are not, with gradients that follow from a seed.
#pragma once

#include "model.hpp"
#include "support/catch_torch.hpp"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <root_optim/distributed.hpp>
#include <string>
#include <utility>
#include <vector>

namespace test {

/// How blocks of a size follow from the number of ranks.
enum class Split { Even, Uneven, LastAlone };

/// Where the blocks of `size` begin, and where the last one ends.
inline std::vector<int64_t> starts_of(int64_t size, int ranks, Split split) {
  std::vector<int64_t> starts;
  for (int64_t r = 0; r <= ranks; ++r) {
    if (split == Split::Even) starts.push_back(size * r / ranks);
    if (split == Split::Uneven) {  // of 1, 3, 5, … parts; the first of several ranks has nothing
      starts.push_back(r <= 1 && ranks > 1 ? 0 : size * r * r / (ranks * ranks));
    }
    if (split == Split::LastAlone) starts.push_back(r < ranks ? 0 : size);
  }
  return starts;
}

/// What a rank has of a model that one process has whole (rank 0 of 1, without a layout).
struct ShardedModel {
  struct Param {
    std::vector<int64_t> shape;
    at::ScalarType dtype;
    int64_t dim;  ///< along which it is spread; -1: every rank has it
    bool adamw;
  };
  static std::vector<Param> params() {
    return {
        {{24, 40}, at::kFloat, 0, false},      {{24, 40}, at::kFloat, -1, false},
        {{24, 40}, at::kFloat, 1, false},      {{40, 24}, at::kFloat, 1, false},
        {{16, 4, 3, 3}, at::kFloat, 0, false}, {{16, 6, 3}, at::kFloat, 1, false},
        {{32, 48}, at::kBFloat16, 1, false},   {{32, 16}, at::kDouble, 0, false},
        {{33, 35}, at::kFloat, 0, false},      {{40}, at::kFloat, -1, true},
        {{40}, at::kFloat, 0, true},           {{7}, at::kBFloat16, 0, true},
        {{}, at::kDouble, -1, true},           {{100, 60}, at::kFloat, 0, true},  // these are cut
        {{130, 50}, at::kFloat, 1, true},      {{5001}, at::kFloat, 0, true},
        {{5003}, at::kFloat, -1, true},        {{64, 65}, at::kBFloat16, 0, true},
        {{192, 64}, at::kFloat, 0, true}};
  }

  int rank, ranks;
  Split split;
  std::vector<at::Tensor> own;  ///< shards, and parameters that are whole

  ShardedModel(int rank_, int ranks_, Split split_) : rank(rank_), ranks(ranks_), split(split_) {
    for (const at::Tensor& part : parts_of_noise(1)) own.push_back(part.clone().requires_grad_());
    if (ranks > 1) own[3] = own[3].detach().t().contiguous().t().requires_grad_();  // other memory
  }

  /// This rank's parts of whole tensors, the same wherever it is called.
  std::vector<at::Tensor> parts_of_noise(int64_t seed) const {
    auto generator = at::detail::createCPUGenerator(static_cast<uint64_t>(seed));
    std::vector<at::Tensor> parts;
    for (const Param& param : params()) {
      const at::Tensor whole = at::randn(param.shape, generator).to(param.dtype);
      parts.push_back(part_of(whole, param.dim));
    }
    return parts;
  }
  at::Tensor part_of(const at::Tensor& whole, int64_t dim) const {
    if (dim < 0) return whole;
    const auto starts = starts_of(whole.size(dim), ranks, split);
    const auto r = static_cast<size_t>(rank);
    return whole.narrow(dim, starts[r], starts[r + 1] - starts[r]);
  }

  void set_gradients(int64_t step) const {
    const std::vector<at::Tensor> gradients = parts_of_noise(1000 + step);
    for (size_t i = 0; i < own.size(); ++i) at::Tensor(own[i]).mutable_grad() = gradients[i];
  }

  /// Sets one number of a whole gradient, if it is here.
  /// @param at its row, and for a tensor with columns its column
  void set_gradient(size_t param, std::vector<int64_t> at, double value) const {
    at::Tensor gradient = own[param].grad();
    const int64_t dim = params()[param].dim;
    if (dim >= 0) {
      const auto starts = starts_of(params()[param].shape[static_cast<size_t>(dim)], ranks, split);
      int64_t& along = at[static_cast<size_t>(dim)];
      along -= starts[static_cast<size_t>(rank)];
      if (along < 0 || along >= gradient.size(dim)) return;
    }
    for (const int64_t index : at) gradient = gradient.select(0, index);
    gradient.fill_(value);
  }

  template <class Options>
  std::vector<torch::optim::OptimizerParamGroup> groups(const Options& options) const {
    std::vector<at::Tensor> matrices, others;
    for (size_t i = 0; i < own.size(); ++i) {
      (params()[i].adamw ? others : matrices).push_back(own[i]);
    }
    std::vector<torch::optim::OptimizerParamGroup> result;
    result.emplace_back(matrices, std::make_unique<Options>(options));
    result.emplace_back(
        others, std::make_unique<Options>(Options(options).rule(root_optim::Rule::AdamW).lr(3e-3)));
    return result;
  }

  root_optim::DistributedOptions layouts(root_optim::DistributedOptions options = {}) const {
    for (size_t i = 0; i < own.size(); ++i) {
      const Param param = params()[i];
      if (param.dim < 0) continue;
      options.sharded(own[i], root_optim::ShardedLayout::along(
                                  param.dim, param.shape[static_cast<size_t>(param.dim)]));
    }
    return options;
  }

  /// The bits of what this rank would have of the parameters of one process.
  std::string bits_of_parts(const ShardedModel& one_process) const {
    std::vector<at::Tensor> parts;
    for (size_t i = 0; i < own.size(); ++i) {
      parts.push_back(part_of(one_process.own[i].detach(), params()[i].dim));
    }
    return bits_of(parts);
  }
};

}  // namespace test
