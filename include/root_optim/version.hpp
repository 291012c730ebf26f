// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The version, in one place: CMake parses its three lines.
#pragma once

/// @{
/// A part of the version, for the preprocessor.
#define ROOT_OPTIM_VERSION_MAJOR 0
#define ROOT_OPTIM_VERSION_MINOR 1
#define ROOT_OPTIM_VERSION_PATCH 0
/// @}

// The inline namespace of everything: one for each way to build the library, so that a program in which
// some files are compiled against root_optim::compiled and others are not has two libraries, not a mixture.
//
// Functions that are no templates are declared in a header and defined in <wing>/detail/<name>_impl.hpp. A
// program that uses the headers alone gets both, with inline definitions; root_optim::compiled defines
// ROOT_OPTIM_COMPILED, and src/root_optim.cpp has the only definitions.
#ifdef ROOT_OPTIM_COMPILED
#define ROOT_OPTIM_NAMESPACE v0_compiled
#define ROOT_OPTIM_INLINE
#else
#define ROOT_OPTIM_NAMESPACE v0
#define ROOT_OPTIM_INLINE inline
#endif

// Of functions that no step reaches: they are compiled for size, which costs a compiler less.
#ifdef __GNUC__
#define ROOT_OPTIM_COLD [[gnu::cold]]
#else
#define ROOT_OPTIM_COLD
#endif

#ifdef ROOT_OPTIM_COMPILED_STANDARD  // of an installed binary
#if (ROOT_OPTIM_COMPILED_STANDARD >= 20) != (__cplusplus >= 202002L)
#error "root_optim::compiled was built with another C++ standard than this file"
#endif
#endif

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// MAJOR·10000 + MINOR·100 + PATCH, for comparisons in user code.
inline constexpr int version =
    ROOT_OPTIM_VERSION_MAJOR * 10000 + ROOT_OPTIM_VERSION_MINOR * 100 + ROOT_OPTIM_VERSION_PATCH;

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
