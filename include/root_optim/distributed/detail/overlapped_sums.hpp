// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Sums of gradients over ranks that travel while `backward()` computes the next ones.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>  // NoGradGuard
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/distributed/detail/agreement.hpp>
#include <root_optim/distributed/detail/backward_hooks.hpp>
#include <root_optim/distributed/detail/collectives.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Gradients are copied into buckets, in the dtype of sums, as they come; a bucket that is full starts to travel.
///
/// Buckets start in their order, and all of them, whatever gradients this rank has: so what travels is the same on
/// all ranks, in number, order and size, and no rank has to know what the others have.
class OverlappedSums {
 public:
  /// @param buckets positions of parameters, on all ranks the same
  /// @param where(i) names a parameter
  OverlappedSums(Collectives& ranks, std::vector<at::Tensor> parameters,
                 const std::vector<std::vector<size_t>>& buckets,
                 std::function<std::string(size_t)> where)
      : ranks_(ranks),
        parameters_(std::move(parameters)),
        where_(std::move(where)),
        entries_(parameters_.size()) {
    for (const std::vector<size_t>& members : buckets) {
      int64_t numel = 0;
      for (const size_t i : members) numel += parameters_[i].numel();
      const at::Tensor& first = parameters_[members.front()];
      const at::Tensor flat =
          at::zeros({numel}, first.options().dtype(state_dtype(first)).requires_grad(false));
      int64_t end = 0;
      for (const size_t i : members) {
        entries_[i].bucket = buckets_.size();
        entries_[i].sum = flat.narrow(0, end, parameters_[i].numel()).view(parameters_[i].sizes());
        end += parameters_[i].numel();
      }
      buckets_.push_back({flat, members.size(), members.size(), {}});
    }
  }

  /// To be called when `backward()` has brought a gradient.
  void gradient_came(size_t i) {
    const at::NoGradGuard no_grad;
    const std::lock_guard<std::mutex> lock(mutex_);  // one thread of each device
    Entry& entry = entries_[i];
    if (!ranks_.lost().empty() || paused_ > 0 || !entry.sum.defined() || entry.packed) return;
    if (!parameters_[i].grad().defined()) return;  // backward() came by, and brought nothing
    attempt(error_, [&] {
      entry.gradient = parameters_[i].grad();
      entry.version = entry.gradient._version();
    });
    pack(i);
    ranks_.at("GradientReducer, while backward() runs");
    start_full();
  }

  /// Starts what `backward()` has not, with zeros where gradients are missing, and waits for all. Collective.
  /// @return what is wrong with this rank's gradients; empty if nothing
  std::string finish() {
    ranks_.check_not_lost("GradientReducer", "what has travelled cannot be known: ");
    for (size_t i = 0; i < entries_.size(); ++i) {
      if (!entries_[i].sum.defined()) continue;
      if (entries_[i].packed) {
        attempt(error_, [&] { check_unchanged(i); });
      } else if (parameters_[i].grad().defined()) {
        pack(i);
      } else {
        entries_[i].sum.zero_();
        --buckets_[entries_[i].bucket].missing;
      }
    }
    start_full();
    for (Bucket& bucket : buckets_) {
      ranks_.wait(bucket.started);
      bucket.started = {};
      bucket.missing = bucket.size;
    }
    for (Entry& entry : entries_) {
      entry.gradient.reset();
      entry.packed = false;
    }
    next_ = 0;
    return std::exchange(error_, {});
  }

  /// The sum over ranks, after `finish`; in the parameter's shape.
  const at::Tensor& sum(size_t i) const { return entries_[i].sum; }

  /// While there is a pause, gradients that come stay here. Pauses may be nested.
  void pause() { ++paused_; }
  void go_on() { --paused_; }

 private:
  struct Entry {
    size_t bucket = 0;
    at::Tensor sum;  ///< a view of the bucket; undefined: of no entries
    bool packed = false;
    at::Tensor gradient;  ///< that `backward()` brought, with its version then
    int64_t version = 0;
  };
  struct Bucket {
    at::Tensor flat;
    size_t size, missing;  ///< numbers of gradients
    Started started;
  };

  void pack(size_t i) {
    Entry& entry = entries_[i];
    attempt(error_, [&] {
      check_gradient(parameters_[i], parameters_[i].grad(), where_(i));
      entry.sum.copy_(parameters_[i].grad());
    });
    entry.packed = true;  // the bucket travels even so: the others wait for it
    --buckets_[entry.bucket].missing;
  }

  /// What was sent would not be what is there.
  void check_unchanged(size_t i) const {
    const at::Tensor& gradient = parameters_[i].grad();
    TORCH_CHECK(
        gradient.is_same(entries_[i].gradient) && gradient._version() == entries_[i].version,
        "root_optim::GradientReducer: expected that no gradient changes between backward(), which "
        "sends it, and reduce(), got a change of ",
        where_(i),
        "; backward() of all micro-batches but the last needs the scope of a no_sync(), and "
        "reduce() "
        "follows every other");
  }

  void start_full() {
    for (; next_ < buckets_.size() && buckets_[next_].missing == 0; ++next_) {
      buckets_[next_].started = ranks_.all_reduce(buckets_[next_].flat, c10d::ReduceOp::SUM);
    }
  }

  Collectives& ranks_;
  std::vector<at::Tensor> parameters_;
  std::function<std::string(size_t)> where_;
  std::vector<Entry> entries_;  ///< of each parameter
  std::vector<Bucket> buckets_;
  size_t next_ = 0;  ///< the first bucket that has not started
  std::string error_;
  std::mutex mutex_;
  std::atomic<int64_t> paused_{0};
};

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
