// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The plan of a step: every check, the state of every parameter, and which parameters step together.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>  // TORCH_CHECK
#include <torch/optim/optimizer.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <unordered_set>
#include <utility>
#include <vector>

#include <root_optim/checkpoint/detail/checksum.hpp>
#include <root_optim/core/finite.hpp>
#include <root_optim/core/policy.hpp>
#include <root_optim/core/state_key.hpp>
#include <root_optim/kernels/max_abs.hpp>
#include <root_optim/optimizer/detail/batch.hpp>
#include <root_optim/optimizer/detail/group_options.hpp>
#include <root_optim/optimizer/detail/next_state.hpp>
#include <root_optim/optimizer/options.hpp>  // NonFinite
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/parameters/layout.hpp>
#include <root_optim/parameters/param_state.hpp>
#include <root_optim/parameters/rule.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// A parameter that has entries.
template <class Options>
struct PlannedParam {
  at::Tensor parameter;
  Rule rule;  ///< as resolved
  size_t group, index;
  const Options* options;  ///< the group's
  bool steps;              ///< whether it has a gradient
  ParamState state;        ///< complete for the step, if it is taken here
};

/// Every parameter is stepped here: there is one process.
struct AllHere {
  bool operator()(size_t, size_t) const { return true; }
};

/// Checks all groups, parameters, gradients and coefficients, and the state of what is stepped here;
/// changes nothing.
/// @param here whether a parameter, by group and index, is stepped here
/// @return the parameters that have entries, in their order.
template <class Options, class Here = AllHere>
std::vector<PlannedParam<Options>> planned_params(const Groups& groups, const StateMap& states,
                                                  const Here& here = {}) {
  struct Found {
    const ParamState* state;
    std::string where;
  };
  std::vector<PlannedParam<Options>> planned;
  std::vector<Found> found;
  std::unordered_set<const void*> seen;
  for (size_t g = 0; g < groups.size(); ++g) {
    const Options& options = valid_options<Options>(groups, g);
    const auto& parameters = groups[g].params();
    for (size_t i = 0; i < parameters.size(); ++i) {
      const at::Tensor& parameter = parameters[i];
      const std::string where = describe(parameter, g, i, options.names());
      check_parameter(parameter, where);
      const Rule rule = resolve_rule(options.rule(), options.layout(), parameter, where);
      TORCH_CHECK(seen.insert(parameter.unsafeGetTensorImpl()).second,
                  "root_optim::step: expected every parameter once, got ", where, " again");
      const at::Tensor& gradient = parameter.grad();
      const bool steps = gradient.defined();
      if (steps) check_gradient(parameter, gradient, where);
      if (parameter.numel() == 0) continue;
      planned.push_back({parameter, rule, g, i, &options, steps, {}});
      found.push_back({nullptr, where});
      if (!steps) continue;
      if (here(g, i)) found.back().state = find_state(states, parameter, options.layout(), where);
      TORCH_CHECK(options.non_finite() != NonFinite::Raise ||
                      is_finite(max_abs(gradient.reshape({1, -1})).reshape({}).item<double>()),
                  "root_optim::step: expected a finite gradient, got Inf or NaN for ", where);
      if (rule == Rule::Orthogonalized) {
        for (const MatrixShape matrix : matrix_shapes(parameter.sizes(), options.layout())) {
          validate_policy_for(options.orthogonalizer(), matrix.rows, matrix.cols, parameter);
        }
      }
    }
  }
  for (size_t i = 0; i < planned.size(); ++i) {
    PlannedParam<Options>& item = planned[i];
    if (!item.steps || !here(item.group, item.index)) continue;
    item.state =
        next_state(found[i].state, item.parameter, item.rule, *item.options, found[i].where);
  }
  return planned;
}

/// Which parameters are stepped together: their indices in `planned`, a list for each batch. It depends on
/// their order, shapes and options alone, not on who has a gradient, on their numbers of steps, or on who is
/// stepped here.
template <class Options>
std::vector<std::vector<size_t>> batches_of(const std::vector<PlannedParam<Options>>& planned) {
  std::vector<std::vector<size_t>> batches;
  using Key = std::tuple<size_t, Rule, std::vector<int64_t>, at::ScalarType, std::string>;
  std::map<Key, size_t> open;  // the batch that the next parameter of a kind joins
  for (size_t i = 0; i < planned.size(); ++i) {
    const PlannedParam<Options>& item = planned[i];
    const Options& options = *item.options;
    Key key{item.group, item.rule, {}, at::kFloat, item.parameter.device().str()};
    int64_t most = (std::numeric_limits<int64_t>::max)();  // parameters in a batch
    if (item.rule == Rule::Orthogonalized) {
      std::get<2>(key) = item.parameter.sizes().vec();
      std::get<3>(key) = item.parameter.scalar_type();
      most = static_cast<int64_t>(
          static_cast<double>(batch_bytes_on(options.batch_bytes(), item.parameter.device())) /
          step_bytes(item.parameter, options, /*alone=*/false,
                     needs_master(item.parameter, options)));
    }
    const auto found = open.find(key);
    const bool joins =
        found != open.end() && static_cast<int64_t>(batches[found->second].size()) < most;
    if (!joins) {
      open[key] = batches.size();
      batches.emplace_back();
    }
    batches[open[key]].push_back(i);
  }
  return batches;
}

/// A batch of those that have a gradient, with their state, which moves into `states`. What that changes is
/// invisible: missing state comes into being as zeros, state follows its parameter to another device or
/// dtype, and that of another rule than the parameter's goes.
template <class Options>
Batch<Options> make_batch(std::vector<PlannedParam<Options>>& planned,
                          const std::vector<size_t>& members, StateMap& states) {
  Batch<Options> batch{planned[members.front()].options, planned[members.front()].rule, {}, {}};
  for (const size_t i : members) {
    PlannedParam<Options>& item = planned[i];
    if (!item.steps) continue;
    auto& slot = states[state_key(item.parameter)];
    if (!slot) slot = std::make_unique<ParamState>();
    auto& state = static_cast<ParamState&>(*slot);
    state = std::move(item.state);
    batch.parameters.push_back(item.parameter);
    batch.states.push_back(&state);
  }
  return batch;
}

/// The checksum of what a group's policy is about to get: which parameters, and in which batches.
template <class Options>
int64_t checksum_of_batches(const std::vector<PlannedParam<Options>>& planned,
                            const std::vector<std::vector<size_t>>& batches, size_t group) {
  Checksum sum;
  for (const std::vector<size_t>& members : batches) {
    const PlannedParam<Options>& first = planned[members.front()];
    if (first.group != group || first.rule != Rule::Orthogonalized) continue;
    sum.add(static_cast<int64_t>(members.size()));
    for (const size_t i : members) {
      sum.add(static_cast<int64_t>(planned[i].index));
      sum.add(planned[i].steps);
    }
  }
  return sum.value();
}

/// f(), which fails on all ranks or on none, and leaves equal batches on all of them: collective policies are asked
/// before anything changes.
template <class Options, class F>
void together(const Groups& groups, const std::vector<PlannedParam<Options>>& planned,
              const std::vector<std::vector<size_t>>& batches, const F& f) {
  std::exception_ptr error;
  std::string message;
  try {
    f();
  } catch (const c10::Error& thrown) {
    error = std::current_exception();
    message = thrown.what_without_backtrace();
  } catch (const std::exception& thrown) {
    error = std::current_exception();
    message = thrown.what();
  }
  for (size_t g = 0; g < groups.size(); ++g) {
    group_options<Options>(groups, g).orthogonalizer().begin_step(
        error ? 0 : checksum_of_batches(planned, batches, g), message);
  }
  if (error) std::rethrow_exception(error);
}

/// Checks everything, then sorts the parameters into batches.
template <class Options>
std::vector<Batch<Options>> plan(const Groups& groups, StateMap& states) {
  std::vector<PlannedParam<Options>> planned;
  std::vector<std::vector<size_t>> lists;
  const auto sort = [&] {
    planned = planned_params<Options>(groups, states);
    lists = batches_of(planned);
  };
  if constexpr (is_collective<std::decay_t<
                    decltype(std::declval<const Options&>().orthogonalizer())>>::value) {
    together<Options>(groups, planned, lists, sort);
  } else {
    sort();
  }
  std::vector<Batch<Options>> batches;
  for (const std::vector<size_t>& members : lists) {
    Batch<Options> batch = make_batch(planned, members, states);
    if (!batch.parameters.empty()) batches.push_back(std::move(batch));
  }
  return batches;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
