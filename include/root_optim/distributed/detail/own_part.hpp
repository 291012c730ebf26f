// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What this rank computes of a step, and the flags that decide for parameters of several ranks.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/core/state_key.hpp>
#include <root_optim/distributed/detail/agreement.hpp>
#include <root_optim/distributed/detail/collectives.hpp>
#include <root_optim/distributed/detail/ownership.hpp>
#include <root_optim/distributed/detail/partition.hpp>
#include <root_optim/distributed/detail/pending_adamw.hpp>
#include <root_optim/kernels/max_abs.hpp>
#include <root_optim/kernels/workspace.hpp>
#include <root_optim/optimizer/detail/batch.hpp>
#include <root_optim/optimizer/detail/pending.hpp>
#include <root_optim/optimizer/detail/plan.hpp>
#include <root_optim/optimizer/detail/step_adamw.hpp>
#include <root_optim/optimizer/detail/step_matrices.hpp>
#include <root_optim/optimizer/options.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// This rank's items that have gradients.
template <class Options>
struct OwnPart {
  std::map<const Item*, Batch<Options>> batches;
  std::map<const Item*, AdamWParts> adamw;  ///< of those that follow it

  /// Plans them, and bounds the memory of the step.
  void plan(const Partition& partition, std::vector<PlannedParam<Options>>& planned,
            StateMap& states, Workspace* workspace) {
    std::vector<Batch<Options>> all;
    partition.for_each_own_item([&](const Item& item) {
      Batch<Options> batch = make_batch(planned, item.members, states);
      if (batch.parameters.empty()) return;
      all.push_back(batch);
      batches.emplace(&item, std::move(batch));
    });
    workspace->set_limit(workspace_bytes(all) + partition.bytes_in_flight());
  }

  /// The steps of this rank's items of a bucket, which change nothing yet, behind those in `steps`.
  /// @param weight of the step, see norm_gate.hpp; undefined: 1
  void compute(const std::vector<Item>& bucket, const at::Tensor& weight, Workspace* workspace,
               std::vector<Pending>& steps) {
    for (const Item& item : bucket) {
      const auto batch = batches.find(&item);
      if (batch == batches.end()) continue;
      if (item.adamw) {
        steps.push_back(pending_adamw(adamw[&item], *batch->second.options, weight, workspace));
        adamw.erase(&item);
      } else {
        steps.push_back(step_matrices(batch->second, weight, workspace));
      }
    }
  }
};

/// What a cut gradient is judged by if each owner has its own rows of it alone: the largest magnitude of all
/// rows, and the one that is left when Inf and NaN count as 0. Collective.
/// @return of each piece, undefined for those that are not judged
template <class Options>
std::vector<at::Tensor> magnitudes_of_wholes(Collectives& ranks, const Partition& partition,
                                             const std::vector<PlannedParam<Options>>& planned,
                                             std::string& error) {
  const std::vector<Piece>& pieces = partition.pieces;
  const auto params = static_cast<size_t>(partition.params);
  std::map<std::string, std::vector<size_t>> judged;  // by device
  for (size_t p = 0; p < pieces.size(); ++p) {
    const PlannedParam<Options>& item = planned[params + p];
    if (!item.steps || item.options->non_finite() == NonFinite::Propagate) continue;
    judged[item.parameter.device().str()].push_back(p);
  }
  std::vector<at::Tensor> magnitudes(pieces.size());
  for (const auto& [device, which] : judged) {
    const at::Tensor all = at::zeros(
        {static_cast<int64_t>(which.size()), 2},
        at::TensorOptions().dtype(at::kDouble).device(pieces[which.front()].tensor.device()));
    attempt(error, [&, &own = which] {
      for (size_t k = 0; k < own.size(); ++k) {
        const PlannedParam<Options>& item = planned[params + own[k]];
        if (!partition.owns(pieces[own[k]])) continue;
        const at::Tensor rows = as_dtype(item.parameter.grad(), state_dtype(item.parameter));
        at::Tensor of_piece = max_abs_each({rows}).reshape({1});
        at::Tensor cleaned = of_piece;
        if (item.options->non_finite() == NonFinite::Zero) {
          cleaned = max_abs_each({at::nan_to_num(rows, 0.0, 0.0, 0.0)}).reshape({1});
        }
        all.select(0, static_cast<int64_t>(k)).copy_(at::cat({of_piece, cleaned}));
      }
    });
    // Every number is one rank's, and 0 on the others: their sum is exact, and keeps NaN.
    Started started = ranks.all_reduce(all, c10d::ReduceOp::SUM);
    ranks.wait(started);
    attempt(error, [&, &own = which] {
      for (size_t k = 0; k < own.size();) {
        size_t end = k;  // the pieces of a parameter come in a row
        while (end < own.size() && pieces[own[end]].whole.is_same(pieces[own[k]].whole)) ++end;
        const at::Tensor most =
            all.slice(0, static_cast<int64_t>(k), static_cast<int64_t>(end)).amax(0);
        for (; k < end; ++k) {
          magnitudes[own[k]] = most.to(state_dtype(pieces[own[k]].whole));
        }
      }
    });
  }
  return magnitudes;
}

/// The gradients that those of a part are of, or what stands for them; nothing if none is cut.
/// @param magnitudes as `magnitudes_of_wholes` gives them; empty: every rank has whole gradients
inline std::vector<at::Tensor> wholes_of(const AdamWPart& part, const Partition& partition,
                                         const std::vector<at::Tensor>& magnitudes) {
  std::vector<at::Tensor> wholes = part.gradients;
  bool any = false;
  for (size_t i = 0; i < wholes.size(); ++i) {
    for (size_t p = 0; p < partition.pieces.size(); ++p) {
      const Piece& piece = partition.pieces[p];
      if (!piece.tensor.is_same(part.parameters[i])) continue;
      wholes[i] = magnitudes.empty() ? as_dtype(piece.whole.grad(), wholes[i].scalar_type())
                                     : magnitudes[p];
      any = true;
    }
  }
  return any ? wholes : std::vector<at::Tensor>();
}

/// NonFinite::SkipGroup: of the AdamW parameters of a group on one device, one such gradient stops all, whoever owns
/// them. Collective.
/// @param magnitudes of `wholes_of`
template <class Options>
void join_flags(Collectives& ranks, const Partition& partition,
                const std::vector<PlannedParam<Options>>& planned,
                const std::vector<at::Tensor>& magnitudes, OwnPart<Options>& own,
                std::string& error) {
  std::map<size_t, at::Tensor> flags;  // by batch
  attempt(error, [&] {
    for (auto& [item, batch] : own.batches) {
      if (!item->adamw) continue;
      AdamWParts& mine = own.adamw[item] = adamw_parts(batch);
      if (batch.options->non_finite() != NonFinite::Propagate) {
        for (auto& [way, part] : mine) part.wholes = wholes_of(part, partition, magnitudes);
        guard_parts(mine);
      }
      if (batch.options->non_finite() != NonFinite::SkipGroup) continue;
      const at::Tensor usable = all_usable(mine);
      at::Tensor& flag = flags[item->batch];
      flag = flag.defined() ? flag.bitwise_and(usable) : usable;
    }
  });
  // One number for each batch that has gradients, on any rank; batches of one device together.
  std::map<std::string, std::pair<std::vector<size_t>, std::vector<at::Tensor>>> by_device;
  std::map<size_t, at::Device> batches;
  for (const std::vector<Item>& bucket : partition.buckets) {
    for (const Item& item : bucket) {
      const PlannedParam<Options>& first = planned[item.members.front()];
      if (item.adamw && first.options->non_finite() == NonFinite::SkipGroup &&
          item_steps(planned, item)) {
        batches.emplace(item.batch, first.parameter.device());
      }
    }
  }
  for (const auto& [batch, device] : batches) {
    auto& [which, numbers] = by_device[device.str()];
    which.push_back(batch);
    const auto found = flags.find(batch);
    numbers.push_back(found != flags.end() && error.empty()
                          ? found->second.to(at::kInt)
                          : at::ones({}, at::TensorOptions().dtype(at::kInt).device(device)));
  }
  for (auto& [device, of_device] : by_device) {
    auto& [which, numbers] = of_device;
    const at::Tensor joined = at::stack(numbers);
    Started started = ranks.all_reduce(joined, c10d::ReduceOp::MIN);
    ranks.wait(started);
    const std::vector<at::Tensor> usable = joined.to(at::kBool).unbind(0);
    for (size_t i = 0; i < which.size(); ++i) flags[which[i]] = usable[i];
  }
  attempt(error, [&] {
    for (auto& [item, mine] : own.adamw) {
      const auto found = flags.find(item->batch);
      if (found == flags.end()) continue;
      for (auto& [way, part] : mine) part.guard.decide(found->second);
    }
  });
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
