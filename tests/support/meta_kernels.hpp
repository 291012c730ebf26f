// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What a step asks of LibTorch's dispatcher: a recorder of the operators that are called, and (in
// meta_kernels.cpp, by being linked in) shape functions for operators that C++ LibTorch cannot run
// on meta tensors because only Python registers them.
#pragma once

#include "catch_torch.hpp"

#include <ATen/record_function.h>

#include <set>
#include <string>

namespace test {

/// Collects, while it lives, the operators that this thread calls itself; operators that those call
/// in turn are not listed.
class OperatorRecorder {
 public:
  OperatorRecorder();
  ~OperatorRecorder();
  OperatorRecorder(const OperatorRecorder&) = delete;
  OperatorRecorder& operator=(const OperatorRecorder&) = delete;

  /// "aten::mul", "aten::copy_", ...
  const std::set<std::string>& names() const { return record_.names; }
  /// Those that made a CPU tensor: in a step on another device, a copy in the making.
  const std::set<std::string>& on_cpu() const { return record_.on_cpu; }

  struct Record {
    std::set<std::string> names;
    std::set<std::string> on_cpu;
  };

 private:
  Record record_;
  at::CallbackHandle handle_;
};

/// Operators that wait for the device, or whose result has a data-dependent shape: none may appear
/// in a step. Copies between host and device show in OperatorRecorder::on_cpu.
const std::set<std::string>& synchronizing_operators();

}  // namespace test
