// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A weight decay that looks at the step: around an optimizer that has none.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/optim/optimizer.h>
#include <torch/utils.h>  // NoGradGuard

#include <cstddef>
#include <vector>

namespace experiments {

/// p ← step(p) − lr·λ·p in the entries where p and p − step(p) have the same sign, as in Cautious Weight
/// Decay (arXiv 2510.12402).
class CautiousDecay {
 public:
  /// @param weight_decay λ; 0: nothing is done
  explicit CautiousDecay(double weight_decay) : weight_decay_(weight_decay) {}

  void before_step(const torch::optim::Optimizer& optimizer) {
    if (weight_decay_ == 0) return;
    before_.clear();
    for (const auto& group : optimizer.param_groups()) {
      for (const at::Tensor& p : group.params()) before_.push_back(p.detach().clone());
    }
  }

  void behind_step(torch::optim::Optimizer& optimizer) const {
    if (weight_decay_ == 0) return;
    const torch::NoGradGuard no_grad;
    size_t i = 0;
    for (auto& group : optimizer.param_groups()) {
      const double rate = group.options().get_lr() * weight_decay_;
      for (at::Tensor& p : group.params()) {
        const at::Tensor& before = before_[i++];
        const at::Tensor towards_zero = before.sub(p).mul_(before).gt(0);
        p.sub_(before.mul(towards_zero), rate);
      }
    }
  }

 private:
  double weight_decay_;
  std::vector<at::Tensor> before_;
};

}  // namespace experiments
