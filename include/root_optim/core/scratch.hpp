// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What a step offers to a policy beside the matrices.
#pragma once

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
  /// Where a policy puts, if it cannot treat some matrices, which: bool [k], true where the result is of no use.
  at::Tensor* failed = nullptr;
};

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
