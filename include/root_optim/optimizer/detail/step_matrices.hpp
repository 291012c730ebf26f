// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// One step of a batch of matrices: the stages, weight decay and update.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include <root_optim/kernels/workspace.hpp>
#include <root_optim/optimizer/detail/batch.hpp>
#include <root_optim/optimizer/detail/fault_guard.hpp>
#include <root_optim/optimizer/detail/matrix_update.hpp>
#include <root_optim/optimizer/detail/pending.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>  // state_dtype
#include <root_optim/parameters/layout.hpp>
#include <root_optim/stages/master_weights.hpp>
#include <root_optim/stages/update.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// The shape of tensors of one shape along a new first dimension.
inline std::vector<int64_t> stacked_sizes(const std::vector<at::Tensor>& tensors) {
  std::vector<int64_t> shape = tensors.front().sizes().vec();
  shape.insert(shape.begin(), static_cast<int64_t>(tensors.size()));
  return shape;
}

/// Tensors of one shape along a new first dimension, in `dtype`; a view when there is only one of it.
inline at::Tensor stack(const std::vector<at::Tensor>& tensors, at::ScalarType dtype,
                        Workspace* workspace) {
  if (tensors.size() == 1) return as_dtype(tensors.front(), dtype).unsqueeze(0);
  const at::ScalarType own = tensors.front().scalar_type();
  const bool same = std::all_of(tensors.begin(), tensors.end(), [own](const at::Tensor& tensor) {
    return tensor.scalar_type() == own;
  });
  std::vector<at::Tensor> converted = tensors;
  if (!same) {
    for (at::Tensor& tensor : converted) tensor = as_dtype(tensor, dtype);
  }
  at::Tensor stacked = temporary(workspace, stacked_sizes(tensors), converted.front().options());
  return as_dtype(at::stack_out(stacked, converted), dtype);
}

/// Steps equally shaped parameters of one group, on one device, as one batch. Everything is computed into
/// new tensors, for `Pending::commit`: an error leaves all of the batch as it was.
/// @param weight of the step, see norm_gate.hpp; undefined: 1.
template <class Options>
Pending step_matrices(const Batch<Options>& batch, const at::Tensor& weight, Workspace* workspace) {
  const Options& options = *batch.options;
  const std::vector<at::Tensor>& parameters = batch.parameters;
  const at::ScalarType dtype = state_dtype(parameters.front());
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& parameter : parameters) gradients.push_back(parameter.grad());
  const auto tensors_of = [&batch](const char* name) {
    std::vector<at::Tensor> tensors;
    for (ParamState* state : batch.states) tensors.push_back(state->slot(name));
    return tensors;
  };
  const auto old = [&](const char* name) { return stack(tensors_of(name), dtype, workspace); };
  const at::Tensor taken = options.momentum_warmup() > 0 ? taken_steps(batch.states) : at::Tensor();
  FaultGuard guard(options.non_finite());
  MatrixUpdate update =
      matrix_update(options, options.filter(), options.orthogonalizer(),
                    stack(gradients, dtype, workspace), old, {taken, weight}, guard, workspace);

  const std::optional<DeviceRates> rates = device_rates(batch);
  at::Tensor values =
      temporary(workspace, stacked_sizes(parameters), parameters.front().options().dtype(dtype));
  const bool has_masters = batch.states.front()->master().defined();
  {
    const at::Tensor weights =
        has_masters ? current_weight(stack(parameters, parameters.front().scalar_type(), workspace),
                                     old("master"), workspace)
                    : stack(parameters, dtype, workspace);
    const std::vector<at::Tensor> to = block_views(values, options.layout()),
                                  from = block_views(weights, options.layout());
    for (size_t block = 0; block < to.size(); ++block) {
      Direction& direction = update.directions[block];
      const at::Tensor matrices = direction.matrices.reshape(to[block].sizes());
      if (rates) {
        update_parameter(to[block], from[block], matrices, *rates, direction.scale);
      } else {
        update_parameter(to[block], from[block], matrices, options.lr(), direction.scale,
                         options.weight_decay());
      }
      direction.matrices.reset();
    }
  }
  if (has_masters) update.state.push_back({"master", values});
  if (guard.is_active()) {
    values = guard.choose(values, stack(parameters, dtype, workspace));
    for (NextSlot& next : update.state) next.value = guard.choose(next.value, old(next.name));
  }

  std::vector<at::Tensor> ready = as_dtype(values, parameters.front().scalar_type()).unbind(0);
  for (size_t i = 0; i < ready.size(); ++i) ready[i] = ready_for(parameters[i], ready[i]);
  Pending pending;
  pending.add(parameters, std::move(ready), batch.states);
  for (NextSlot& next : update.state) {
    pending.copies.add(tensors_of(next.name), next.value.unbind(0));
  }
  add_counters(pending.copies, batch.states, guard.counters(batch.states));
  add_device_steps(pending.copies, batch.states, next_device_steps(batch.states));
  pending.skipped = guard.first_skipped(parameters);
  return pending;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
