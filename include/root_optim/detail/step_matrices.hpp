// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// One step of a batch of matrices: momentum, filter, orthogonalizer, update, commit. The mathematics of
// each stage is in momentum.hpp, soft_threshold.hpp, newton_schulz.hpp and update.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/stack.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/detail/max_abs.hpp>
#include <root_optim/detail/non_finite.hpp>
#include <root_optim/detail/parameter_checks.hpp>  // is_supported
#include <root_optim/layout.hpp>
#include <root_optim/momentum.hpp>
#include <root_optim/options.hpp>
#include <root_optim/update.hpp>

namespace root_optim {
inline namespace v0 {
namespace detail {

/// Tensors of one shape along a new first dimension; a view when there is only one.
inline at::Tensor stack(const std::vector<at::Tensor>& tensors) {
  return tensors.size() == 1 ? tensors.front().unsqueeze(0) : at::stack(tensors);
}

/// orthogonalizer(x). If x is the last that needs its memory, it may be overwritten.
template <class Orthogonalizer>
at::Tensor orthogonalized(const Orthogonalizer& orthogonalizer, at::Tensor x) {
  if constexpr (has_consume<Orthogonalizer>::value) {
    if (x.defined() && x.use_count() == 1 && x.storage().use_count() == 1) {
      return orthogonalizer.consume(std::move(x));
    }
  }
  return orthogonalizer(x);
}

/// Steps equally shaped parameters of one group, on one device, as one batch.
///
/// Order: everything is computed into new tensors, then committed parameter by parameter: the
///        parameter, its momentum, its counters. An error leaves each with its state, before or after.
template <class F, class O>
void step_matrices(const OrthogonalizedOptions<F, O>& options,
                   const std::vector<at::Tensor>& parameters,
                   const std::vector<ParamState*>& states) {
  const size_t size = parameters.size();
  std::vector<at::Tensor> gradients, buffers;
  for (size_t i = 0; i < size; ++i) {
    gradients.push_back(state_gradient(parameters[i]));
    buffers.push_back(states[i]->momentum_buffer());
  }
  const at::Tensor raw = stack(gradients), buffer = stack(buffers);
  const at::Tensor gradient = cleaned(raw, options.non_finite());
  Momentum momentum = accumulate_momentum(buffer, gradient, options.momentum(),
                                          options.momentum_form(), options.nesterov());
  const bool guarded = options.non_finite() != NonFinite::Propagate;
  const at::Tensor usable = guarded ? is_finite(max_abs(momentum.update)) : at::Tensor();

  // Each tensor is released where the next one takes its place: beside M at most three matrices.
  std::vector<at::Tensor> sources = block_views(momentum.update, options.layout()), directions;
  momentum.update.reset();
  for (at::Tensor& source : sources) {
    at::Tensor matrices = block_matrices(source, options.layout());
    source.reset();
    const auto shape = matrices.sizes().vec();
    at::Tensor body = options.filter()(matrices);
    matrices.reset();
    at::Tensor direction = orthogonalized(options.orthogonalizer(), std::move(body));
    TORCH_CHECK(direction.defined() && direction.sizes() == c10::IntArrayRef(shape) &&
                    is_supported(direction.scalar_type()),
                "root_optim::step: expected policies '", F::name, "' and '", O::name,
                "' to keep the shape ", c10::IntArrayRef(shape), " and a real dtype, got ",
                direction.defined()
                    ? c10::str(direction.sizes(), " of ", c10::toString(direction.scalar_type()))
                    : std::string("no tensor"));
    directions.push_back(std::move(direction));
  }
  at::Tensor values = decayed(stack(parameters), options.lr(), options.weight_decay(),
                              momentum.buffer.scalar_type());
  const auto targets = block_views(values, options.layout());
  for (size_t block = 0; block < targets.size(); ++block) {
    at::Tensor& direction = directions[block];
    const double scale = lr_scale(options.scale(), direction.size(1), direction.size(2));
    add_direction(targets[block], direction.reshape(targets[block].sizes()), options.lr(), scale);
    direction.reset();
  }
  std::vector<FaultCounters> counters(size);
  if (guarded) {
    values = where_usable(usable, values, stack(parameters));
    momentum.buffer = where_usable(usable, momentum.buffer, buffer);
    const at::Tensor own =
        options.non_finite() == NonFinite::Zero ? is_finite(max_abs(raw)) : usable;
    for (size_t i = 0; i < size; ++i) {
      const auto index = static_cast<int64_t>(i);
      counters[i] =
          next_counters(*states[i], usable.reshape({-1})[index], own.reshape({-1})[index]);
    }
  }

  for (size_t i = 0; i < size; ++i) {  // commit: the parameter first, the only copy that may fail
    const auto index = static_cast<int64_t>(i);
    const at::Tensor value = values[index], next = momentum.buffer[index];
    parameters[i].copy_(value);
    states[i]->momentum_buffer().copy_(next);
    commit_counters(*states[i], counters[i]);
  }
}

}  // namespace detail
}  // namespace v0
}  // namespace root_optim
