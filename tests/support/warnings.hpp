// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// LibTorch's warnings, caught for a test.
#pragma once

#include "catch_torch.hpp"

#include <stdexcept>
#include <string>
#include <vector>

namespace test {

#if TORCH_VERSION_MAJOR == 1
namespace torch_warning = c10::Warning;
#else
namespace torch_warning = c10::WarningUtils;
#endif

/// Collects LibTorch's warnings as long as it lives, so that they are not printed either.
struct Warnings : c10::WarningHandler {
  explicit Warnings(bool throws = false)
      : throws_(throws), before_(torch_warning::get_warning_handler()) {
    torch_warning::set_warning_handler(this);
  }
  ~Warnings() override { torch_warning::set_warning_handler(before_); }
  Warnings(const Warnings&) = delete;
  Warnings& operator=(const Warnings&) = delete;

#if TORCH_VERSION_MAJOR == 1
  void process(const c10::SourceLocation&, const std::string& message, const bool) override {
    take(message);
  }
#else
  void process(const c10::Warning& warning) override { take(warning.msg()); }
#endif

  std::vector<std::string> seen;

 private:
  void take(const std::string& message) {
    seen.push_back(message);
    if (throws_) throw std::runtime_error(message);
  }

  bool throws_;
  c10::WarningHandler* before_;
};

}  // namespace test
