// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Float32 master weights of parameters in half precision: steps that one rounding would lose add up there.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/where.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <root_optim/kernels/workspace.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// The weight from which a step of parameter p with master w starts: w where p is its rounding, else p, for
/// then somebody wrote it (a load, an average, a clipping).
///
/// Math:    w where round(w) and p have the same bits, else p, entry by entry. The step makes w' of it; the
///          master becomes w', the parameter round(w').
/// Shapes:  any one shape, any strides -> a new tensor. Nothing is written.
/// Dtype:   p bfloat16 or float16, w and the result float32.
/// Cost:    four operators with temporaries of 7 bytes a number at most, the result included.
/// Reference: Micikevicius et al., Mixed Precision Training, arXiv 1710.03740, section 3.1.
/// @throws c10::Error for other shapes and dtypes.
inline at::Tensor current_weight(const at::Tensor& parameter, const at::Tensor& master,
                                 Workspace* workspace = nullptr) {
  const at::ScalarType dtype = parameter.scalar_type();
  TORCH_CHECK(
      parameter.sizes() == master.sizes() && master.scalar_type() == at::kFloat &&
          (dtype == at::kBFloat16 || dtype == at::kHalf),
      "root_optim::current_weight: expected a parameter in bfloat16 or float16 and a master of its "
      "shape ",
      parameter.sizes(), " in float32, got ", c10::toString(dtype), ", and ", master.sizes(),
      " in ", c10::toString(master.scalar_type()));
  const at::Tensor given = parameter.detach();
  // As integers: twice as fast as the comparison of numbers, and it tells −0 from 0.
  const at::Tensor holds = master.to(dtype).view(at::kShort).eq(given.view(at::kShort));
  at::Tensor weight = detail::temporary(workspace, master.sizes(), master.options());
  weight.copy_(given);
  return at::where_out(weight, holds, master, weight);
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
