// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Small helpers for tests that step an optimizer: parameters, and gradients that depend on nothing
// but the step.
#pragma once

#include "catch_torch.hpp"

#include <cstdint>
#include <functional>
#include <vector>

#include "spectra.hpp"

namespace test {

/// A leaf with a copy of `value`, strides kept, and no gradient.
inline at::Tensor parameter(const at::Tensor& value) {
  at::Tensor copy = at::empty_strided(value.sizes(), value.strides(), value.options());
  return copy.copy_(value).requires_grad_(true);
}

/// A Gaussian parameter.
inline at::Tensor parameter(at::IntArrayRef sizes, uint64_t seed,
                            at::TensorOptions options = at::kDouble) {
  return parameter(gaussian(sizes, seed).to(options));
}

/// The gradient that a parameter of this shape gets in step `t`: a fixed part of rank 2, as
/// training has, plus noise with a few spikes. float64 on the CPU.
inline at::Tensor gradient_of(at::IntArrayRef sizes, int64_t t) {
  const auto step = static_cast<uint64_t>(t);
  at::Tensor noise = gaussian(sizes, 10000 + step);
  noise = at::where(gaussian(sizes, 20000 + step) > 2.0, noise * 20, noise);
  if (sizes.size() < 2) return noise;
  int64_t cols = 1;
  for (size_t i = 1; i < sizes.size(); ++i) cols *= sizes[i];
  return low_rank(sizes[0], cols, 2, 30000).reshape(sizes) + noise;
}

inline void set_gradient(const at::Tensor& parameter, const at::Tensor& gradient) {
  parameter.mutable_grad() = gradient.to(parameter.options().requires_grad(false));
}

/// Runs steps first + 1 ... last, with a gradient for every parameter.
inline void train(torch::optim::Optimizer& optimizer, const std::vector<at::Tensor>& parameters,
                  int64_t first, int64_t last) {
  for (int64_t t = first + 1; t <= last; ++t) {
    for (const at::Tensor& p : parameters) set_gradient(p, gradient_of(p.sizes(), t));
    optimizer.step();
  }
}

}  // namespace test
