// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// One step of a batch of matrices: filter, momentum, orthogonalizer, update, commit. The mathematics of
// each stage is in momentum.hpp, soft_threshold.hpp, newton_schulz.hpp and update.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/stack.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <algorithm>
#include <cstddef>
#include <string>
#include <type_traits>  // is_same_v
#include <utility>
#include <vector>

#include <root_optim/filters/soft_threshold.hpp>  // NoFilter
#include <root_optim/kernels/max_abs.hpp>
#include <root_optim/kernels/workspace.hpp>
#include <root_optim/optimizer/detail/commit.hpp>
#include <root_optim/optimizer/detail/filtering.hpp>
#include <root_optim/optimizer/detail/non_finite.hpp>
#include <root_optim/optimizer/options.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>  // is_supported
#include <root_optim/parameters/layout.hpp>
#include <root_optim/stages/momentum.hpp>
#include <root_optim/stages/update.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Tensors of one shape along a new first dimension, in `dtype`; a view when there is only one of it.
inline at::Tensor stack(const std::vector<at::Tensor>& tensors, at::ScalarType dtype) {
  if (tensors.size() == 1) return as_dtype(tensors.front(), dtype).unsqueeze(0);
  const at::ScalarType own = tensors.front().scalar_type();
  const bool same = std::all_of(tensors.begin(), tensors.end(), [own](const at::Tensor& tensor) {
    return tensor.scalar_type() == own;
  });
  std::vector<at::Tensor> converted = tensors;
  if (!same) {
    for (at::Tensor& tensor : converted) tensor = as_dtype(tensor, dtype);
  }
  std::vector<int64_t> shape = tensors.front().sizes().vec();
  shape.insert(shape.begin(), static_cast<int64_t>(tensors.size()));
  at::Tensor stacked = temporary(shape, converted.front().options());
  return as_dtype(at::stack_out(stacked, converted), dtype);
}

/// policy(x). If x is the last that needs its memory, it may be overwritten.
template <class Policy>
at::Tensor applied(const Policy& policy, at::Tensor x) {
  if constexpr (has_consume<Policy>::value) {
    if (is_sole_owner(x)) return policy.consume(std::move(x));
  }
  return policy(x);
}

/// Steps equally shaped parameters of one group, on one device, as one batch.
///
/// Order: everything is computed into new tensors, then committed: an error leaves all of the batch as
///        it was.
template <class F, class O>
void step_matrices(const OrthogonalizedOptions<F, O>& options,
                   const std::vector<at::Tensor>& parameters,
                   const std::vector<ParamState*>& states) {
  const at::ScalarType dtype = state_dtype(parameters.front());
  std::vector<at::Tensor> gradients, buffers;
  for (size_t i = 0; i < parameters.size(); ++i) {
    gradients.push_back(parameters[i].grad());
    buffers.push_back(states[i]->momentum_buffer());
  }
  const bool guarded = options.non_finite() != NonFinite::Propagate;
  at::Tensor gradient = stack(gradients, dtype);
  at::Tensor own;  // of each gradient: whether it is finite, where it is not simply `usable`
  if (options.non_finite() == NonFinite::Zero) {
    own = is_finite(max_abs(gradient)).reshape({-1});
    gradient = cleaned(gradient, NonFinite::Zero);
  }
  const bool filters_gradient =
      options.filter_place() != FilterPlace::Momentum && !std::is_same_v<F, NoFilter>;
  at::Tensor finite;  // whether each gradient is, before a filter clips Inf
  if (filters_gradient) {
    if (guarded) finite = is_finite(max_abs(gradient));
    gradient = filtered(gradient, options.filter(), options.layout());
  }
  Momentum momentum = accumulate_momentum(stack(buffers, dtype), gradient, options.momentum(),
                                          options.momentum_form(), options.nesterov());
  gradient.reset();
  at::Tensor usable = guarded ? is_finite(max_abs(momentum.update)) : at::Tensor();
  if (finite.defined()) usable = usable.bitwise_and(finite);

  // Each tensor is released where the next one takes its place: beside M at most three matrices.
  std::vector<at::Tensor> sources = block_views(momentum.update, options.layout()), directions;
  momentum.update.reset();
  for (at::Tensor& source : sources) {
    // Without autograd's record of what it is a view of, which would count as another owner.
    at::Tensor matrices = block_matrices(source, options.layout()).variable_data();
    source.reset();
    const auto shape = matrices.sizes().vec();
    at::Tensor body =
        filters_gradient ? std::move(matrices) : applied(options.filter(), std::move(matrices));
    at::Tensor direction = applied(options.orthogonalizer(), std::move(body));
    TORCH_CHECK(direction.defined() && direction.sizes() == c10::IntArrayRef(shape) &&
                    is_supported(direction.scalar_type()),
                "root_optim::step: expected policies '", F::name, "' and '", O::name,
                "' to keep the shape ", c10::IntArrayRef(shape), " and a real dtype, got ",
                direction.defined()
                    ? c10::str(direction.sizes(), " of ", c10::toString(direction.scalar_type()))
                    : std::string("no tensor"));
    directions.push_back(std::move(direction));
  }
  at::Tensor values =
      decayed(stack(parameters, dtype), options.lr(), options.weight_decay(), dtype);
  size_t block = 0;
  for (const at::Tensor& value : block_views(values, options.layout())) {
    at::Tensor& direction = directions[block++];
    const double scale = lr_scale(options.scale(), direction.size(1), direction.size(2));
    add_direction(value, direction.reshape(value.sizes()), options.lr(), scale);
    direction.reset();
  }
  FaultCounters counters;
  if (guarded) {
    values = where_usable(usable, values, stack(parameters, dtype));
    momentum.buffer = where_usable(usable, momentum.buffer, stack(buffers, dtype));
    const at::Tensor taken = usable.reshape({-1});
    counters = next_counters(states, taken, own.defined() ? own.bitwise_and(taken) : taken);
  }

  std::vector<at::Tensor> ready = as_dtype(values, parameters.front().scalar_type()).unbind(0);
  for (size_t i = 0; i < ready.size(); ++i) ready[i] = ready_for(parameters[i], ready[i]);
  const std::vector<at::Tensor> ready_buffers = momentum.buffer.unbind(0);
  Commit commit;
  commit.add(parameters, ready);
  commit.add(buffers, ready_buffers);
  add_counters(commit, states, counters);
  commit.run();
  for (ParamState* state : states) ++state->step();
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
