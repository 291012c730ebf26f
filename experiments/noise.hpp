// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What spoils gradients and labels, exactly as `notes` in settings.hpp says.
#pragma once

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/util/Exception.h>
#include <torch/utils.h>  // NoGradGuard
#include <root_optim/distributed/detail/rank_weight.hpp>

#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <tuple>
#include <vector>

#include "spec.hpp"

namespace experiments {

/// How the gradients of several ranks become one.
struct RankMean {
  std::function<void()> filter;  ///< of each rank's, before; may be empty
  bool median = false;           ///< of each entry, in the place of the mean
  double limit = 0;              ///< as ReducerOptions::limit_ranks

  bool is_plain() const { return !filter && !median && limit == 0; }

  /// @param sent [parameter][rank]
  void join(const std::vector<std::vector<at::Tensor>>& sent,
            const std::vector<at::Tensor>& gradients) const {
    std::vector<at::Tensor> norms2;  // of each rank's together
    for (const std::vector<at::Tensor>& ranks : sent) {
      norms2.push_back(at::stack(ranks).to(at::kDouble).square().flatten(1).sum(1));
    }
    const at::Tensor norms = at::stack(norms2).sum(0).sqrt();
    const at::Tensor weights =
        limit > 0 ? root_optim::detail::rank_weights(norms, limit) : at::ones_like(norms);
    for (size_t i = 0; i < sent.size(); ++i) {
      const at::Tensor all = at::stack(sent[i]);
      const int64_t count = all.size(0);
      if (median) {
        const at::Tensor sorted = std::get<0>(all.sort(0));
        gradients[i].copy_((sorted[(count - 1) / 2] + sorted[count / 2]) / 2);
      } else {
        std::vector<int64_t> shape(static_cast<size_t>(all.dim()), 1);
        shape[0] = count;
        gradients[i].copy_((all * weights.to(all.scalar_type()).view(shape)).mean(0));
      }
    }
  }
};

class Noise {
 public:
  Noise(const std::string& text, int64_t seed)
      // Not the seed of the weights: their generator would repeat the same numbers.
      : spec_(text), random_(at::detail::createCPUGenerator(static_cast<uint64_t>(seed) + 7919)) {
    if (spec_.name == "none") {
      spec_.require(0);
    } else if (spec_.name == "heavy" || spec_.name == "spikes") {
      TORCH_CHECK(spec_.require(1).numbers[0] >= 0, "expected a strength >= 0, got '", text, "'");
    } else if (has_ranks()) {
      TORCH_CHECK(spec_.require(2).numbers[0] >= 1 && spec_.numbers[1] >= 0, "expected ",
                  spec_.name, ":N:S with N >= 1 and S >= 0, got '", text, "'");
    } else {
      TORCH_CHECK(spec_.name == "batch" || spec_.name == "random",
                  "expected the noise none, heavy:S, spikes:S, batch:K:S, random:P:S, rank:N:S or "
                  "heavy-ranks:N:S, got '",
                  text, "'");
      const double often = spec_.require(2).numbers[0], share = spec_.numbers[1];
      TORCH_CHECK(
          (spec_.name == "batch" ? often >= 1 : often >= 0 && often <= 1) && share >= 0 &&
              share <= 1,
          "expected batch:K:S with K >= 1 or random:P:S with 0 <= P <= 1, 0 <= S <= 1, got '", text,
          "'");
    }
  }

  /// Labels of the batch of `step` (from 0).
  at::Tensor labels(const at::Tensor& given, int64_t classes, int64_t step) {
    if (!spoils(step)) return given;
    const at::Tensor drawn = at::randint(classes, given.sizes(), random_, given.options());
    return at::where(uniform(given).lt(spec_.numbers[1]), drawn, given);
  }

  /// Whether the gradients are the mean over several ranks'.
  bool has_ranks() const { return spec_.name == "rank" || spec_.name == "heavy-ranks"; }

  /// Changes the gradients of the parameters that have one.
  void gradients(const std::vector<at::Tensor>& parameters, const RankMean& mean) {
    if (spec_.name == "heavy-ranks" || (!mean.is_plain() && has_ranks())) {
      return average_ranks(parameters, mean);
    }
    if (spec_.name != "heavy" && spec_.name != "spikes" && spec_.name != "rank") return;
    const torch::NoGradGuard no_grad;
    for (const at::Tensor& parameter : parameters) {
      at::Tensor gradient = parameter.grad();
      if (!gradient.defined()) continue;
      if (spec_.name == "heavy") add_heavy_tail(gradient, spec_.numbers[0]);
      if (spec_.name == "spikes") replace_by_spikes(gradient);
      if (spec_.name == "rank") average_with_noise(gradient);
    }
  }

 private:
  bool spoils(int64_t step) {
    if (spec_.name == "batch") return (step + 1) % std::llround(spec_.numbers[0]) == 0;
    return spec_.name == "random" &&
           at::rand({1}, random_, at::TensorOptions(at::kDouble)).item<double>() < spec_.numbers[0];
  }

  at::Tensor uniform(const at::Tensor& like) {
    return at::rand(like.sizes(), random_, like.options().dtype(at::kDouble));
  }

  /// The inverse of the distribution function of Student's t with ν = 2 is (2p − 1)/√(2p(1 − p)).
  void add_heavy_tail(at::Tensor& gradient, double strength) {
    constexpr double smallest = 0x1p-53;
    const at::Tensor p = uniform(gradient).clamp_(smallest, 1 - smallest);
    const at::Tensor t = p.mul(2).sub_(1).div_(p.mul(2).mul_(p.neg().add_(1)).sqrt_());
    const at::Tensor rms = gradient.to(at::kDouble).square().mean().sqrt_();
    gradient.add_(t.mul_(rms).mul_(strength).to(gradient.scalar_type()));
  }

  void replace_by_spikes(at::Tensor& gradient) {
    constexpr double share = 1e-3;
    const at::Tensor p = uniform(gradient);  // below share/2: −, from there to share: +
    const at::Tensor spike = p.sub(share / 2).sign_().to(gradient.scalar_type());
    spike.mul_(gradient.abs().max().mul(spec_.numbers[0]));
    gradient.copy_(at::where(p.lt(share), spike, gradient));
  }

  void average_with_noise(at::Tensor& gradient) {
    const double ranks = spec_.numbers[0];
    const at::Tensor sent = at::randn(gradient.sizes(), random_, gradient.options());
    sent.mul_(gradient.square().mean().sqrt_()).mul_(spec_.numbers[1]);
    gradient.add_(sent.sub_(gradient), 1 / ranks);
  }

  /// The mean over ranks whose gradients have noise of their own, or of which the last sends noise alone.
  void average_ranks(const std::vector<at::Tensor>& parameters, const RankMean& mean) {
    const torch::NoGradGuard no_grad;
    std::vector<at::Tensor> gradients, clean;
    for (const at::Tensor& parameter : parameters) {
      if (!parameter.grad().defined()) continue;
      gradients.push_back(parameter.grad());
      clean.push_back(parameter.grad().clone());
    }
    const int64_t ranks = std::llround(spec_.numbers[0]);
    std::vector<std::vector<at::Tensor>> sent(gradients.size());
    for (int64_t rank = 0; rank < ranks; ++rank) {
      for (size_t i = 0; i < gradients.size(); ++i) {
        gradients[i].copy_(clean[i]);
        if (spec_.name == "heavy-ranks") add_heavy_tail(gradients[i], spec_.numbers[1]);
        if (spec_.name == "rank" && rank == ranks - 1) {
          gradients[i].copy_(at::randn(clean[i].sizes(), random_, clean[i].options())
                                 .mul_(clean[i].square().mean().sqrt_())
                                 .mul_(spec_.numbers[1]));
        }
      }
      if (mean.filter) mean.filter();
      for (size_t i = 0; i < gradients.size(); ++i) sent[i].push_back(gradients[i].clone());
    }
    mean.join(sent, gradients);
  }

  Spec spec_;
  at::Generator random_;
};

}  // namespace experiments
