// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Checkpoints of one file a rank, for optimizers whose state is too large for one.
#pragma once

#include <ATen/core/grad_mode.h>  // NoGradGuard
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include <root_optim/distributed/detail/agreement.hpp>
#include <root_optim/distributed/detail/collectives.hpp>
#include <root_optim/distributed/detail/partition.hpp>
#include <root_optim/distributed/detail/shard_files.hpp>
#include <root_optim/distributed/detail/shared_optimizer.hpp>
#include <root_optim/distributed/detail/state_part.hpp>
#include <root_optim/optimizer/detail/group_options.hpp>
#include <root_optim/optimizer/detail/ranks.hpp>
#include <root_optim/optimizer/optimizer.hpp>
#include <root_optim/optimizer/options.hpp>
#include <root_optim/schedules/lr_scheduler.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

template <class F, class O>
ROOT_OPTIM_COLD void save_sharded(OrthogonalizedOptimizer<F, O>& optimizer,
                                  const ShardedSave& save) {
  const c10::InferenceMode normal_mode(false);
  const at::NoGradGuard no_grad;
  auto* shared = shared_of(optimizer);
  TORCH_CHECK(shared != nullptr,
              "root_optim::save_sharded: expected a distributed optimizer, got one of one process, "
              "which `save` writes");
  shared->together("save_sharded", [&](Collectives& ranks) {
    save_shards<OrthogonalizedOptions<F, O>>(
        ranks, shared->partition(), shared->whole_groups(optimizer.param_groups()),
        optimizer.state(), optimizer.gate_state(), shared->steps(), save);
  });
}

/// @param scheduler may be null
template <class F, class O>
ROOT_OPTIM_COLD int64_t load_sharded(OrthogonalizedOptimizer<F, O>& optimizer,
                                     LrScheduler* scheduler, const std::string& folder) {
  const c10::InferenceMode normal_mode(false);
  const at::NoGradGuard no_grad;
  using Options = OrthogonalizedOptions<F, O>;
  auto* shared = shared_of(optimizer);
  const Groups& groups =
      shared == nullptr ? optimizer.param_groups() : shared->whole_groups(optimizer.param_groups());
  LoadedShards<Options> loaded;
  const auto read = [&](const Partition* partition, int64_t rank, int64_t ranks) {
    loaded =
        load_shards<Options>(groups, parts_of(groups, partition), rank, ranks, folder, scheduler);
  };
  if (shared == nullptr) {
    read(nullptr, 0, 1);
  } else {
    shared->together("load_sharded", [&](Collectives& ranks) {
      std::string error;
      attempt(error, [&] { read(&shared->partition(), ranks.rank(), ranks.size()); });
      agree(ranks, error, {{"checkpoints to load", loaded.checksum}});
    });
    shared->loaded(loaded.checksum);
  }
  RanksAccess::commit(optimizer, loaded.restored);
  if (scheduler != nullptr) scheduler->restore(*loaded.manifest.scheduler);
  return loaded.manifest.step;
}

}  // namespace detail

/// Saves a distributed optimizer as one file a rank, into a folder that all ranks see. Collective.
///
/// Each rank writes what it keeps, under a name with the step, its rank and the number of ranks. Then rank 0
/// lists the sizes and digests of all files in `manifest.pt`, which replaces the old one as a whole, and deletes
/// the old set. All of it is brought onto the disk in this order: whenever a program, or all of them, are
/// killed, the folder has the old checkpoint or the new one, complete. What a killed save left is deleted by the
/// next.
///
/// The folder keeps one checkpoint. The step is for the names, and `load_sharded` returns it: who saves the model
/// under the same number first, and deletes older models afterwards, has both of one step.
///
/// Memory:  on each rank twice what it keeps, at most.  Sends: some numbers.
/// Errors:  if any rank cannot write, every rank throws its message, and the old checkpoint is there as it was.
///          If a rank dies or does not come, the others throw within the timeout, which must be longer than one rank
///          may be behind the others in writing; the folder then has the old checkpoint or the new one.
/// @param folder is made if it is not there
/// @param step >= 0, the same on all ranks
/// @throws c10::Error for an optimizer that is not distributed.
template <class F, class O>
void save_sharded(OrthogonalizedOptimizer<F, O>& optimizer, const std::string& folder,
                  int64_t step) {
  detail::save_sharded(optimizer, {folder, step, std::nullopt});
}

/// The same, with the step and the bases of a scheduler.
/// @param scheduler of this optimizer, as far on all ranks
template <class F, class O>
void save_sharded(OrthogonalizedOptimizer<F, O>& optimizer, const LrScheduler& scheduler,
                  const std::string& folder, int64_t step) {
  detail::save_sharded(optimizer, {folder, step, scheduler.state()});
}

/// Reads what `save_sharded` wrote, with any number of ranks, or as one process with an optimizer that is not
/// distributed. Collective if it is. The outcome is that of `consolidate`, `save` and `load`, bit by bit, and the same
/// must be equal. With as many ranks as saved, each reads its own file; otherwise those that it needs.
///
/// Memory:  what this rank keeps, twice, and twice the largest file.
/// Errors:  as of `load`; also for a manifest or a file that is missing, cut short or damaged, by its name. Every
///          rank throws the failing rank's message, and nothing has changed on any. Files are read before that, one
///          by one: the timeout of the group must allow for a rank that is slower in it.
/// @return the step that was given to `save_sharded`
template <class F, class O>
int64_t load_sharded(OrthogonalizedOptimizer<F, O>& optimizer, const std::string& folder) {
  return detail::load_sharded(optimizer, nullptr, folder);
}

/// The same, with the scheduler's step and bases, as `load(optimizer, scheduler, path)`. A checkpoint without them
/// is an error.
template <class F, class O>
int64_t load_sharded(OrthogonalizedOptimizer<F, O>& optimizer, LrScheduler& scheduler,
                     const std::string& folder) {
  return detail::load_sharded(optimizer, &scheduler, folder);
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
