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

/// Whether products of bfloat16 matrices accumulate in float32. Batched ones of LibTorch 1 on the CPU
/// accumulate in bfloat16 unless the CPU multiplies bfloat16 in hardware; no bound holds then.
inline bool bfloat16_products_hold(at::Device device) {
  if (TORCH_VERSION_MAJOR >= 2 || device.is_cuda()) return true;
  WARN("bfloat16: skipped, LibTorch 1 accumulates it in bfloat16 on the CPU");
  return false;
}

inline at::TensorOptions on(at::Device device, at::ScalarType dtype) {
  return at::TensorOptions().device(device).dtype(dtype);
}

}  // namespace test
