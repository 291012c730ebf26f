// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Gradients that are the mean over the ranks of a process group, and their norm.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>  // NoGradGuard
#include <ATen/ops/cat.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/distributed/detail/agreement.hpp>
#include <root_optim/distributed/detail/collectives.hpp>
#include <root_optim/distributed/detail/gradient_agreement.hpp>
#include <root_optim/distributed/detail/rank_weight.hpp>
#include <root_optim/distributed/reducer_options.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// Averages the gradients of parameters over ranks: g ← (g₁ + … + g_N)/N, on all ranks the same bits.
///
/// Called between `backward()` and `step()`; with several micro-batches, after the last one. Gradients in
/// half precision are summed in float32 and rounded once. A step of a distributed optimizer requires
/// that ranks have gradients of the same parameters, which this sees to. `ReducerOptions::limit_ranks` replaces
/// g_r by w_r g_r.
///
/// Memory: two buckets.  Sends: 2(N − 1)/N of the gradients' bytes per rank (Gloo's all_reduce).
/// Errors: if any rank's gradients are not as expected, no gradient changes, and every rank throws its
///         message. If a rank dies or does not come, the others throw within the timeout; gradients may then
///         be averaged or not.
class GradientReducer {
 public:
  /// @param parameters the same on all ranks, in one order
  /// @param group of LibTorch, with a backend for the CPU, and for the parameters' devices
  /// @throws c10::Error on every rank if numbers, shapes or dtypes of parameters, or options, differ. Collective.
  GradientReducer(std::vector<at::Tensor> parameters, c10::intrusive_ptr<c10d::ProcessGroup> group,
                  ReducerOptions options = {});

  /// Averages. Collective.
  void reduce();

  /// Scales gradients that are equal on all ranks, as `reduce` leaves them, so that their norm is at most
  /// `max_norm`: g ← g · min(1, max_norm/(‖g‖ + 1e-6)). The norm is that of all gradients together, in
  /// float64, and rank 0's, so that all ranks scale by the same bits. Collective. No host synchronization
  /// with the device.
  /// @param max_norm finite, > 0, equal on all ranks
  /// @return the norm before, one float64 number on the device of the first gradient; 0 without gradients
  at::Tensor clip_norm(double max_norm);

 private:
  struct Bucket {
    at::ScalarType dtype;  ///< of the sum: the gradients may have others
    std::vector<at::Tensor> gradients;
    at::Tensor flat;
    detail::Started started;
  };
  void finish(Bucket& bucket);
  std::string where(size_t i) const { return detail::describe(parameters_[i], 0, i, {}); }

  std::vector<at::Tensor> parameters_;
  detail::Collectives ranks_;
  ReducerOptions options_;
};

// ---------------------------------------------------------------------------------------------------

inline GradientReducer::GradientReducer(std::vector<at::Tensor> parameters,
                                        c10::intrusive_ptr<c10d::ProcessGroup> group,
                                        ReducerOptions options)
    : parameters_(std::move(parameters)),
      ranks_(std::move(group), options.timeout()),
      options_(options) {
  detail::agree_on_reducer(ranks_, "GradientReducer", parameters_, options_,
                           [this](size_t i) { return where(i); });
}

inline void GradientReducer::reduce() {
  const at::NoGradGuard no_grad;
  ranks_.at("GradientReducer::reduce");
  const std::vector<detail::GradientOfRanks> known =
      detail::agree_on_gradients(ranks_, "GradientReducer", parameters_, options_.missing(),
                                 [this](size_t i) { return where(i); });

  // Zeros for what is missing, and the memory of all buckets but their flat tensors, before any rank waits.
  std::string error;
  std::vector<Bucket> buckets;
  std::vector<at::Tensor> added(parameters_.size());
  at::Tensor norm;  // of this rank's, where it is limited
  detail::attempt(error, [&] {
    if (options_.limit_ranks() > 0 && !parameters_.empty()) {
      norm = detail::norm_of_gradients(parameters_);
    }
    std::map<std::pair<std::string, at::ScalarType>, std::pair<size_t, int64_t>> open;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      if (!known[i].reduced || parameters_[i].numel() == 0) continue;
      at::Tensor gradient = parameters_[i].grad();
      if (!gradient.defined()) gradient = added[i] = at::zeros_like(parameters_[i]);
      const at::ScalarType dtype = detail::state_dtype(parameters_[i]);
      const auto bytes = gradient.numel() * static_cast<int64_t>(c10::elementSize(dtype));
      const auto key = std::pair(gradient.device().str(), dtype);
      const auto found = open.find(key);
      if (found == open.end() || found->second.second + bytes > options_.bucket_bytes()) {
        open[key] = {buckets.size(), 0};
        buckets.push_back({dtype, {}, {}, {}});
      }
      open[key].second += bytes;
      buckets[open[key].first].gradients.push_back(gradient);
    }
  });
  detail::agree(ranks_, error);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (added[i].defined()) parameters_[i].mutable_grad() = added[i];
  }
  const at::Tensor weight =
      norm.defined() ? detail::rank_weight(ranks_, norm, options_.limit_ranks()) : at::Tensor();
  for (size_t b = 0; b < buckets.size(); ++b) {
    Bucket& bucket = buckets[b];
    std::vector<at::Tensor> pieces;
    for (const at::Tensor& gradient : bucket.gradients) {
      pieces.push_back(gradient.to(bucket.dtype).reshape({-1}));
    }
    bucket.flat = at::cat(pieces);
    if (weight.defined()) bucket.flat.mul_(weight.to(bucket.flat.device()));
    bucket.started = ranks_.all_reduce(bucket.flat, c10d::ReduceOp::SUM);
    if (b > 0) finish(buckets[b - 1]);
  }
  if (!buckets.empty()) finish(buckets.back());
}

inline void GradientReducer::finish(Bucket& bucket) {
  ranks_.wait(bucket.started);
  bucket.flat.div_(static_cast<double>(ranks_.size()));
  int64_t first = 0;
  for (at::Tensor& gradient : bucket.gradients) {
    gradient.copy_(bucket.flat.narrow(0, first, gradient.numel()).view(gradient.sizes()));
    first += gradient.numel();
  }
  bucket.flat.reset();
  bucket.started = {};
}

inline at::Tensor GradientReducer::clip_norm(double max_norm) {
  const at::NoGradGuard no_grad;
  ranks_.at("GradientReducer::clip_norm");
  std::string error;
  std::vector<at::Tensor> norms;
  at::Tensor norm = at::zeros({}, at::kDouble);
  detail::attempt(error, [&] {
    detail::check_max_norm("GradientReducer", max_norm);
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const at::Tensor& gradient = parameters_[i].grad();
      if (!gradient.defined()) continue;
      detail::check_gradient(parameters_[i], gradient, where(i));
      norms.push_back(at::linalg_vector_norm(gradient, 2, {}, false, at::kDouble));
    }
    if (norms.empty()) return;
    for (at::Tensor& one : norms) one = one.to(norms.front().device());
    norm = at::linalg_vector_norm(at::stack(norms));
  });
  detail::agree(ranks_, error, detail::clipping(max_norm, norms.size()));
  if (norms.empty()) return norm;
  detail::Started started = ranks_.broadcast(norm, 0);
  ranks_.wait(started);
  const at::Tensor factor = detail::clip_factor(norm, max_norm);
  for (const at::Tensor& parameter : parameters_) {
    const at::Tensor& gradient = parameter.grad();
    if (gradient.defined()) gradient.mul_(factor.to(gradient.device()));
  }
  return norm;
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
