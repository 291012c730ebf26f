// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The options of `GradientReducer` and `OwnerReducer`.
#pragma once

#include <torch/arg.h>  // TORCH_ARG

#include <chrono>
#include <cstdint>

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// What a gradient counts as that some ranks have and others lack (a part of the model that their data did
/// not reach).
enum class MissingGradient {
  Zero,  ///< 0 where it is missing: the mean is over all ranks, and every rank gets it
  Error  ///< an error on every rank
};

/// How gradients are reduced. Setters return the options, so that calls chain.
struct ReducerOptions {
  /// What a gradient counts as that some ranks lack. One that all lack stays missing. Default: Zero.
  TORCH_ARG(MissingGradient, missing) = MissingGradient::Zero;
  /// Bytes of gradients that travel together; two such buckets are in flight, with overlap all that are full. Must be
  /// equal on all ranks. Range: >= 1. Default: 25 MiB.
  TORCH_ARG(int64_t, bucket_bytes) = int64_t{25} << 20;
  /// What protects the mean from a rank that sends garbage: a rank whose gradients together are longer than
  /// `limit_ranks` times the median of the ranks (the lower one) counts w = limit·median/‖g‖ in place of 1. The sum is
  /// still divided by N. With several bad ranks more than half must be good; gradients that are not finite are not
  /// held back. Costs a read of all gradients and one small all_gather. 0: off. Range: 0, or finite and >= 1.
  /// Must be equal on all ranks. Default: 0.  Source: ours (docs/results.md, guards).
  TORCH_ARG(double, limit_ranks) = 0;
  /// Gradients travel while `backward()` computes the ones before them, and not in `reduce()`; what backward() has not
  /// brought travels in `reduce()`. Costs a copy of all gradients, in the dtype of sums. Small `bucket_bytes` let it
  /// begin earlier. For `GradientReducer` alone, without `limit_ranks`. From the first gradient of `backward()` to
  /// `reduce()` nothing else may use the group: ranks that lack other gradients would take one thing for another, and
  /// Gloo ends the process at sums of unequal sizes. A group of the reducer's own is always right. Must be equal on
  /// all ranks. Default: false.
  TORCH_ARG(bool, overlap) = false;
  /// How long to wait for the other ranks; 0: as long as the process group has it. Default: 0.
  TORCH_ARG(std::chrono::milliseconds, timeout) = std::chrono::milliseconds(0);
};

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
