// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A finiteness test that survives -ffast-math, under which compilers assume std::isfinite is true.
#pragma once

#include <cstdint>
#include <cstring>

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Whether `value` is neither infinite nor NaN, decided on its bits.
inline bool is_finite(double value) {
  std::uint64_t bits = 0;
  static_assert(sizeof bits == sizeof value, "double must have 64 bits");
  std::memcpy(&bits, &value, sizeof bits);
  constexpr std::uint64_t exponent = 0x7ff0000000000000;
  return (bits & exponent) != exponent;
}

/// Whether `value` is finite in float32, too.
inline bool fits_float32(double value) {
  constexpr double largest = 3.4028234663852886e38;
  return is_finite(value) && value >= -largest && value <= largest;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
