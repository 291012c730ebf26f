// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Gradients that are the mean over the ranks of a process group where a rank steps them, and their norm.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>  // NoGradGuard
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>  // back_inserter
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/distributed/detail/agreement.hpp>
#include <root_optim/distributed/detail/bucket_exchange.hpp>  // Room
#include <root_optim/distributed/detail/collectives.hpp>
#include <root_optim/distributed/detail/gradient_agreement.hpp>
#include <root_optim/distributed/detail/rank_weight.hpp>
#include <root_optim/distributed/detail/reduction_plan.hpp>
#include <root_optim/distributed/detail/shared_optimizer.hpp>
#include <root_optim/distributed/reducer_options.hpp>
#include <root_optim/optimizer/detail/group_options.hpp>
#include <root_optim/optimizer/detail/ranks.hpp>
#include <root_optim/optimizer/optimizer.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// Averages gradients over ranks where they are stepped: g ← (g₁ + … + g_N)/N on the owner of a parameter alone.
/// With the step's exchange of values a rank sends what `GradientReducer` sends by itself, as plain data
/// parallelism does.
///
/// Called between `backward()` and `step()`; with several micro-batches, after the last one. Behind `reduce`
/// `.grad` holds the mean on the owner of a parameter, or in the rows that a rank owns of one that is cut.
/// Elsewhere it holds what `backward()` left there, this rank's own gradient, or 0 where that was missing. No
/// rank may use it for anything but `clip_norm` and `step`.
///
/// Gradients travel in their parameter's dtype, and are summed in the order of the ranks, in float32 (float64
/// for float64) and rounded once. So the bits of the mean depend on the number of ranks, but not on the
/// transport or on who owns what; they are those of a process that sums in this order.
///
/// Memory: two buckets as they are sent and as they are received, of `bucket_bytes` each, while it runs.
///         `bucket_bytes` count as at least 16 KiB for each rank.
/// Sends:  (N − 1)/N of the gradients' bytes per rank, from rank to rank, without padding.
/// Errors: as `GradientReducer`.
class OwnerReducer {
 public:
  /// @param optimizer distributed already; it must outlive this. All its parameters are reduced. From now on its
  /// steps take a cut gradient to be known in parts only: one small all_reduce more in each.
  /// @throws c10::Error on every rank if options differ; on this one for an optimizer that is not distributed.
  /// Collective.
  template <class F, class O>
  explicit OwnerReducer(OrthogonalizedOptimizer<F, O>& optimizer, ReducerOptions options = {})
      : OwnerReducer(expect_shared(optimizer), optimizer.param_groups(), options) {}

  /// Averages. Collective.
  void reduce();

  /// Scales the means so that their norm is at most `max_norm`: g ← g · min(1, max_norm/(‖g‖ + 1e-6)). Each
  /// owner scales its own. The norm is that of all gradients together, in float64, the same on all ranks; one
  /// small all_reduce. Where no parameter is cut it has the bits that one process finds; else it is rounded in
  /// another order. Collective. No host synchronization with the device.
  /// @param max_norm finite, > 0, equal on all ranks
  /// @return the norm before, one float64 number on the device of the first gradient; 0 without gradients
  at::Tensor clip_norm(double max_norm);

 private:
  template <class Shared>
  OwnerReducer(Shared* shared, const detail::Groups& groups, const ReducerOptions& options)
      : ranks_(shared->group(), options.timeout()),
        options_(options),
        owned_(detail::owned_rows(shared->partition(), groups)) {
    for (size_t g = 0; g < groups.size(); ++g) {
      const std::vector<at::Tensor>& params = groups[g].params();
      for (size_t i = 0; i < params.size(); ++i) {
        parameters_.push_back(params[i]);
        places_.emplace_back(g, i);
      }
    }
    detail::agree_on_reducer(
        ranks_, "OwnerReducer", parameters_, options_, [this](size_t i) { return where(i); },
        options_.overlap()
            ? "root_optim::OwnerReducer: expected no overlap, which GradientReducer has"
            : "");
    shared->gradients_at_owners();
  }

  template <class F, class O>
  static auto* expect_shared(OrthogonalizedOptimizer<F, O>& optimizer) {
    auto* shared = detail::shared_of(optimizer);
    TORCH_CHECK(shared != nullptr,
                "root_optim::OwnerReducer: expected an optimizer after `distribute`, got one of "
                "one process");
    TORCH_CHECK(shared->shards().empty(),
                "root_optim::OwnerReducer: expected no sharded parameters, whose gradients are not "
                "those of other "
                "ranks, got ",
                shared->shards().params().size(),
                ": average those of the other parameters with GradientReducer");
    return shared;
  }

  /// A bucket on its way.
  struct Flight {
    std::vector<std::vector<at::Tensor>> received;  ///< by parcel, from every rank; empty: not ours
    std::vector<detail::Started> started;
  };
  using Bucket = std::vector<detail::Parcel>;

  Flight send_off(const Bucket& bucket, const detail::BucketMemory& memory,
                  const at::Tensor& weight, int first_tag);
  void land(const Bucket& bucket, Flight& flight);
  std::string where(size_t i) const {
    return detail::describe(parameters_[i], places_[i].first, places_[i].second, {});
  }

  detail::Collectives ranks_;
  ReducerOptions options_;
  std::vector<detail::OwnedRows> owned_;
  std::vector<at::Tensor> parameters_;
  std::vector<std::pair<size_t, size_t>> places_;  // group and index of each
};

// ---------------------------------------------------------------------------------------------------

inline void OwnerReducer::reduce() {
  const at::NoGradGuard no_grad;
  ranks_.at("OwnerReducer::reduce");
  const std::vector<detail::GradientOfRanks> known =
      detail::agree_on_gradients(ranks_, "OwnerReducer", parameters_, options_.missing(),
                                 [this](size_t i) { return where(i); });

  // Zeros for what is missing, and the memory of two buckets, before any rank waits.
  std::string error;
  std::vector<at::Tensor> added(parameters_.size());
  std::vector<Bucket> buckets;
  detail::Room room;
  at::Tensor norm;  // of this rank's, where it is limited
  detail::attempt(error, [&] {
    if (options_.limit_ranks() > 0) norm = detail::norm_of_gradients(parameters_);
    std::vector<detail::OwnedRows> travelling;
    std::vector<at::ScalarType> dtypes;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const at::Tensor& parameter = parameters_[i];
      dtypes.push_back(known[i].other ? detail::state_dtype(parameter) : parameter.scalar_type());
      if (known[i].reduced && !parameter.grad().defined()) added[i] = at::zeros_like(parameter);
    }
    std::copy_if(owned_.begin(), owned_.end(), std::back_inserter(travelling),
                 [&](const detail::OwnedRows& rows) { return known[rows.parameter].reduced; });
    constexpr int64_t least_bytes = int64_t{1} << 14;
    buckets =
        detail::reduction_buckets(parameters_, dtypes, travelling,
                                  (std::max)(options_.bucket_bytes() / ranks_.size(), least_bytes));
    detail::take_room(room, buckets, [this](const detail::Parcel& parcel) {
      // Its owner keeps what every rank has sent.
      const int64_t copies = parcel.owner == ranks_.rank() ? ranks_.size() : 1;
      return std::pair(parcel.device.str(), detail::aligned(parcel.bytes()) * copies);
    });
  });
  detail::agree(ranks_, error);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (added[i].defined()) parameters_[i].mutable_grad() = added[i];
  }
  if (ranks_.size() == 1) return;  // the mean of one

  const at::Tensor weight =
      norm.defined() ? detail::rank_weight(ranks_, norm, options_.limit_ranks()) : at::Tensor();
  Flight before;
  int tag = 0;
  for (size_t b = 0; b < buckets.size(); ++b) {
    Flight flight = send_off(buckets[b], room[b % 2], weight, tag);
    tag += static_cast<int>(buckets[b].size());
    if (b > 0) land(buckets[b - 1], before);
    before = std::move(flight);
  }
  if (!buckets.empty()) land(buckets.back(), before);
}

/// Packs this rank's gradients, and starts what travels.
/// @param weight of this rank's gradients; undefined: 1
/// @param first_tag of the bucket's parcels, each of which has one
inline OwnerReducer::Flight OwnerReducer::send_off(const Bucket& bucket,
                                                   const detail::BucketMemory& memory,
                                                   const at::Tensor& weight, int first_tag) {
  Flight flight;
  std::map<std::string, int64_t> used;
  std::vector<at::Tensor> own;  // this rank's numbers, by parcel
  for (const detail::Parcel& parcel : bucket) {
    const bool ours = parcel.owner == ranks_.rank();
    const auto place = [&] {
      int64_t& end = used[parcel.device.str()];
      const at::Tensor bytes = memory.at(parcel.device.str()).narrow(0, end, parcel.bytes());
      end += detail::aligned(parcel.bytes());
      return bytes.view(parcel.dtype);
    };
    flight.received.emplace_back();
    for (int64_t r = 0; ours && r < ranks_.size(); ++r) flight.received.back().push_back(place());
    own.push_back(ours ? flight.received.back()[static_cast<size_t>(ranks_.rank())] : place());
    int64_t end = 0;
    for (const detail::OwnedRows& rows : parcel.rows) {
      const at::Tensor part = rows.of(parameters_[rows.parameter].grad());
      own.back().narrow(0, end, part.numel()).view(part.sizes()).copy_(part);
      end += part.numel();
    }
    if (weight.defined()) own.back().mul_(weight.to(own.back().device()));
  }
  // Of two ranks the lower one sends first: a transport may make a message wait for the one before.
  for (int64_t peer = 0; peer < ranks_.size(); ++peer) {
    if (peer == ranks_.rank()) continue;
    for (const bool sends : {ranks_.rank() < peer, peer < ranks_.rank()}) {
      for (size_t p = 0; p < bucket.size(); ++p) {
        const int tag = first_tag + static_cast<int>(p);
        if (sends && bucket[p].owner == peer) {
          flight.started.push_back(ranks_.send(own[p].view(at::kByte), peer, tag));
        } else if (!sends && bucket[p].owner == ranks_.rank()) {
          flight.started.push_back(ranks_.receive(
              flight.received[p][static_cast<size_t>(peer)].view(at::kByte), peer, tag));
        }
      }
    }
  }
  return flight;
}

/// Waits for a bucket, and puts the means into the gradients.
inline void OwnerReducer::land(const Bucket& bucket, Flight& flight) {
  for (detail::Started& started : flight.started) ranks_.wait(started);
  for (size_t p = 0; p < bucket.size(); ++p) {
    const std::vector<at::Tensor>& of_ranks = flight.received[p];
    if (of_ranks.empty()) continue;
    const at::ScalarType dtype = bucket[p].dtype == at::kDouble ? at::kDouble : at::kFloat;
    const at::Tensor sum = of_ranks[0].to(dtype);  // itself, if it has it
    for (size_t r = 1; r < of_ranks.size(); ++r) sum.add_(of_ranks[r]);
    sum.div_(static_cast<double>(of_ranks.size()));
    int64_t end = 0;
    for (const detail::OwnedRows& rows : bucket[p].rows) {
      const at::Tensor part = rows.of(parameters_[rows.parameter].grad());
      part.copy_(sum.narrow(0, end, part.numel()).view(part.sizes()));
      end += part.numel();
    }
  }
}

inline at::Tensor OwnerReducer::clip_norm(double max_norm) {
  const at::NoGradGuard no_grad;
  ranks_.at("OwnerReducer::clip_norm");
  std::string error;
  std::vector<detail::OwnedRows> owned;  // of what has a gradient
  at::Tensor norms = at::zeros({0}, at::kDouble);
  detail::attempt(error, [&] {
    detail::check_max_norm("OwnerReducer", max_norm);
    for (const detail::OwnedRows& rows : owned_) {
      const at::Tensor& gradient = parameters_[rows.parameter].grad();
      if (!gradient.defined()) continue;
      detail::check_gradient(parameters_[rows.parameter], gradient, where(rows.parameter));
      owned.push_back(rows);
    }
    if (owned.empty()) return;
    norms = at::zeros({static_cast<int64_t>(owned.size())},
                      parameters_[owned.front().parameter].grad().options().dtype(at::kDouble));
    for (size_t k = 0; k < owned.size(); ++k) {
      if (owned[k].owner != ranks_.rank()) continue;
      const at::Tensor part = owned[k].of(parameters_[owned[k].parameter].grad());
      norms.select(0, static_cast<int64_t>(k))
          .copy_(at::linalg_vector_norm(part, 2, {}, false, at::kDouble));
    }
  });
  detail::agree(ranks_, error, detail::clipping(max_norm, owned.size()));
  if (owned.empty()) return at::zeros({}, at::kDouble);
  // Each norm is one rank's, and 0 on the others: the sum is exact in any order.
  detail::Started started = ranks_.all_reduce(norms, c10d::ReduceOp::SUM);
  ranks_.wait(started);
  std::vector<at::Tensor> of_parameters;
  for (size_t k = 0; k < owned.size();) {
    size_t end = k;
    while (end < owned.size() && owned[end].parameter == owned[k].parameter) ++end;
    const at::Tensor parts = norms.slice(0, static_cast<int64_t>(k), static_cast<int64_t>(end));
    of_parameters.push_back(end == k + 1 ? parts.squeeze(0) : at::linalg_vector_norm(parts));
    k = end;
  }
  const at::Tensor norm = at::linalg_vector_norm(at::stack(of_parameters));
  const at::Tensor factor = detail::clip_factor(norm, max_norm);
  for (const detail::OwnedRows& rows : owned) {
    if (rows.owner != ranks_.rank()) continue;
    const at::Tensor& gradient = parameters_[rows.parameter].grad();
    rows.of(gradient).mul_(factor.to(gradient.device()));
  }
  return norm;
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
