// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The split of a matrix at a threshold.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

#include <root_optim/kernels/workspace.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

namespace detail {

/// ε in the dtype of U; ∞ where ε = 0.
at::Tensor limit_of(const at::Tensor& u, const at::Tensor& threshold);

/// clamp(U, −ε, ε), U itself where ε = 0.
at::Tensor clamp_to(const at::Tensor& u, const at::Tensor& threshold,
                    Workspace* workspace = nullptr);

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
std::pair<at::Tensor, at::Tensor> split_outliers(const at::Tensor& u, const at::Tensor& threshold);

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/filters/detail/outlier_split_impl.hpp>
#endif
