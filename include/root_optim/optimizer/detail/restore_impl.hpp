// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of optimizer/detail/restore.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>   // IntArrayRef
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <root_optim/optimizer/detail/next_state.hpp>  // slot_shape
#include <root_optim/optimizer/detail/restore.hpp>
#include <root_optim/optimizer/options.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/parameters/layout.hpp>
#include <root_optim/parameters/param_state.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE CheckpointParam to_checkpoint(const at::Tensor& parameter,
                                                                const StateMap& states) {
  CheckpointParam stored{parameter.sizes().vec(), {}};
  const ParamState* state =
      own_state(states, parameter, "save", c10::str("a parameter of shape ", parameter.sizes()));
  if (state != nullptr) stored.state = *state;
  count_where(stored.state, /*on_device=*/false, parameter);
  for (const ParamState::Slot& slot : ParamState::slot_list()) {
    at::Tensor& tensor = stored.state.*slot.tensor;
    if (tensor.defined()) tensor = tensor.cpu();
  }
  return stored;
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE ParamState restored_state(const ParamState& stored,
                                                            const at::Tensor& parameter,
                                                            const MatrixLayout& layout,
                                                            const std::string& where) {
  ParamState state = stored;
  const bool moments = state.exp_avg().defined();
  TORCH_CHECK(moments == state.exp_avg_sq().defined() && state.step() >= 0 &&
                  (state.step() == 0 || state.momentum_buffer().defined() || moments),
              "root_optim::load: expected a momentum or two moments of ", where, " after ",
              state.step(), " steps, got others");
  for (const ParamState::Slot& slot : ParamState::slot_list()) {
    at::Tensor& tensor = state.*slot.tensor;
    if (!tensor.defined()) continue;
    if (slot.kind != ParamState::Kind::Count) {
      TORCH_CHECK(tensor.sizes() == c10::IntArrayRef(slot_shape(slot.kind, parameter, layout)),
                  "root_optim::load: expected state of the shape of ", where, ", got ",
                  tensor.sizes(), " as ", slot.name);
      tensor = converted_state(tensor, parameter, where);
      continue;
    }
    TORCH_CHECK(tensor.dim() == 0 && tensor.scalar_type() == at::kLong,
                "root_optim::load: expected one int64 as a counter of ", where, ", got ",
                c10::toString(tensor.scalar_type()), " of shape ", tensor.sizes());
    const auto count = tensor.item<int64_t>();
    TORCH_CHECK(count >= 0 && count <= state.step(),
                "root_optim::load: expected a counter of at most ", state.step(), " steps of ",
                where, ", got ", count);
    tensor = tensor.to(parameter.device(), at::kLong, /*non_blocking=*/false, /*copy=*/true);
  }
  return state;
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE GateState restored_gate(const GateState& stored,
                                                          at::Device device) {
  if (!stored.norms.defined()) return {};
  TORCH_CHECK(stored.norms.scalar_type() == at::kDouble &&
                  stored.norms.sizes() == c10::IntArrayRef({GateState::window}),
              "root_optim::load: expected ", GateState::window, " norms of a gate in Double, got ",
              stored.norms.sizes(), " in ", c10::toString(stored.norms.scalar_type()));
  TORCH_CHECK(stored.norms.ge(0).all().item<bool>() && stored.norms.isfinite().all().item<bool>(),
              "root_optim::load: expected finite norms >= 0 of a gate, got others");
  for (const at::Tensor& count : {stored.run, stored.strikes}) {
    TORCH_CHECK(count.dim() == 0 && count.scalar_type() == at::kLong && count.item<int64_t>() >= 0,
                "root_optim::load: expected counts of a gate, int64 >= 0, got others");
  }
  TORCH_CHECK(stored.run.item<int64_t>() <= stored.strikes.item<int64_t>(),
              "root_optim::load: expected at most ", stored.strikes.item<int64_t>(),
              " strikes of a gate in a row, got ", stored.run.item<int64_t>());
  const auto copy = [device](const at::Tensor& x) {
    return x.to(device, x.scalar_type(), /*non_blocking=*/false, /*copy=*/true);
  };
  return {copy(stored.norms), copy(stored.run), copy(stored.strikes)};
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void check_names(const std::vector<std::string>& names,
                                                   size_t params, size_t group) {
  TORCH_CHECK(names.empty() || names.size() == params,
              "root_optim::load: expected no names or one per parameter in group ", group, ", got ",
              names.size(), " names for ", params, " parameters");
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE std::optional<Places> places_of(
    const GroupNames& names, const std::vector<size_t>& params) {
  Places places;
  for (size_t g = 0; g < names.size(); ++g) {
    if (names[g].size() != params[g]) return std::nullopt;
    for (size_t i = 0; i < names[g].size(); ++i) {
      if (!places.insert({names[g][i], {g, i}}).second) return std::nullopt;
    }
  }
  return places;
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE std::vector<std::string> only_in(const Places& a,
                                                                   const Places& b) {
  std::vector<std::string> names;
  for (const auto& [name, place] : a) {
    if (b.count(name) == 0) names.push_back(name);
  }
  return names;
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void check_same_names(const Places& own, const Places& stored) {
  const std::vector<std::string> missing = only_in(own, stored), surplus = only_in(stored, own);
  if (missing.empty() && surplus.empty()) return;
  std::string got;
  if (!missing.empty()) {
    got += " without " + std::to_string(missing.size()) + " of them (" + listed(missing) + ")";
  }
  if (!surplus.empty()) {
    got += (missing.empty() ? " with " : " and with ") + std::to_string(surplus.size()) +
           " others (" + listed(surplus) + ")";
  }
  TORCH_CHECK(false, "root_optim::load: expected the ", own.size(),
              " parameters of the optimizer, got a checkpoint", got,
              "; LoadOptions().strict(false) loads by name what both have");
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
