// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The devices that every numeric test runs on.
#pragma once

#include "catch_torch.hpp"

#include <vector>

namespace test {

/// The CPU, and the first CUDA device when LibTorch sees one. Use as
///   const at::Device device = GENERATE(from_range(test::devices()));
inline std::vector<at::Device> devices() {
  std::vector<at::Device> present{at::kCPU};
  if (torch::cuda::is_available()) present.emplace_back(at::kCUDA, 0);
  return present;
}

inline at::TensorOptions on(at::Device device, at::ScalarType dtype) {
  return at::TensorOptions().device(device).dtype(dtype);
}

}  // namespace test
