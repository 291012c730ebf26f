// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Which rows of gradients go to which owner, and what of them travels together. Nothing here depends on the
// rank that asks.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <root_optim/distributed/detail/partition.hpp>
#include <root_optim/distributed/detail/state_part.hpp>
#include <root_optim/optimizer/detail/group_options.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Rows of a parameter that have one owner. A tensor without dimensions is one row.
struct OwnedRows {
  size_t parameter;  ///< position among all
  int64_t owner, first, rows;

  at::Tensor of(const at::Tensor& x) const { return x.dim() == 0 ? x : x.narrow(0, first, rows); }
};

/// All rows of all parameters that have entries, in the order of `groups`.
inline std::vector<OwnedRows> owned_rows(const Partition& partition, const Groups& groups) {
  std::vector<OwnedRows> owned;
  for (const StatePart& part : parts_of(groups, &partition)) {
    owned.push_back({static_cast<size_t>(part.position), part.owner, part.first, part.rows});
  }
  return owned;
}

/// What goes to one owner in one message: numbers of one dtype, on one device.
struct Parcel {
  int64_t owner;
  at::ScalarType dtype;
  at::Device device;
  int64_t numel;
  std::vector<OwnedRows> rows;

  int64_t bytes() const { return numel * static_cast<int64_t>(c10::elementSize(dtype)); }
};

/// Buckets in which every owner gets at most `owner_bytes`, or one row.
/// @param dtypes in which gradients travel, by parameter
inline std::vector<std::vector<Parcel>> reduction_buckets(const std::vector<at::Tensor>& parameters,
                                                          const std::vector<at::ScalarType>& dtypes,
                                                          const std::vector<OwnedRows>& owned,
                                                          int64_t owner_bytes) {
  std::vector<std::vector<Parcel>> buckets;
  struct Fill {
    size_t bucket = 0;
    int64_t bytes = 0;
  };
  std::map<int64_t, Fill> fills;  // by owner
  std::map<std::tuple<size_t, int64_t, std::string, at::ScalarType>, size_t> open;
  for (const OwnedRows& part : owned) {
    const at::Tensor& parameter = parameters[part.parameter];
    const at::ScalarType dtype = dtypes[part.parameter];
    const int64_t row = part.of(parameter).numel() / part.rows;
    const int64_t row_bytes = row * static_cast<int64_t>(c10::elementSize(dtype));
    Fill& fill = fills[part.owner];
    for (int64_t first = 0; first < part.rows;) {
      int64_t fit = (owner_bytes - fill.bytes) / row_bytes;
      if (fit < 1 && fill.bytes > 0) {
        fill = {fill.bucket + 1, 0};
        continue;
      }
      fit = (std::min)((std::max)(fit, int64_t{1}), part.rows - first);
      if (fill.bucket >= buckets.size()) buckets.resize(fill.bucket + 1);
      std::vector<Parcel>& bucket = buckets[fill.bucket];
      const auto [found, is_new] = open.emplace(
          std::tuple(fill.bucket, part.owner, parameter.device().str(), dtype), bucket.size());
      if (is_new) bucket.push_back({part.owner, dtype, parameter.device(), 0, {}});
      Parcel& parcel = bucket[found->second];
      parcel.numel += fit * row;
      parcel.rows.push_back({part.parameter, part.owner, part.first + first, fit});
      fill.bytes += fit * row_bytes;
      first += fit;
    }
  }
  return buckets;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
