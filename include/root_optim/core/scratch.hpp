// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What a step offers to a policy beside the matrices.
#pragma once

#include <array>
#include <cstdint>

#include <root_optim/version.hpp>

namespace at {
class Tensor;
}

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

class Workspace;  // kernels/workspace.hpp

/// What a step offers to a policy whose call takes it (core/policy.hpp).
struct Scratch {
  Workspace* workspace = nullptr;  ///< memory for temporaries; null: LibTorch's allocator
  bool overwrite = false;          ///< nobody else needs the input, which may be written over
  /// Where a policy puts, if it cannot treat some matrices, which: bool [k], true where the result is of no use. A
  /// collective policy finds there, if it is defined, which matrices will not be stepped anyhow.
  at::Tensor* failed = nullptr;
  /// Where a collective policy, which sees a part of each matrix, puts the rows and columns of the whole.
  std::array<int64_t, 2>* whole = nullptr;
};

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
