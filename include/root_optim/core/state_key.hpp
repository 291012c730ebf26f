// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The key under which LibTorch's optimizers keep the state of a parameter: the address of its
// TensorImpl, as a pointer since 2.2, as text before.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/optim/optimizer.h>

#include <sstream>
#include <type_traits>
#include <utility>

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

using StateMap = std::decay_t<decltype(std::declval<torch::optim::Optimizer&>().state())>;

// A template, so that only the branch for the LibTorch at hand is instantiated.
template <class Key>
Key make_state_key(const at::Tensor& parameter) {
  void* address = parameter.unsafeGetTensorImpl();
  if constexpr (std::is_same_v<Key, void*>) {
    return address;
  } else {
    std::ostringstream text;
    text << address;
    return text.str();
  }
}

inline StateMap::key_type state_key(const at::Tensor& parameter) {
  return make_state_key<StateMap::key_type>(parameter);
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
