// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The options of `distribute`.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>  // TORCH_CHECK
#include <torch/arg.h>           // TORCH_ARG

#include <chrono>
#include <cstdint>
#include <utility>
#include <vector>

#include <root_optim/distributed/sharded_layout.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// How ranks share the steps of an optimizer. Setters return the options, so that calls chain.
struct DistributedOptions {
  /// Bytes of parameter values that travel together. A batch larger than that travels alone. Memory: two
  /// such buckets are in flight, and the next state of this rank's part of them. A bucket is committed on
  /// all ranks or on none: as large as the parameters, it makes a whole step all or none. Must be equal on
  /// all ranks. Range: >= 1. Default: 64 MiB.
  TORCH_ARG(int64_t, bucket_bytes) = int64_t{64} << 20;
  /// How long to wait for the other ranks; 0: as long as the process group has it. Range: >= 0.
  /// Default: 0.
  TORCH_ARG(std::chrono::milliseconds, timeout) = std::chrono::milliseconds(0);

 public:
  /// Says that a parameter of the optimizer is this rank's shard of one that is spread over the ranks. All ranks say
  /// so of the same parameters. Default: every rank has every parameter whole.
  DistributedOptions& sharded(at::Tensor parameter, ShardedLayout layout) {
    sharded_.emplace_back(std::move(parameter), layout);
    return *this;
  }
  /// Those that have been named so.
  const std::vector<std::pair<at::Tensor, ShardedLayout>>& sharded() const { return sharded_; }

  /// @throws c10::Error if a value is out of its range.
  void validate() const {
    TORCH_CHECK(bucket_bytes_ >= 1,
                "root_optim::DistributedOptions: expected bucket_bytes >= 1, got ", bucket_bytes_);
    TORCH_CHECK(timeout_.count() >= 0,
                "root_optim::DistributedOptions: expected a timeout >= 0, got ", timeout_.count(),
                " ms");
  }

 private:
  std::vector<std::pair<at::Tensor, ShardedLayout>> sharded_;
};

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
