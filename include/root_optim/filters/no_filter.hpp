// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The filter that filters nothing.
#pragma once

#include <ATen/core/Tensor.h>

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// Filter: returns U unchanged, B = U. Muon's.
struct NoFilter {
  static constexpr const char* name = "no_filter";                ///< stable: checkpoints record it
  at::Tensor operator()(const at::Tensor& u) const { return u; }  ///< u itself
};

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
