// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The norm of a whole step, and what the gate makes of it (norm_gate.hpp). It must be known before the first
// batch moves; so gradients are filtered twice, and no copy of all of them is kept in between.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include <root_optim/filters/no_filter.hpp>
#include <root_optim/kernels/frobenius_norm.hpp>
#include <root_optim/kernels/max_abs.hpp>
#include <root_optim/kernels/workspace.hpp>
#include <root_optim/optimizer/detail/batch.hpp>
#include <root_optim/optimizer/detail/fault_guard.hpp>
#include <root_optim/optimizer/detail/filtering.hpp>
#include <root_optim/optimizer/detail/group_options.hpp>
#include <root_optim/optimizer/detail/step_matrices.hpp>  // stack
#include <root_optim/optimizer/options.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>  // state_dtype
#include <root_optim/parameters/layout.hpp>
#include <root_optim/parameters/rule.hpp>
#include <root_optim/stages/norm_gate.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// The options of a gate that all groups have.
/// @throws c10::Error if groups differ in it, or if a gate stands before parameters of several devices.
template <class Options>
void check_gate(const Groups& groups) {
  std::optional<at::Device> device;
  for (size_t g = 0; g < groups.size(); ++g) {
    const Options &first = group_options<Options>(groups, 0),
                  &own = group_options<Options>(groups, g);
    TORCH_CHECK(own.gate() == first.gate() && own.gate_run() == first.gate_run(),
                "root_optim::step: expected one gate in all groups, got gate ", own.gate(),
                " and gate_run ", own.gate_run(), " in group ", g, ", ", first.gate(), " and ",
                first.gate_run(), " in group 0");
    if (own.gate() == 0) continue;
    TORCH_CHECK(!own.capturable(), "root_optim::step: expected no gate with capturable, got gate ",
                own.gate(), ": a replayed graph would not move its window");
    for (const at::Tensor& parameter : groups[g].params()) {
      if (!parameter.grad().defined() || parameter.numel() == 0) continue;
      if (!device) device = parameter.device();
      TORCH_CHECK(
          *device == parameter.device(),
          "root_optim::step: expected all parameters on one device with a gate, which needs "
          "the norm of the whole step, got ",
          *device, " and ", parameter.device());
    }
  }
}

/// Of each gradient of a batch, as the step takes it: cleaned and filtered.
struct GradientNorms {
  at::Tensor norms;   ///< ‖g‖, [k], float64
  at::Tensor usable;  ///< whether it was finite before the filter, [k], bool
};

/// ‖x[i]‖ of each, [k], float64.
inline at::Tensor norm_of_each(const at::Tensor& x) {
  return frobenius_norms(x.reshape({x.size(0), 1, -1})).reshape({-1});
}

/// Those of a batch. Each is that of its gradient alone, whatever else is in the batch.
template <class Options>
GradientNorms norms_of(const Batch<Options>& batch, Workspace* workspace) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  using Filter = std::decay_t<decltype(batch.options->filter())>;
  const Options& options = *batch.options;
  const FaultGuard guard(options.non_finite());
  const bool filters = !std::is_same_v<Filter, NoFilter>;
  if (batch.rule == Rule::Orthogonalized) {
    std::vector<at::Tensor> gradients;
    for (const at::Tensor& parameter : batch.parameters) gradients.push_back(parameter.grad());
    at::Tensor stacked =
        guard.cleaned(stack(gradients, state_dtype(batch.parameters.front()), workspace));
    const at::Tensor usable = max_abs(stacked).reshape({-1}).lt(infinity);
    if (filters && options.filter_place() != FilterPlace::Momentum) {
      stacked = filtered(stacked, options.filter(), options.layout(), workspace);
    }
    return {norm_of_each(stacked), usable};
  }
  std::vector<at::Tensor> norms, magnitudes;
  for (const at::Tensor& parameter : batch.parameters) {
    const at::Tensor gradient = guard.cleaned(as_dtype(parameter.grad(), state_dtype(parameter)));
    at::Tensor row = gradient.reshape({1, -1});
    magnitudes.push_back(max_abs(row).reshape({1}).to(at::kDouble));
    if (filters && options.filter_place() == FilterPlace::AllGradients) {
      row = filtered_plain(gradient, options.filter(), workspace).reshape({1, -1});
    }
    norms.push_back(norm_of_each(row));
  }
  return {at::cat(norms), at::cat(magnitudes).lt(infinity)};
}

/// Σ g² over the gradients of a batch that the step takes, one float64.
/// @param of all of them, in their order
template <class Options>
at::Tensor squares_of(const GradientNorms& of, Rule rule, const Options& options) {
  at::Tensor usable = of.usable;
  if (rule == Rule::AdamW && options.non_finite() == NonFinite::SkipGroup) usable = usable.all();
  const at::Tensor squares = of.norms.square();
  return at::where(usable, squares, at::zeros_like(squares)).sum();
}

/// What the gate makes of a step.
/// @param squares Σ g² of all batches, one float64; is written to
/// @param state before the step; undefined tensors if there was none.
template <class Options>
GatedStep gated(at::Tensor squares, const GateState& state, const Options& options) {
  const at::Device device = squares.device();
  const GateState old =
      state.norms.defined()
          ? GateState{state.norms.to(device), state.run.to(device), state.strikes.to(device)}
          : GateState::begin(device);
  return norm_gate(squares.sqrt_(), old, options.gate(), options.gate_run());
}

/// The gate of a step that has something to do; nothing if the groups have none.
/// @param state as `gated`
template <class Options>
std::optional<GatedStep> gated_step(const std::vector<Batch<Options>>& batches,
                                    const GateState& state, Workspace* workspace) {
  if (batches.empty() || batches.front().options->gate() == 0) return std::nullopt;
  at::Tensor squares;
  for (const Batch<Options>& batch : batches) {
    const at::Tensor more = squares_of(norms_of(batch, workspace), batch.rule, *batch.options);
    squares = squares.defined() ? squares.add_(more) : more;
  }
  return gated(std::move(squares), state, *batches.front().options);
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
