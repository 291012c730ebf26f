// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The gradients that past steps could not use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/optimizer/detail/group_options.hpp>
#include <root_optim/optimizer/detail/lookup.hpp>
#include <root_optim/optimizer/optimizer.hpp>
#include <root_optim/parameters/param_state.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// A parameter that met gradients which were not finite; see NonFinite in options.hpp.
struct GradientFaults {
  std::string name;    ///< the parameter's name, or "group g, index i"
  int64_t steps;       ///< steps for which it had a gradient
  int64_t non_finite;  ///< of these, with a gradient of its own that was not finite or overflowed
  int64_t skipped;  ///< of these, skipped; under NonFinite::SkipGroup also for another's gradient
};

/// The parameters of which a step was skipped or a gradient was not finite; usually none.
///
/// The counts go back to when the optimizer was made, across checkpoints. Steps with
/// NonFinite::Propagate are not counted. Changes nothing; waits for the device.
template <class F, class O>
std::vector<GradientFaults> gradient_faults(OrthogonalizedOptimizer<F, O>& optimizer) {
  std::vector<GradientFaults> result;
  for (size_t g = 0; g < optimizer.param_groups().size(); ++g) {
    const auto& options = detail::group_options<OrthogonalizedOptions<F, O>>(
        optimizer.param_groups(), g, "gradient_faults");
    const auto& parameters = optimizer.param_groups()[g].params();
    for (size_t i = 0; i < parameters.size(); ++i) {
      const ParamState* state = detail::state_of(optimizer, parameters[i]);
      if (state == nullptr || !state->skipped().defined()) continue;
      GradientFaults faults{detail::display_name(options.names(), g, i), state->counted_steps(),
                            state->non_finite().template item<int64_t>(),
                            state->skipped().template item<int64_t>()};
      if (faults.non_finite + faults.skipped > 0) result.push_back(std::move(faults));
    }
  }
  return result;
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
