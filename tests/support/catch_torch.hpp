// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// LibTorch and Catch2 (2 or 3), in the one order in which both work. Every test file includes this
// first and neither of the two itself: LibTorch's logging headers define CHECK as a macro that
// aborts the process, and would silently replace Catch2's if they came second.
#pragma once

#include <torch/torch.h>

#undef CHECK

#if __has_include(<catch2/catch_test_macros.hpp>)  // Catch2 3
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_adapters.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#else  // Catch2 2.13
#include <catch2/catch.hpp>
#endif

#include <string>

namespace test {

#if __has_include(<catch2/catch_test_macros.hpp>)
template <class T>
using MatcherBase = Catch::Matchers::MatcherBase<T>;
inline auto contains(const std::string& text) { return Catch::Matchers::ContainsSubstring(text); }
#else
template <class T>
using MatcherBase = Catch::MatcherBase<T>;
inline auto contains(const std::string& text) { return Catch::Matchers::Contains(text); }
#endif

}  // namespace test

// A failed assertion names a tensor by its dtype, shape and device, not by its elements.
template <>
struct Catch::StringMaker<at::Tensor> {
  static std::string convert(const at::Tensor& t) {
    if (!t.defined()) return "undefined tensor";
    return c10::str(t.scalar_type(), t.sizes(), " on ", t.device());
  }
};
