// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of diagnostics/tail_statistics.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <tuple>

#include <root_optim/core/tensor_checks.hpp>
#include <root_optim/diagnostics/tail_statistics.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE TailStatistics tail_statistics(const at::Tensor& u) {
  detail::check_matrices(u, "tail_statistics");
  TORCH_CHECK(u.numel() > 0 && u.numel() == u.size(-2) * u.size(-1),
              "root_optim::tail_statistics: expected one matrix that is not empty, got shape ",
              u.sizes());
  const at::Tensor magnitude = u.detach().reshape({u.size(-2), u.size(-1)}).to(at::kDouble).abs();
  const double largest = magnitude.amax().item<double>();
  if (largest == 0) return {0, std::numeric_limits<double>::infinity(), 0, 0};
  const at::Tensor v = magnitude.div(largest);
  const double square = v.square().mean().item<double>();
  const int64_t count = (std::min)(v.numel(), std::max<int64_t>(2, v.numel() / 100));
  const at::Tensor logs = std::get<0>(v.flatten().topk(count)).clamp_min(1e-300).log();
  const double spread = count > 1 ? logs.sub(logs[-1]).sum().item<double>() : 0;
  const at::Tensor pattern = v.mean(1, /*keepdim=*/true).mul(v.mean(0, /*keepdim=*/true));
  return {v.pow(4).mean().item<double>() / (square * square) - 3,
          spread > 0 ? static_cast<double>(count - 1) / spread
                     : std::numeric_limits<double>::infinity(),
          1 / std::sqrt(square),
          v.div(pattern.clamp_min(1e-300)).amax().item<double>() * v.mean().item<double>()};
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
