// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The split of a matrix at a threshold.
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
#include <root_optim/kernels/workspace.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

namespace detail {

/// ε in the dtype of U; ∞ where ε = 0.
inline at::Tensor limit_of(const at::Tensor& u, const at::Tensor& threshold) {
  const at::Tensor unlimited =
      at::full({}, std::numeric_limits<double>::infinity(), threshold.options());
  return at::where(threshold.gt(0), threshold, unlimited).to(u.scalar_type());
}

/// clamp(U, −ε, ε), U itself where ε = 0.
inline at::Tensor clamp_to(const at::Tensor& u, const at::Tensor& threshold,
                           Workspace* workspace = nullptr) {
  const at::Tensor limit = limit_of(u, threshold);
  if (at::GradMode::is_enabled()) return at::clamp(u, limit.neg(), limit);  // differentiable
  at::Tensor body = temporary_like(workspace, u);
  return at::clamp_out(body, u, limit.neg(), limit);
}

}  // namespace detail

/// Splits U = O + B at a threshold ε: B = clamp(U, −ε, ε), the body, and O = sign(U)·max(|U| − ε, 0),
/// the outliers.
///
/// B is computed first, then O = U − B, which is exact where |U| <= 2ε. U − soft(U) would lose B's
/// digits to cancellation for large U. O + B equals U to one ulp of U.
/// Shapes:   u: [k, m, n]; threshold: [k, 1, 1] or [k, m, n], floating-point, on u's device -> (O, B),
///           each of u's shape. Nothing is written.
/// Degenerate: where ε is not > 0 (NaN, too) nothing is split: B = U.
/// @throws c10::Error for a u that is not [k, m, n] and a threshold of another shape.
inline std::pair<at::Tensor, at::Tensor> split_outliers(const at::Tensor& u,
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
