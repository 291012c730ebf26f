// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of parameters/param_state.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

#include <root_optim/core/archive.hpp>
#include <root_optim/parameters/param_state.hpp>
#include <root_optim/parameters/rule.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

ROOT_OPTIM_INLINE const std::array<ParamState::Slot, 8>& ParamState::slot_list() {
  static const std::array<Slot, 8> all = {{
      {"momentum_buffer", &ParamState::momentum_buffer_, Rule::Orthogonalized, Kind::Values, 1},
      {"exp_avg", &ParamState::exp_avg_, Rule::AdamW, Kind::Values, 1},
      {"exp_avg_sq", &ParamState::exp_avg_sq_, Rule::AdamW, Kind::Values, 1},
      {"skipped", &ParamState::skipped_, Rule::Auto, Kind::Count, 2},
      {"non_finite", &ParamState::non_finite_, Rule::Auto, Kind::Count, 2},
      {"row_moment", &ParamState::row_moment_, Rule::Orthogonalized, Kind::Rows, 4},
      {"column_moment", &ParamState::column_moment_, Rule::Orthogonalized, Kind::Columns, 4},
      {"master", &ParamState::master_, Rule::Auto, Kind::Master, 5},
  }};
  return all;
}

ROOT_OPTIM_INLINE at::Tensor& ParamState::slot(const char* name) {
  for (const Slot& slot : slot_list()) {
    if (std::strcmp(name, slot.name) == 0) return this->*slot.tensor;
  }
  TORCH_CHECK(false, "root_optim::ParamState::slot: expected the name of a slot, got '", name, "'");
}

ROOT_OPTIM_INLINE int64_t ParamState::counted_steps() const {
  return device_step_.defined() ? device_step_.item<int64_t>() : step_;
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void ParamState::read(torch::serialize::InputArchive& archive) {
  ParamState state;
  c10::IValue step;
  archive.read("step", step);
  TORCH_CHECK(step.isInt(), "root_optim::load: expected an integer step, got ", step.tagKind());
  state.step_ = step.toInt();
  for (const Slot& slot : slot_list()) detail::read_tensor(archive, slot.name, state.*slot.tensor);
  *this = std::move(state);
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void ParamState::write(
    torch::serialize::OutputArchive& archive) const {
  archive.write("step", c10::IValue(counted_steps()));
  for (const Slot& slot : slot_list()) {
    if ((this->*slot.tensor).defined()) archive.write(slot.name, this->*slot.tensor);
  }
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
