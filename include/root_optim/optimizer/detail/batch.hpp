// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Parameters that are stepped together, and the memory that their step takes.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/stack.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>  // elementSize

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include <root_optim/core/policy.hpp>
#include <root_optim/optimizer/detail/commit.hpp>
#include <root_optim/optimizer/detail/fault_guard.hpp>
#include <root_optim/optimizer/options.hpp>                   // FilterPlace
#include <root_optim/parameters/detail/parameter_checks.hpp>  // state_dtype
#include <root_optim/parameters/layout.hpp>
#include <root_optim/parameters/param_state.hpp>
#include <root_optim/parameters/rule.hpp>
#include <root_optim/stages/device_rates.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Parameters of one group and device that are stepped together: matrices of one shape, which move
/// through the stages as one tensor, or all that follow AdamW.
template <class Options>
struct Batch {
  const Options* options;
  Rule rule;
  std::vector<at::Tensor> parameters;
  std::vector<ParamState*> states;
};

/// lr and λ of a batch where a step reads them from the device.
template <class Options>
std::optional<DeviceRates> device_rates(const Batch<Options>& batch) {
  if (!batch.options->capturable()) return std::nullopt;
  return batch.options->rates_on(batch.parameters.front().device());
}

/// The states' number of steps after this one where the device counts; else nothing.
inline std::vector<at::Tensor> next_device_steps(const std::vector<ParamState*>& states) {
  std::vector<at::Tensor> counts;
  for (ParamState* state : states) {
    if (!state->device_step().defined()) return {};
    counts.push_back(state->device_step());
  }
  return at::stack(counts).add_(1).unbind(0);
}

/// t of each parameter, counted from 1: steps, by the device's number where it counts, less those skipped,
/// which only the device knows. [k]
inline at::Tensor taken_steps(const std::vector<ParamState*>& states) {
  const at::Tensor skipped = skipped_of(states);
  const std::vector<at::Tensor> steps = next_device_steps(states);
  if (!steps.empty()) return at::stack(steps).sub_(skipped);
  at::Tensor taken = skipped.neg();
  for (size_t first = 0, end = 0; first < states.size();
       first = end) {  // as many at once as are equal
    const int64_t step = states[first]->step();
    while (end < states.size() && states[end]->step() == step) ++end;
    taken.slice(0, static_cast<int64_t>(first), static_cast<int64_t>(end)).add_(step + 1);
  }
  return taken;
}

/// Those into the states, with the rest of a commit.
inline void add_device_steps(Commit& commit, const std::vector<ParamState*>& states,
                             const std::vector<at::Tensor>& next) {
  if (next.empty()) return;
  std::vector<at::Tensor> to;
  for (ParamState* state : states) to.push_back(state->device_step());
  commit.add(to, next);
}

/// Counts a step where the host counts.
inline void count_on_host(ParamState* state) {
  if (!state->device_step().defined()) ++state->step();
}

/// The side of the Gram matrix of a matrix, or of one of which a collective policy sees a part.
template <class Policy>
double gram_side(const Policy& policy, double rows, double cols) {
  if constexpr (is_collective<Policy>::value) {
    return policy.has_rows() ? cols : rows;
  } else {
    return (std::min)(rows, cols);
  }
}

/// The bytes that a step of a matrix parameter takes beside it and its state, alone or as one of several
/// that are stepped together: the new momentum, two buffers of the iteration, of several their stacked
/// gradients, too, and four Gram matrices, whose side counts as a multiple of 32 (tile_product.hpp). Off the CPU
/// three for the filter's operators. With a master weight, what `current_weight` takes of all of them.
template <class Options>
double step_bytes(const at::Tensor& parameter, const Options& options, bool alone,
                  bool has_master) {
  const MatrixLayout& layout = options.layout();
  double elements = ((alone ? 3 : 4) + (parameter.is_cpu() ? 0 : 3) + (has_master ? 3 : 0)) *
                    static_cast<double>(parameter.numel());
  for (const MatrixShape matrix : matrix_shapes(parameter.sizes(), layout)) {
    const auto rows = static_cast<double>(matrix.rows), cols = static_cast<double>(matrix.cols);
    const double count =
        layout.batch() ? static_cast<double>(parameter.numel()) / (rows * cols) : 1;
    const double side = 32 * std::ceil(gram_side(options.orthogonalizer(), rows, cols) / 32);
    elements += 4 * count * side * side;
  }
  return elements * static_cast<double>(c10::elementSize(state_dtype(parameter)));
}

/// The option `batch_bytes` for parameters on a device.
inline int64_t batch_bytes_on(const std::optional<int64_t>& option, const at::Device& device) {
  return option.value_or(int64_t{device.is_cpu() ? 16 : 512} << 20);
}

/// The bytes of the filtered gradients of parameters that follow AdamW.
inline double filtered_bytes(const std::vector<at::Tensor>& parameters) {
  double bytes = 0;
  for (const at::Tensor& parameter : parameters) {
    bytes += static_cast<double>(parameter.numel()) *
             static_cast<double>(c10::elementSize(state_dtype(parameter)));
  }
  return bytes;
}

/// The most that a workspace need keep for these batches.
template <class Options>
size_t workspace_bytes(const std::vector<Batch<Options>>& batches) {
  double matrices = 0, adamw = 0;  // the most bytes that a batch of each kind takes
  for (const Batch<Options>& batch : batches) {
    const Options& options = *batch.options;
    if (batch.rule == Rule::Orthogonalized) {
      const size_t count = batch.parameters.size();
      const double each = step_bytes(batch.parameters[0], options, /*alone=*/count == 1,
                                     batch.states[0]->master().defined());
      matrices = (std::max)(matrices, static_cast<double>(count) * each);
    } else if (options.filter_place() == FilterPlace::AllGradients) {
      adamw = (std::max)(adamw, filtered_bytes(batch.parameters));
    }
  }
  // Their sum: a block of one kind is hardly ever the size that the other needs.
  return static_cast<size_t>(matrices + adamw);
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
