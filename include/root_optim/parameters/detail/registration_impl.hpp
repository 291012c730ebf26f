// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of parameters/detail/registration.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>  // isFloatingType
#include <c10/util/Exception.h>
#include <torch/nn/module.h>

#include <string>
#include <utility>
#include <vector>

#include <root_optim/parameters/detail/parameter_checks.hpp>  // complex_advice
#include <root_optim/parameters/detail/registration.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void add_registration(Registration at,
                                                        std::vector<Registration>& out) {
  if (!at.parameter.defined()) return;
  const at::ScalarType dtype = at.parameter.scalar_type();
  const bool is_real = at::isFloatingType(dtype);
  TORCH_CHECK(is_real || !at.parameter.requires_grad(),
              "root_optim::route: expected real floating-point parameters, got dtype ",
              c10::toString(dtype), " for '", at.name(), "'", complex_advice(dtype));
  if (is_real) out.push_back(std::move(at));
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void collect_registrations(const torch::nn::Module& module,
                                                             const std::string& path,
                                                             std::vector<Registration>& out) {
  for (const auto& item : module.named_parameters(/*recurse=*/false)) {
    add_registration({&module, path, item.key(), item.value()}, out);
  }
  for (const auto& item : module.named_children()) {
    collect_registrations(*item.value(), path.empty() ? item.key() : path + "." + item.key(), out);
  }
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
