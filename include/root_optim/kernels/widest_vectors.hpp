// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Loops over entries by the widest vectors of the CPU. Compilers take those only where the user's options name
// the CPU; else a loop runs with vectors of 16 bytes, or, with -O2 of some compilers, with none.
#pragma once

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

// Clang 14 made no faster code of it, and slower code of maxima.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)
#define ROOT_OPTIM_WIDEST_VECTORS
// `flatten` brings all that the body calls into a function that may have such vectors.
template <class Body>
__attribute__((target("avx512f"), flatten)) void with_avx512(const Body& body) {
  body();
}
template <class Body>
__attribute__((target("avx2"), flatten)) void with_avx2(const Body& body) {
  body();
}
#endif

/// body(), whose code must be visible here. Products that are added to something may be rounded once in place of
/// twice; all else has the same bits on every CPU.
template <class Body>
void by_widest_vectors(const Body& body) {
#ifdef ROOT_OPTIM_WIDEST_VECTORS
  static const bool avx512 = __builtin_cpu_supports("avx512f");
  static const bool avx2 = __builtin_cpu_supports("avx2");
  if (avx512) return with_avx512(body);
  if (avx2) return with_avx2(body);
#endif
  body();
}
#undef ROOT_OPTIM_WIDEST_VECTORS

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
