// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Which gradients travel together. It depends on parameters alone, so that all ranks know it, whatever gradients
// they have.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>  // elementSize

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Buckets of at most `bucket_bytes` of sums, or of one gradient, of one dtype and device each; the last parameters
/// come first, as `backward()` comes to them. Parameters that require no gradient have buckets of their own, behind
/// the others. Those without entries are in none.
inline std::vector<std::vector<size_t>> gradient_buckets(const std::vector<at::Tensor>& parameters,
                                                         int64_t bucket_bytes) {
  std::vector<std::vector<size_t>> buckets;
  std::map<std::tuple<bool, std::string, at::ScalarType>, std::pair<size_t, int64_t>> open;
  for (size_t i = parameters.size(); i-- > 0;) {
    const at::Tensor& parameter = parameters[i];
    if (parameter.numel() == 0) continue;
    const at::ScalarType dtype = state_dtype(parameter);
    const auto bytes = parameter.numel() * static_cast<int64_t>(c10::elementSize(dtype));
    const auto key = std::tuple(parameter.requires_grad(), parameter.device().str(), dtype);
    const auto found = open.find(key);
    if (found == open.end() || found->second.second + bytes > bucket_bytes) {
      open[key] = {buckets.size(), 0};
      buckets.emplace_back();
    }
    open[key].second += bytes;
    buckets[open[key].first].push_back(i);
  }
  // In the order in which they are full.
  std::sort(buckets.begin(), buckets.end(), [&](const auto& a, const auto& b) {
    const bool first = parameters[a.back()].requires_grad();
    return first != parameters[b.back()].requires_grad() ? first : a.back() > b.back();
  });
  return buckets;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
