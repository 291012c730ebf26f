// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Where the results of a batch would travel between processes.
#pragma once

#include <root_optim/optimizer/detail/commit.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Between the computation of a batch and its commit. A single process has nothing to send.
///
/// Errors that a batch meets have been thrown by now, and nothing of it has moved; earlier batches have
/// been committed and stay. For AdamW it comes after the flags that say which gradients are usable and
/// before the fused kernel, which writes parameters and state in place.
inline void exchange(Commit&) {}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
