// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of optimizer/detail/next_state.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <c10/core/MemoryFormat.h>
#include <c10/util/ArrayRef.h>   // IntArrayRef
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstdint>
#include <string>
#include <vector>

#include <root_optim/core/state_key.hpp>
#include <root_optim/optimizer/detail/next_state.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/parameters/layout.hpp>
#include <root_optim/parameters/param_state.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

ROOT_OPTIM_INLINE std::vector<int64_t> slot_shape(ParamState::Kind kind,
                                                  const at::Tensor& parameter,
                                                  const MatrixLayout& layout) {
  if (kind == ParamState::Kind::Count) return {};
  if (kind == ParamState::Kind::Values || kind == ParamState::Kind::Master) {
    return parameter.sizes().vec();
  }
  const std::vector<MatrixShape> matrices = matrix_shapes(parameter.sizes(), layout);
  int64_t sum = 0;
  for (const MatrixShape& matrix : matrices) {
    sum += kind == ParamState::Kind::Rows ? matrix.rows : matrix.cols;
  }
  if (layout.batch()) sum *= parameter.numel() / (matrices[0].rows * matrices[0].cols);
  return {sum};
}

ROOT_OPTIM_INLINE const ParamState* own_state(const StateMap& states, const at::Tensor& parameter,
                                              const char* who, const std::string& where) {
  const auto found = states.find(state_key(parameter));
  if (found == states.end() || !found->second) return nullptr;
  const auto* state = dynamic_cast<const ParamState*>(found->second.get());
  TORCH_CHECK(state != nullptr, "root_optim::", who,
              ": expected state of this optimizer's own type for ", where,
              ", got another optimizer's; forget(parameter) erases it");
  return state;
}

ROOT_OPTIM_INLINE const ParamState* find_state(const StateMap& states, const at::Tensor& parameter,
                                               const MatrixLayout& layout,
                                               const std::string& where) {
  const ParamState* state = own_state(states, parameter, "step", where);
  if (state == nullptr) return nullptr;
  for (const ParamState::Slot& slot : ParamState::slot_list()) {
    const at::Tensor& tensor = state->*slot.tensor;
    if (!tensor.defined() || slot.kind == ParamState::Kind::Count) continue;
    const std::vector<int64_t> shape = slot_shape(slot.kind, parameter, layout);
    TORCH_CHECK(tensor.sizes() == c10::IntArrayRef(shape),
                "root_optim::step: expected state of the parameter's shape, got ", tensor.sizes(),
                " as ", slot.name, " for ", where,
                "; where a parameter was replaced, the new one may find the old one's state at its "
                "address, and "
                "another layout needs other state: forget(parameter) erases it, and the parameter "
                "begins anew");
  }
  return state;
}

ROOT_OPTIM_INLINE at::Tensor prepared(const at::Tensor& tensor, ParamState::Kind kind,
                                      const at::Tensor& parameter, const MatrixLayout& layout,
                                      const std::string& where) {
  const at::ScalarType dtype = kind == ParamState::Kind::Count ? at::kLong : state_dtype(parameter);
  if (!tensor.defined() && kind == ParamState::Kind::Master) {
    return parameter.detach().to(dtype, /*non_blocking=*/false, /*copy=*/false,
                                 at::MemoryFormat::Contiguous);
  }
  if (!tensor.defined()) {
    return at::zeros(slot_shape(kind, parameter, layout),
                     parameter.options().dtype(dtype).requires_grad(false));
  }
  if (tensor.device() == parameter.device() && tensor.scalar_type() == dtype) return tensor;
  return kind == ParamState::Kind::Count ? tensor.to(parameter.device(), dtype)
                                         : converted_state(tensor, parameter, where);
}

ROOT_OPTIM_INLINE void count_where(ParamState& state, bool on_device, const at::Tensor& parameter) {
  at::Tensor& count = state.device_step();
  if (!on_device) {
    state.step(state.counted_steps());
    count = at::Tensor();
  } else if (!count.defined()) {
    count = at::full({}, state.step(), at::TensorOptions(parameter.device()).dtype(at::kLong));
  } else if (count.device() != parameter.device()) {
    count = count.to(parameter.device());
  }
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
