// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// An optimizer whose steps and state the ranks of a process group share.
#pragma once

#include <ATen/core/grad_mode.h>  // NoGradGuard
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include <root_optim/core/policy.hpp>
#include <root_optim/distributed/detail/collectives.hpp>
#include <root_optim/distributed/detail/shared_optimizer.hpp>
#include <root_optim/distributed/options.hpp>
#include <root_optim/optimizer/detail/ranks.hpp>
#include <root_optim/optimizer/optimizer.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// Lets the ranks of a process group share an optimizer: each keeps the state of what it owns, steps that,
/// and sends the new values to the others. The optimizer stays what it was for schedulers, closures and
/// groups; `step` is collective from now on.
///
/// Each batch of matrices has one owner, by cost; tensors that follow AdamW level the bytes of state, large
/// ones by being cut between rows. Given equal gradients, parameters are bit for bit those of one process, for every
/// number of ranks, on equal CPUs with equal numbers of threads and one version of LibTorch. What differs
/// between ranks that a step would notice is compared here: options, shapes, names, values, state, threads,
/// versions.
///
/// Parameters that are spread over the ranks are those that `DistributedOptions::sharded` names: their owner gets
/// them whole for a step, and the bits are those of one process that has them whole.
///
/// A step sends each parameter's value from its owner to the others, (N − 1)/N of the parameters' bytes per
/// rank, and a small header for the step and for each bucket. Gradients must be equal on all ranks, which `GradientReducer` sees to, or right
/// on owners, which `OwnerReducer` sees to.
///
/// Memory:  state / N, two buckets (`DistributedOptions::bucket_bytes`), and the next state of what this rank
///          owns of them.
/// Errors:  what any rank meets before the first exchange of a step changes nothing anywhere; what it meets
///          later leaves each bucket as before the step or as after it, on all ranks alike. Every rank
///          throws the failing rank's message, and may go on.
///          If a rank dies or does not come, the others throw within the timeout; they may differ by the
///          buckets in flight, and refuse further steps.
/// Sync:    on CPU tensors `step` waits for the other ranks. On other devices it waits for their headers,
///          which travel by the group's CPU backend; the values are ordered on the device's stream.
/// @param optimizer with all its groups; may have state, the same on all ranks.
/// @param group has a backend for the CPU, and for the devices of parameters. The optimizer shares
/// it, so that it need not be kept alive.
/// @throws c10::Error on every rank if ranks differ, if any rank's optimizer is distributed already, or with
/// ShardedAdaNewton; on
/// this rank alone for a group that cannot be used. Nothing has changed then.
///
/// Example: see examples/distributed/language_model
template <class F, class O>
void distribute(OrthogonalizedOptimizer<F, O>& optimizer,
                c10::intrusive_ptr<c10d::ProcessGroup> group,
                const DistributedOptions& options = {}) {
  const c10::InferenceMode normal_mode(false);
  const at::NoGradGuard no_grad;
  std::string error;
  if (optimizer.is_distributed()) {
    error = "root_optim::distribute: expected an optimizer of one process, got a distributed one";
  }
  if (detail::is_collective<O>::value) {
    error = c10::str("root_optim::distribute: expected a policy that one rank can call, got '",
                     O::name, "', which ranks call together: step the optimizer as it is");
  }
  auto shared = std::make_unique<detail::SharedOptimizer<OrthogonalizedOptions<F, O>>>(
      std::move(group), options, optimizer.param_groups(), optimizer.state(),
      optimizer.gate_state(), std::move(error));
  detail::RanksAccess::ranks(optimizer) = std::move(shared);
}

/// Brings the state of all parameters to one rank, which can then save as one process would: the file is
/// byte for byte the same. Collective. It stays there until the next step or `release_workspace`; saving
/// without it is an error.
///
/// Memory: on that rank the whole state, beside its own part; on the others nothing but copies of tensors
/// that are not contiguous.
/// @param to the rank that gets it. The same on all ranks.
/// @throws c10::Error on every rank if `to` is no rank, or not the same; for an optimizer that is not
/// distributed.
template <class F, class O>
void consolidate(OrthogonalizedOptimizer<F, O>& optimizer, int64_t to) {
  const c10::InferenceMode normal_mode(false);
  const at::NoGradGuard no_grad;
  auto* shared = detail::shared_of(optimizer);
  TORCH_CHECK(shared != nullptr,
              "root_optim::consolidate: expected a distributed optimizer, got one of one process");
  shared->consolidate(optimizer.param_groups(), optimizer.state(), to);
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
