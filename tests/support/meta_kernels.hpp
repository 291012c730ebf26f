// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What a step asks of LibTorch's dispatcher: a recorder of the operators that are called, and (in
// meta_kernels.cpp, by being linked in) shape functions for operators that C++ LibTorch cannot run
// on meta tensors because only Python registers them.
#pragma once

#include "catch_torch.hpp"

#include <ATen/record_function.h>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

namespace test {

/// Collects, while it lives, the operators that this thread calls.
class OperatorRecorder {
 public:
  OperatorRecorder();
  ~OperatorRecorder();
  OperatorRecorder(const OperatorRecorder&) = delete;
  OperatorRecorder& operator=(const OperatorRecorder&) = delete;

  /// Those that it calls itself, "aten::mul", "aten::copy_", ...
  const std::set<std::string>& names() const { return record_.names; }
  /// How often it calls one itself.
  int64_t calls() const { return record_.calls; }
  /// Those that it calls itself and those that they call in turn, with overloads.
  const std::vector<c10::OperatorName>& operators() const { return record_.operators; }
  /// Those that made a CPU tensor: in a step on another device, a copy in the making.
  const std::set<std::string>& on_cpu() const { return record_.on_cpu; }

  struct Record {
    std::set<std::string> names;
    std::set<std::string> on_cpu;
    int64_t calls = 0;
    std::vector<c10::OperatorName> operators;
  };

 private:
  Record record_;
  at::CallbackHandle handle_;
};

/// Operators that wait for the device, or whose result has a data-dependent shape: none may appear
/// in a step. Copies between host and device show in OperatorRecorder::on_cpu.
const std::set<std::string>& synchronizing_operators();

/// Whether LibTorch has its CUDA library, with or without a device.
bool has_cuda_library();
/// Whether an operator runs on CUDA tensors: it has a kernel there, or is made of others.
bool has_cuda_kernel(const c10::OperatorName& name);

}  // namespace test
