// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Gradients that are the mean over the ranks of a process group, and their norm.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>  // NoGradGuard
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/distributed/detail/agreement.hpp>
#include <root_optim/distributed/detail/backward_hooks.hpp>
#include <root_optim/distributed/detail/collectives.hpp>
#include <root_optim/distributed/detail/gradient_agreement.hpp>
#include <root_optim/distributed/detail/gradient_buckets.hpp>
#include <root_optim/distributed/detail/group_claim.hpp>
#include <root_optim/distributed/detail/overlapped_sums.hpp>
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
/// With `ReducerOptions::overlap` sums travel while `backward()` computes the gradients before them. The bits are the
/// same, as long as some rank has a gradient of each parameter. `backward()` of all micro-batches but the last belongs
/// into the scope of a `no_sync()`; `reduce` follows every other.
///
/// Memory: two buckets; with overlap, a copy of all gradients.
/// Sends: 2(N − 1)/N of the gradients' bytes per rank (Gloo's all_reduce).
/// Errors: if any rank's gradients are not as expected, no gradient changes, and every rank throws its
///         message. If a rank dies or does not come, the others throw within the timeout; gradients may then
///         be averaged or not. (With overlap, not, on the CPU: they change when all sums are there.)
class GradientReducer {
 public:
  /// A scope in which `backward()` only adds to gradients, and nothing travels.
  class NoSync {
   public:
    ~NoSync() {
      if (sums_ != nullptr) sums_->go_on();
    }
    NoSync(const NoSync&) = delete;
    NoSync& operator=(const NoSync&) = delete;

   private:
    friend class GradientReducer;
    explicit NoSync(std::shared_ptr<detail::OverlappedSums> sums) : sums_(std::move(sums)) {
      if (sums_ != nullptr) sums_->pause();
    }
    std::shared_ptr<detail::OverlappedSums> sums_;
  };

  /// @param parameters the same on all ranks, in one order
  /// @param group of LibTorch, with a backend for the CPU, and for the parameters' devices; with overlap, one that
  /// nothing else uses from the first gradient of `backward()` to `reduce`
  /// @throws c10::Error on every rank if numbers, shapes or dtypes of parameters, or options, differ. Collective.
  GradientReducer(std::vector<at::Tensor> parameters, c10::intrusive_ptr<c10d::ProcessGroup> group,
                  ReducerOptions options = {});

  // `backward()` calls back here.
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  /// Averages. Collective.
  void reduce();

  /// With several micro-batches: `{ const auto only_add = reducer.no_sync(); loss.backward(); }` for all but the last.
  /// Scopes may be nested. Without overlap it changes nothing.
  [[nodiscard]] NoSync no_sync() { return NoSync(sums_); }

  /// Scales gradients that are equal on all ranks, as `reduce` leaves them, so that their norm is at most
  /// `max_norm`: g ← g · min(1, max_norm/(‖g‖ + 1e-6)). The norm is that of all gradients together, in
  /// float64, and rank 0's, so that all ranks scale by the same bits. Collective. No host synchronization
  /// with the device.
  /// @param max_norm finite, > 0, equal on all ranks
  /// @return the norm before, one float64 number on the device of the first gradient; 0 without gradients
  at::Tensor clip_norm(double max_norm);

 private:
  /// Gradients that travel together.
  struct Flight {
    std::vector<at::Tensor> gradients;
    at::Tensor flat;
    detail::Started started;
  };
  void exchange(const std::vector<detail::GradientOfRanks>& known, const at::Tensor& weight);
  void finish(Flight& flight);
  std::string where(size_t i) const { return detail::describe(parameters_[i], 0, i, {}); }

  std::vector<at::Tensor> parameters_;
  detail::Collectives ranks_;
  ReducerOptions options_;
  std::vector<std::vector<size_t>> buckets_;   ///< positions of parameters
  std::unique_ptr<detail::GroupClaim> claim_;  ///< null without overlap, like what follows
  std::shared_ptr<detail::OverlappedSums> sums_;
  std::unique_ptr<detail::BackwardHooks> hooks_;
};

// ---------------------------------------------------------------------------------------------------

inline GradientReducer::GradientReducer(std::vector<at::Tensor> parameters,
                                        c10::intrusive_ptr<c10d::ProcessGroup> group,
                                        ReducerOptions options)
    : parameters_(std::move(parameters)),
      ranks_(std::move(group), options.timeout()),
      options_(options) {
  const auto where_ = [this](size_t i) { return where(i); };
  detail::agree_on_reducer(ranks_, "GradientReducer", parameters_, options_, where_);
  buckets_ = detail::gradient_buckets(parameters_, options_.bucket_bytes());
  if (!options_.overlap()) return;
  std::string error;
  detail::attempt(error, [&] {
    claim_ = std::make_unique<detail::GroupClaim>(ranks_.group());
    sums_ = std::make_shared<detail::OverlappedSums>(ranks_, parameters_, buckets_, where_);
    hooks_ = std::make_unique<detail::BackwardHooks>(parameters_,
                                                     [this](size_t i) { sums_->gradient_came(i); });
  });
  detail::agree(ranks_, error);
}

inline void GradientReducer::reduce() {
  const at::NoGradGuard no_grad;
  ranks_.at("GradientReducer::reduce");
  const std::string wrong = sums_ != nullptr ? sums_->finish() : "";
  const std::vector<detail::GradientOfRanks> known = detail::agree_on_gradients(
      ranks_, "GradientReducer", parameters_, options_.missing(),
      [this](size_t i) { return where(i); }, wrong);

  // Zeros for what is missing, before any gradient changes.
  std::string error;
  std::vector<at::Tensor> added(parameters_.size());
  at::Tensor norm;  // of this rank's, where it is limited
  detail::attempt(error, [&] {
    if (options_.limit_ranks() > 0 && !parameters_.empty()) {
      norm = detail::norm_of_gradients(parameters_);
    }
    for (size_t i = 0; i < parameters_.size(); ++i) {
      if (known[i].reduced && !parameters_[i].grad().defined()) {
        added[i] = at::zeros_like(parameters_[i]);
      }
    }
  });
  detail::agree(ranks_, error);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (added[i].defined()) parameters_[i].mutable_grad() = added[i];
  }
  if (sums_ == nullptr) {
    exchange(known, norm.defined() ? detail::rank_weight(ranks_, norm, options_.limit_ranks())
                                   : at::Tensor());
    return;
  }
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& sum = sums_->sum(i);
    if (known[i].reduced && sum.defined()) {
      parameters_[i].mutable_grad().copy_(sum.div_(static_cast<double>(ranks_.size())));
    }
  }
}

/// Sums what some rank has, and puts the means into gradients.
/// @param weight of this rank's gradients; undefined: 1
inline void GradientReducer::exchange(const std::vector<detail::GradientOfRanks>& known,
                                      const at::Tensor& weight) {
  Flight before;
  for (const std::vector<size_t>& members : buckets_) {
    Flight flight;
    std::vector<at::Tensor> pieces;
    for (const size_t i : members) {
      if (!known[i].reduced) continue;
      flight.gradients.push_back(parameters_[i].grad());
      pieces.push_back(
          flight.gradients.back().to(detail::state_dtype(parameters_[i])).reshape({-1}));
    }
    if (pieces.empty()) continue;
    flight.flat = at::cat(pieces);
    if (weight.defined()) flight.flat.mul_(weight.to(flight.flat.device()));
    flight.started = ranks_.all_reduce(flight.flat, c10d::ReduceOp::SUM);
    if (before.flat.defined()) finish(before);
    before = std::move(flight);
  }
  if (before.flat.defined()) finish(before);
}

inline void GradientReducer::finish(Flight& flight) {
  ranks_.wait(flight.started);
  flight.flat.div_(static_cast<double>(ranks_.size()));
  int64_t first = 0;
  for (at::Tensor& gradient : flight.gradients) {
    gradient.copy_(flight.flat.narrow(0, first, gradient.numel()).view(gradient.sizes()));
    first += gradient.numel();
  }
}

inline at::Tensor GradientReducer::clip_norm(double max_norm) {
  const at::NoGradGuard no_grad;
  ranks_.at("GradientReducer::clip_norm");
  std::string error;
  std::vector<at::Tensor> gradients;
  at::Tensor norm = at::zeros({}, at::kDouble);
  detail::attempt(error, [&] {
    detail::check_max_norm("GradientReducer", max_norm);
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const at::Tensor& gradient = parameters_[i].grad();
      if (!gradient.defined()) continue;
      detail::check_gradient(parameters_[i], gradient, where(i));
      gradients.push_back(gradient);
    }
    if (!gradients.empty()) norm = detail::norm_together(gradients, gradients.front().device());
  });
  detail::agree(ranks_, error, detail::clipping(max_norm, gradients.size()));
  if (gradients.empty()) return norm;
  detail::Started started = ranks_.broadcast(norm, 0);
  ranks_.wait(started);
  const at::Tensor factor = detail::clip_factor(norm, max_norm);
  for (const at::Tensor& gradient : gradients) gradient.mul_(factor.to(gradient.device()));
  return norm;
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
