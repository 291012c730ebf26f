// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The matrices of the coming step at each stage, to look at.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>  // NoGradGuard
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/filters/no_filter.hpp>
#include <root_optim/optimizer/detail/fault_guard.hpp>
#include <root_optim/optimizer/detail/filtering.hpp>
#include <root_optim/optimizer/detail/group_options.hpp>
#include <root_optim/optimizer/detail/lookup.hpp>
#include <root_optim/optimizer/detail/matrix_update.hpp>
#include <root_optim/optimizer/optimizer.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/parameters/param_state.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// One matrix of the coming step, [1, rows, cols] each, in the dtype of the state.
struct NextMatrix {
  std::string name;    ///< the parameter's name, or "group g, index i"
  int64_t block;       ///< which of the parameter's matrices
  int64_t blocks;      ///< how many it has
  at::Tensor seen;     ///< what the filter sees: U, or the gradient (FilterPlace)
  at::Tensor passed;   ///< what the filter makes of it
  at::Tensor unsplit;  ///< U without the filter
  at::Tensor body;     ///< what the orthogonalizer gets
};

namespace detail {

/// Passes matrices on to a filter and keeps both sides.
template <class Filter>
struct WatchedFilter {
  static constexpr const char* name = Filter::name;
  const Filter& filter;
  std::vector<at::Tensor>& seen;
  std::vector<at::Tensor>& passed;

  at::Tensor operator()(const at::Tensor& x) const {
    seen.push_back(x);
    passed.push_back(filter(x));
    return passed.back();
  }
};

/// In the orthogonalizer's place: keeps what it would get.
struct KeptBodies {
  static constexpr const char* name = "kept_bodies";
  std::vector<at::Tensor>& bodies;

  at::Tensor operator()(const at::Tensor& x) const {
    bodies.push_back(x);
    return x;
  }
};

}  // namespace detail

/// The matrices of one parameter as the coming step will treat them, in the order of `matrix_shapes`;
/// none if the parameter is not orthogonalized. Runs the stages of the step
/// (optimizer/detail/matrix_update.hpp) up to the orthogonalizer, without a gate. Changes nothing. No host
/// synchronization.
/// @throws c10::Error for a group or index that does not exist, for options of another optimizer, and
/// for a gradient that does not match its parameter.
template <class F, class O>
std::vector<NextMatrix> next_matrices(OrthogonalizedOptimizer<F, O>& optimizer, size_t group,
                                      size_t index) {
  using Options = OrthogonalizedOptions<F, O>;
  TORCH_CHECK(
      !optimizer.is_distributed(),
      "root_optim::next_matrices: expected an optimizer of one process, got a distributed one, "
      "of whose momentum this rank has a part");
  const detail::Groups& groups = optimizer.param_groups();
  TORCH_CHECK(group < groups.size() && index < groups[group].params().size(),
              "root_optim::next_matrices: expected a parameter of the optimizer, got group ", group,
              ", index ", index);
  const Options& options = detail::group_options<Options>(groups, group, "next_matrices");
  const at::Tensor& parameter = groups[group].params()[index];
  if (!detail::is_orthogonalized_next(parameter, group, index, options)) return {};
  const at::NoGradGuard no_grad;

  const at::Tensor gradient =
      detail::as_dtype(parameter.grad(), detail::state_dtype(parameter)).unsqueeze(0);
  at::Tensor buffer = at::zeros_like(gradient);
  at::Tensor taken = at::ones({1}, gradient.options().dtype(at::kLong));
  const ParamState* state = detail::state_of(optimizer, parameter);
  if (state != nullptr && state->momentum_buffer().defined()) {
    buffer = state->momentum_buffer().to(gradient).unsqueeze(0);
    taken = state->skipped().to(gradient.device()).neg();
    if (state->device_step().defined()) {  // with `capturable` the host's number stands still
      taken.add_(state->device_step().to(gradient.device())).add_(1);
    } else {
      taken.add_(state->step() + 1);
    }
    taken = taken.reshape({1});
  }
  const Options up_to_there = Options(options).update_beta(0);
  std::vector<at::Tensor> seen, passed, unsplit, bodies;
  const auto run = [&](const auto& filter, std::vector<at::Tensor>& kept) {
    detail::FaultGuard guard(options.non_finite());
    const auto old = [&buffer](const char*) { return buffer; };  // no stage needs more up to there
    detail::matrix_update(up_to_there, filter, detail::KeptBodies{kept}, gradient, old, {taken, {}},
                          guard, nullptr);
  };
  run(detail::WatchedFilter<F>{options.filter(), seen, passed}, bodies);
  run(NoFilter(), unsplit);

  int64_t count = 0, block = 0;
  for (const at::Tensor& matrices : bodies) count += matrices.size(0);
  std::vector<NextMatrix> result;
  const std::string name = detail::display_name(options.names(), group, index);
  for (size_t view = 0; view < bodies.size(); ++view) {
    for (int64_t k = 0; k < bodies[view].size(0); ++k) {
      const auto one = [k](const at::Tensor& matrices) { return matrices.narrow(0, k, 1); };
      result.push_back({name, block++, count, one(seen[view]), one(passed[view]),
                        one(unsplit[view]), one(bodies[view])});
    }
  }
  return result;
}

/// The same for all parameters, group by group.
template <class F, class O>
std::vector<NextMatrix> next_matrices(OrthogonalizedOptimizer<F, O>& optimizer) {
  std::vector<NextMatrix> all;
  for (size_t g = 0; g < optimizer.param_groups().size(); ++g) {
    for (size_t i = 0; i < optimizer.param_groups()[g].params().size(); ++i) {
      for (NextMatrix& next : next_matrices(optimizer, g, i)) all.push_back(std::move(next));
    }
  }
  return all;
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
