// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The arithmetic that coefficients are made for.
#pragma once

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// Arithmetic of the products.
enum class Precision { Float64, Float32, BFloat16 };

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
