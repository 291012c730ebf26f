// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What the next step of an optimizer would split and orthogonalize, for those who look on: reports
// (diagnostics.hpp) and calibration (calibrator.hpp).
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <root_optim/optimizer/detail/filtering.hpp>
#include <root_optim/optimizer/detail/non_finite.hpp>
#include <root_optim/optimizer/optimizer.hpp>
#include <root_optim/optimizer/options.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/parameters/detail/state_key.hpp>
#include <root_optim/parameters/layout.hpp>
#include <root_optim/stages/momentum.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// The options of a group.
/// @throws c10::Error if they are another optimizer's.
template <class F, class O>
const OrthogonalizedOptions<F, O>& typed_options(const OrthogonalizedOptimizer<F, O>& optimizer,
                                                 size_t group, const char* who) {
  const auto* options =
      dynamic_cast<const OrthogonalizedOptions<F, O>*>(&optimizer.param_groups()[group].options());
  TORCH_CHECK(options != nullptr, "root_optim::", who, ": expected the options of group ", group,
              " to be of this optimizer's own type, got another optimizer's");
  return *options;
}

/// The state of a parameter, or null if no step has made one.
template <class F, class O>
const ParamState* state_of(OrthogonalizedOptimizer<F, O>& optimizer, const at::Tensor& parameter) {
  const auto found = optimizer.state().find(state_key(parameter));
  if (found == optimizer.state().end()) return nullptr;
  return dynamic_cast<const ParamState*>(found->second.get());
}

/// Whether the next step orthogonalizes parameter `index` of a group: it has a gradient and entries,
/// and its rule is not AdamW.
/// @throws c10::Error for a gradient that does not match its parameter.
template <class Options>
bool is_orthogonalized_next(const at::Tensor& parameter, size_t group, size_t index,
                            const Options& options) {
  if (!parameter.grad().defined() || parameter.numel() == 0) return false;
  const std::string where = describe(parameter, group, index, options.names());
  check_gradient(parameter, parameter.grad(), where);
  return resolve_rule(options.rule(), options.layout(), parameter, where) == Rule::Orthogonalized;
}

/// One matrix of the next step, [1, rows, cols] each.
struct NextMatrix {
  at::Tensor seen;     ///< what the filter sees: U, or the gradient (FilterPlace)
  at::Tensor passed;   ///< what it makes of it
  at::Tensor unsplit;  ///< U without the filter
  at::Tensor body;     ///< what the orthogonalizer gets
};

/// The matrices of the next step, with U = G + μM for the next M (or M itself without Nesterov), in the
/// order of `matrix_shapes`. Changes nothing.
template <class F, class O>
std::vector<NextMatrix> next_update(OrthogonalizedOptimizer<F, O>& optimizer,
                                    const at::Tensor& parameter,
                                    const OrthogonalizedOptions<F, O>& options) {
  const at::Tensor gradient = cleaned(state_gradient(parameter), options.non_finite());
  at::Tensor buffer = at::zeros_like(gradient);
  const ParamState* state = state_of(optimizer, parameter);
  if (state != nullptr && state->momentum_buffer().defined()) {
    buffer = state->momentum_buffer().to(gradient);
  }
  const auto update_of = [&](const at::Tensor& g) {
    return accumulate_momentum(buffer, g, options.momentum(), options.momentum_form(),
                               options.nesterov())
        .update;
  };
  const auto split = [&](const at::Tensor& x) {
    return filtered(x.unsqueeze(0), options.filter(), options.layout())[0];
  };
  const bool of_gradient = options.filter_place() != FilterPlace::Momentum;
  const at::Tensor unsplit = update_of(gradient);
  const at::Tensor seen = of_gradient ? gradient : unsplit;
  const at::Tensor passed = split(seen);
  const at::Tensor body = of_gradient ? update_of(passed) : passed;

  std::vector<NextMatrix> result;
  const auto distribute = [&](const at::Tensor& x, at::Tensor NextMatrix::*member) {
    size_t index = 0;
    for (const at::Tensor& view : block_views(x.contiguous().unsqueeze(0), options.layout())) {
      const at::Tensor matrices = block_matrices(view, options.layout());
      for (int64_t k = 0; k < matrices.size(0); ++k, ++index) {
        if (index == result.size()) result.emplace_back();
        result[index].*member = matrices.narrow(0, k, 1);
      }
    }
  };
  distribute(seen, &NextMatrix::seen);
  distribute(passed, &NextMatrix::passed);
  distribute(unsplit, &NextMatrix::unsplit);
  distribute(body, &NextMatrix::body);
  return result;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
