// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// An optimizer whose step fails on the ranks that ask for it.
#pragma once

#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>
#include <stdexcept>

namespace test {

/// Of this thread, that is, of this rank; below 0: never.
inline thread_local int calls_before_throwing = -1;

/// Throws in the thread that asks for it.
struct Unreliable {
  static constexpr const char* name = "unreliable";
  at::Tensor operator()(const at::Tensor& x) const {
    if (calls_before_throwing >= 0 && calls_before_throwing-- == 0) {
      throw std::runtime_error("out of luck");
    }
    return x.sign();
  }
};
using Uncertain = root_optim::OrthogonalizedOptimizer<root_optim::NoFilter, Unreliable>;
using UncertainOptions = root_optim::OrthogonalizedOptions<root_optim::NoFilter, Unreliable>;

}  // namespace test
