// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Parameters of many kinds, with gradients that follow from a seed: what ranks share in the tests.
#pragma once

#include "support/catch_torch.hpp"
#include "support/saved.hpp"

#include <cstdint>
#include <root_optim/root_optim.hpp>
#include <string>
#include <vector>

namespace test {

/// Tensors that a model would have: matrices of several shapes, convolutions, vectors, half precision, one
/// whose memory is transposed, and one without entries.
struct Model {
  std::vector<at::Tensor> matrices, others;

  explicit Model(int64_t seed = 1) {
    auto generator = at::detail::createCPUGenerator(static_cast<uint64_t>(seed));
    const auto add = [&](std::vector<at::Tensor>& to, std::vector<int64_t> shape,
                         at::ScalarType dtype = at::kFloat) {
      to.push_back(at::randn(shape, generator).to(dtype).requires_grad_());
    };
    for (int i = 0; i < 5; ++i) add(matrices, {24, 40});
    for (int i = 0; i < 3; ++i) add(matrices, {40, 24});
    add(matrices, {16, 4, 3, 3});
    add(matrices, {33, 33});
    add(matrices, {32, 48}, at::kBFloat16);
    add(matrices, {32, 16}, at::kDouble);
    matrices.push_back(at::randn({20, 30}, generator).t().requires_grad_());
    add(others, {50, 24});
    for (int i = 0; i < 6; ++i) add(others, {40});
    add(others, {7}, at::kBFloat16);
    add(others, {}, at::kDouble);
    add(others, {0});
    others.push_back(at::randn({6, 10}, generator).t().requires_grad_());
    add(others, {100, 60});  // these two are cut between ranks
    add(others, {5001});
  }

  std::vector<at::Tensor> all() const {
    std::vector<at::Tensor> tensors = matrices;
    tensors.insert(tensors.end(), others.begin(), others.end());
    return tensors;
  }

  /// Gradients of a step, the same wherever it is called.
  void set_gradients(int64_t step) const {
    auto generator = at::detail::createCPUGenerator(static_cast<uint64_t>(1000 + step));
    for (at::Tensor parameter : all()) {
      parameter.mutable_grad() =
          at::randn(parameter.sizes(), generator).to(parameter.scalar_type());
    }
  }

  /// Two groups, the second of which follows AdamW.
  template <class Options>
  std::vector<torch::optim::OptimizerParamGroup> groups(const Options& options) const {
    std::vector<torch::optim::OptimizerParamGroup> result;
    result.emplace_back(matrices, std::make_unique<Options>(options));
    result.emplace_back(
        others, std::make_unique<Options>(Options(options).rule(root_optim::Rule::AdamW).lr(3e-3)));
    return result;
  }
};

/// The bits of tensors.
inline std::string bits_of(const std::vector<at::Tensor>& tensors) {
  std::string bits;
  for (const at::Tensor& tensor : tensors) {
    const at::Tensor values = tensor.detach().contiguous();
    bits.append(static_cast<const char*>(values.data_ptr()), values.nbytes());
  }
  return bits;
}

/// Steps first + 1 to last.
template <class Optimizer>
void take_steps(const Model& model, Optimizer& optimizer, int64_t first, int64_t last) {
  for (int64_t step = first; step < last; ++step) {
    model.set_gradients(step);
    optimizer.step();
  }
}

/// What f() throws; empty if nothing.
template <class F>
std::string message_of(const F& f) {
  try {
    f();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "";
}

}  // namespace test
