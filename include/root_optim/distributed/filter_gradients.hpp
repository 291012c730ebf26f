// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The filter before the reduction: outliers of one rank are cut off before they are shared. It needs no c10d.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>  // NoGradGuard
#include <c10/util/Exception.h>   // TORCH_CHECK

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include <root_optim/filters/no_filter.hpp>
#include <root_optim/kernels/max_abs.hpp>
#include <root_optim/optimizer/detail/fault_guard.hpp>
#include <root_optim/optimizer/detail/filtering.hpp>
#include <root_optim/optimizer/detail/group_options.hpp>
#include <root_optim/optimizer/detail/plan.hpp>
#include <root_optim/optimizer/detail/ranks.hpp>
#include <root_optim/optimizer/detail/step_matrices.hpp>  // stack
#include <root_optim/optimizer/optimizer.hpp>
#include <root_optim/optimizer/options.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/parameters/rule.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// The parameters whose gradients the filters of their groups act on, and that have one.
/// @param wholes what is stepped in their place
/// @throws c10::Error for what cannot be filtered.
template <class Options>
std::vector<PlannedParam<Options>> filtered_params(const Groups& groups, const Groups& wholes) {
  std::vector<PlannedParam<Options>> params;
  for (size_t g = 0; g < groups.size(); ++g) {
    const Options& options = valid_options<Options>(groups, g);
    TORCH_CHECK(options.filter_place() != FilterPlace::Momentum,
                "root_optim::filter_gradients: expected filters of gradients, got "
                "FilterPlace::Momentum in group ",
                g);
    for (size_t i = 0; i < groups[g].params().size(); ++i) {
      const at::Tensor& parameter = groups[g].params()[i];
      if (!parameter.grad().defined() || parameter.numel() == 0) continue;
      const std::string where = describe(parameter, g, i, options.names());
      check_parameter(parameter, where);
      check_gradient(parameter, parameter.grad(), where);
      TORCH_CHECK(parameter.is_same(wholes[g].params()[i]),
                  "root_optim::filter_gradients: expected whole gradients, got a shard for ",
                  where);
      const Rule rule = resolve_rule(options.rule(), options.layout(), parameter, where);
      if (rule == Rule::AdamW && options.filter_place() != FilterPlace::AllGradients) continue;
      params.push_back({parameter, rule, g, i, &options, /*steps=*/true, {}});
    }
  }
  return params;
}

/// Writes f(g) into the gradients of a batch that are finite.
template <class Options>
void filter_batch(const std::vector<PlannedParam<Options>>& planned,
                  const std::vector<size_t>& members) {
  const PlannedParam<Options>& first = planned[members.front()];
  const Options& options = *first.options;
  // For its flags; what a gradient that is not finite leads to is the step's.
  const auto write = [](const std::vector<at::Tensor>& to, const at::Tensor& rows,
                        const at::Tensor& passed) {
    FaultGuard guard(NonFinite::Skip);
    guard.must_be_finite(max_abs(rows));
    const at::Tensor values = guard.choose(passed, rows);
    for (size_t i = 0; i < to.size(); ++i) {
      to[i].copy_(values[static_cast<int64_t>(i)].reshape(to[i].sizes()));
    }
  };
  std::vector<at::Tensor> gradients;
  for (const size_t i : members) gradients.push_back(planned[i].parameter.grad());
  const at::ScalarType dtype = state_dtype(first.parameter);
  if (first.rule == Rule::Orthogonalized) {
    const at::Tensor stacked = stack(gradients, dtype, nullptr);
    write(gradients, stacked, filtered(stacked, options.filter(), options.layout(), nullptr));
    return;
  }
  for (size_t k = 0; k < members.size(); ++k) {
    const at::Tensor& parameter = planned[members[k]].parameter;
    const at::Tensor gradient = as_dtype(gradients[k], state_dtype(parameter));
    write({gradients[k]}, gradient.reshape({1, -1}),
          filtered_plain(gradient, options.filter(), nullptr).reshape({1, -1}));
  }
}

}  // namespace detail

/// Filters this rank's gradients in place, by the filters of the optimizer's groups: g ← filter(g). Called between
/// `backward()` and `reduce()`, with several micro-batches after the last one.
///
/// An outlier of one rank is cut off by the scale of that rank's gradient, where it stands out more than in the
/// mean. Which gradients: those that the filter acts on in a step, of matrices by their layout, and with
/// FilterPlace::AllGradients of AdamW's parameters. One that is not finite stays as it is: the step decides about
/// the mean (NonFinite). Gradients in half precision are rounded once more.
///
/// Both act: the step filters the mean again, which costs owners a second filter of what they own. Of gradients
/// that have been clipped the mean has little above the threshold: with `scaled(3, 3)` the second filter moved the
/// cosine between the mean's polar factor and the signal's by −.004 to +.015 (docs/distributed.md).
///
/// Local: no rank waits. All ranks call it, or none. Without a filter nothing is done. No host synchronization.
/// Cost:    the filter's on all of this rank's gradients, and a write of them. ReducerOptions::overlap is no use
///          with it: gradients have been sent by then, and `reduce` says so.
/// Memory:  a batch, as a step (`batch_bytes`).
/// @throws c10::Error on this rank alone: with FilterPlace::Momentum, for shards, for a gradient that does not match
/// its parameter, and what the filter throws. Only the last may leave some gradients filtered.
template <class F, class O>
void filter_gradients(OrthogonalizedOptimizer<F, O>& optimizer) {
  if constexpr (!std::is_same_v<F, NoFilter>) {
    using Options = OrthogonalizedOptions<F, O>;
    const at::NoGradGuard no_grad;
    const detail::Groups& groups = optimizer.param_groups();
    const auto& ranks = detail::RanksAccess::ranks(optimizer);
    const auto params =
        detail::filtered_params<Options>(groups, ranks ? ranks->whole_groups(groups) : groups);
    for (const std::vector<size_t>& members : detail::batches_of(params)) {
      detail::filter_batch(params, members);
    }
  }
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
