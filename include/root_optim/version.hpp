// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The version, in one place: CMake parses these three lines.
#pragma once

#define ROOT_OPTIM_VERSION_MAJOR 0
#define ROOT_OPTIM_VERSION_MINOR 1
#define ROOT_OPTIM_VERSION_PATCH 0

namespace root_optim {
inline namespace v0 {

/// MAJOR·10000 + MINOR·100 + PATCH, for comparisons in user code.
inline constexpr int version =
    ROOT_OPTIM_VERSION_MAJOR * 10000 + ROOT_OPTIM_VERSION_MINOR * 100 + ROOT_OPTIM_VERSION_PATCH;

}  // namespace v0
}  // namespace root_optim
