// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of filters/outlier_split.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>  // GradMode
#include <ATen/ops/clamp.h>
#include <ATen/ops/full.h>
#include <ATen/ops/where.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <limits>
#include <utility>

#include <root_optim/core/tensor_checks.hpp>
#include <root_optim/filters/outlier_split.hpp>
#include <root_optim/kernels/workspace.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

ROOT_OPTIM_INLINE at::Tensor limit_of(const at::Tensor& u, const at::Tensor& threshold) {
  const at::Tensor unlimited =
      at::full({}, std::numeric_limits<double>::infinity(), threshold.options());
  return at::where(threshold.gt(0), threshold, unlimited).to(u.scalar_type());
}

ROOT_OPTIM_INLINE at::Tensor clamp_to(const at::Tensor& u, const at::Tensor& threshold,
                                      Workspace* workspace) {
  const at::Tensor limit = limit_of(u, threshold);
  if (at::GradMode::is_enabled()) return at::clamp(u, limit.neg(), limit);  // differentiable
  at::Tensor body = temporary_like(workspace, u);
  return at::clamp_out(body, u, limit.neg(), limit);
}

}  // namespace detail

ROOT_OPTIM_INLINE std::pair<at::Tensor, at::Tensor> split_outliers(const at::Tensor& u,
                                                                   const at::Tensor& threshold) {
  detail::check_batch(u, "split_outliers");
  detail::check_batch(threshold, "split_outliers");
  TORCH_CHECK(threshold.size(0) == u.size(0) &&
                  (threshold.sizes() == u.sizes() || threshold.numel() == u.size(0)),
              "root_optim::split_outliers: expected one threshold per matrix or per entry of ",
              u.sizes(), ", got shape ", threshold.sizes());
  at::Tensor body = detail::clamp_to(u, threshold);
  return {u.sub(body), body};
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
