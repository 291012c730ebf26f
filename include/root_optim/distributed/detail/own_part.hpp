// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What this rank computes of a step, and the flags that decide for parameters of several ranks.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>

#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/core/state_key.hpp>
#include <root_optim/distributed/detail/agreement.hpp>
#include <root_optim/distributed/detail/collectives.hpp>
#include <root_optim/distributed/detail/ownership.hpp>
#include <root_optim/distributed/detail/partition.hpp>
#include <root_optim/distributed/detail/step_adamw.hpp>
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
  void compute(const std::vector<Item>& bucket, Workspace* workspace, std::vector<Pending>& steps) {
    for (const Item& item : bucket) {
      const auto batch = batches.find(&item);
      if (batch == batches.end()) continue;
      if (item.adamw) {
        steps.push_back(pending_adamw(adamw[&item], *batch->second.options, workspace));
        adamw.erase(&item);
      } else {
        steps.push_back(step_matrices(batch->second, /*weight=*/{}, workspace));
      }
    }
  }
};

/// The gradients that those of a part are of; nothing if none is cut.
inline std::vector<at::Tensor> wholes_of(const AdamWPart& part, const Partition& partition) {
  std::vector<at::Tensor> wholes = part.gradients;
  bool any = false;
  for (size_t i = 0; i < wholes.size(); ++i) {
    for (const Piece& piece : partition.pieces) {
      if (!piece.tensor.is_same(part.parameters[i])) continue;
      wholes[i] = as_dtype(piece.whole.grad(), wholes[i].scalar_type());
      any = true;
    }
  }
  return any ? wholes : std::vector<at::Tensor>();
}

/// NonFinite::SkipGroup: of the AdamW parameters of a group on one device, one such gradient stops all, whoever owns
/// them. Collective.
template <class Options>
void join_flags(Collectives& ranks, const Partition& partition,
                const std::vector<PlannedParam<Options>>& planned, OwnPart<Options>& own,
                std::string& error) {
  std::map<size_t, at::Tensor> flags;  // by batch
  attempt(error, [&] {
    for (auto& [item, batch] : own.batches) {
      if (!item->adamw) continue;
      AdamWParts& mine = own.adamw[item] = adamw_parts(batch);
      if (batch.options->non_finite() != NonFinite::Propagate) {
        for (auto& [way, part] : mine) part.wholes = wholes_of(part, partition);
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
