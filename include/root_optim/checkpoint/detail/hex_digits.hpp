// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Numbers as hexadecimal digits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// All 16 digits.
ROOT_OPTIM_COLD inline std::string hex_digits(uint64_t value) {
  std::string digits(16, '0');
  for (size_t i = digits.size(); i-- > 0; value >>= 4) digits[i] = "0123456789abcdef"[value & 15];
  return digits;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
