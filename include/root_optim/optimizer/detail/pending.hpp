// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What lies between the computation of a step and its commit.
#pragma once

#include <ATen/core/Tensor.h>

#include <iterator>
#include <utility>
#include <vector>

#include <root_optim/optimizer/detail/batch.hpp>  // count_on_host
#include <root_optim/optimizer/detail/commit.hpp>
#include <root_optim/parameters/param_state.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// A step that has been computed, but has changed nothing yet. A single process commits it at once; ranks
/// first exchange its values (distributed/).
///
/// Errors have been thrown by now: `commit` makes copies that cannot fail (commit.hpp).
struct Pending {
  std::vector<at::Tensor> parameters;
  std::vector<at::Tensor> values;  ///< the next one of each parameter, in its dtype
  std::vector<ParamState*> states;
  Commit copies;
  at::Tensor skipped;  ///< FaultGuard::first_skipped

  /// Parameters, their next values, and the states whose step this is.
  void add(const std::vector<at::Tensor>& of, std::vector<at::Tensor> next,
           const std::vector<ParamState*>& their_states) {
    copies.add(of, next);
    parameters.insert(parameters.end(), of.begin(), of.end());
    values.insert(values.end(), std::make_move_iterator(next.begin()),
                  std::make_move_iterator(next.end()));
    states.insert(states.end(), their_states.begin(), their_states.end());
  }

  void commit() {
    copies.run();
    for (ParamState* state : states) count_on_host(state);
  }
};

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
