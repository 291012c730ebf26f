// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The options of `distribute`.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK
#include <torch/arg.h>           // TORCH_ARG

#include <chrono>
#include <cstdint>

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
  /// @throws c10::Error if a value is out of its range.
  void validate() const {
    TORCH_CHECK(bucket_bytes_ >= 1,
                "root_optim::DistributedOptions: expected bucket_bytes >= 1, got ", bucket_bytes_);
    TORCH_CHECK(timeout_.count() >= 0,
                "root_optim::DistributedOptions: expected a timeout >= 0, got ", timeout_.count(),
                " ms");
  }
};

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
