// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Being told when `backward()` has brought the gradient of a parameter.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>       // Node
#include <torch/csrc/autograd/function_hook.h>  // FunctionPostHook
#include <torch/csrc/autograd/variable.h>       // grad_accumulator

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// While it lives, calls f(i) each time that `backward()` has added to the gradient of parameter i: once in each, even
/// if the parameter was used several times. The thread is the one that computes: on the CPU the one that called
/// `backward()`. What f throws comes out of `backward()`.
class BackwardHooks {
 public:
  BackwardHooks(const std::vector<at::Tensor>& parameters, std::function<void(size_t)> f) {
    const auto shared = std::make_shared<const std::function<void(size_t)>>(std::move(f));
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (!parameters[i].requires_grad()) continue;
      // The parameter itself keeps its node weakly: another one would take its place, without the hook.
      NodePtr node = torch::autograd::impl::grad_accumulator(parameters[i]);
      const uintptr_t key = node->add_post_hook(std::make_unique<Hook>(shared, i));
      hooks_.emplace_back(std::move(node), key);
    }
  }
  ~BackwardHooks() {
    for (auto& [node, key] : hooks_) node->del_post_hook(key);
  }
  BackwardHooks(const BackwardHooks&) = delete;
  BackwardHooks& operator=(const BackwardHooks&) = delete;

 private:
  /// LibTorch has had two kinds of pointers to nodes.
  using NodePtr =
      decltype(torch::autograd::impl::grad_accumulator(std::declval<const at::Tensor&>()));

  struct Hook : torch::autograd::FunctionPostHook {
    Hook(std::shared_ptr<const std::function<void(size_t)>> function, size_t parameter)
        : f(std::move(function)), i(parameter) {}
    torch::autograd::variable_list operator()(const torch::autograd::variable_list& outputs,
                                              const torch::autograd::variable_list&) override {
      (*f)(i);
      return outputs;
    }
    std::shared_ptr<const std::function<void(size_t)>> f;
    size_t i;
  };

  std::vector<std::pair<NodePtr, uintptr_t>> hooks_;
};

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
