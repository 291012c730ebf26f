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

ROOT_OPTIM_INLINE ParamState restored_state(const ParamState& stored, const at::Tensor& parameter,
                                            const MatrixLayout& layout, const std::string& where) {
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

ROOT_OPTIM_INLINE void check_names(const std::vector<std::string>& names, size_t params,
                                   size_t group) {
  TORCH_CHECK(names.empty() || names.size() == params,
              "root_optim::load: expected no names or one per parameter in group ", group, ", got ",
              names.size(), " names for ", params, " parameters");
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
