// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// How far a matrix is from being orthogonal: its error against the exact polar factor (exact_polar.hpp), and
// its singular values. In float64; waits for the device.
#pragma once

#include <ATen/core/Tensor.h>

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// ‖X − Y‖_F / ‖Y‖_F in float64, over all dimensions; ‖X‖_F if Y is zero.
///
/// With Y the exact polar factor of what X orthogonalizes, this is the relative error of the paper,
/// and the root of `singular_value_mse` where X and Y share singular vectors.
/// @throws c10::Error unless both are defined, of one shape and of a real dtype.
double relative_error(const at::Tensor& x, const at::Tensor& truth);

/// The singular values of a matrix, or of each matrix of a batch, in float64, descending.
/// Shapes: [..., m, n] -> [..., min(m, n)].
/// @throws c10::Error for other than real floating-point matrices, and if they hold Inf or NaN.
at::Tensor singular_values(const at::Tensor& x);

/// mean (σ − 1)² over the singular values σ of an orthogonalized matrix X, or of a batch of them.
///
/// For X made from a rank-deficient matrix the zero directions count with 1; compare with
/// `exact_polar` there.
/// @throws c10::Error for an empty matrix, and as `singular_values`.
double singular_value_mse(const at::Tensor& x);

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/diagnostics/detail/orthogonality_impl.hpp>
#endif
