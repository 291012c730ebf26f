// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
#pragma once

#include <c10/core/Device.h>
#include <c10/util/Exception.h>
#include <torch/cuda.h>
#include <torch/version.h>

#include <string>

namespace examples {

/// "cpu" or "cuda".
/// @throws c10::Error if there is no such device.
inline at::Device find_device(const std::string& name) {
  TORCH_CHECK(name != "cuda" || torch::cuda::is_available(),
              "--device cuda: expected a CUDA device, got none from LibTorch ", TORCH_VERSION);
  return at::Device(name);
}

/// Waits for what was asked of the device, so that a clock means something.
inline void synchronize(at::Device device) {
  if (device.is_cuda()) torch::cuda::synchronize();
}

}  // namespace examples
