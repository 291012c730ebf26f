// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Balances orthogonalized updates by the second moments of their rows and columns: those that are long
// step after step are shortened, the others lengthened.
#pragma once

#include <ATen/core/Tensor.h>

#include <root_optim/core/scratch.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// Running means of X² over the rows and over the columns of each matrix X of a batch.
struct UpdateMoments {
  at::Tensor rows;  ///< R, [count, rows]
  at::Tensor cols;  ///< C, [count, cols]
};

/// The new moments and the balanced update.
struct BalancedUpdate {
  UpdateMoments moments;  ///< R' and C'
  at::Tensor matrices;    ///< Y, [count, rows, cols]
};

/// Divides each matrix X of a batch by the size that its rows and columns usually have.
///
/// Math:    R' = β R + (1 − β) mean_j X²,  C' = β C + (1 − β) mean_i X²
///          Y_ij = X_ij / √(R'_i C'_j / mean R'),  Y ← Y·‖X‖_F/‖Y‖_F
/// Shapes:  x: [count, rows, cols], with moments to match -> new tensors. Nothing is written, but x where
///          `scratch` says that it may be overwritten.
/// Dtype:   float32 or float64, moments as x. Moments start as zeros, without a bias correction, since only
///          ratios count. Not differentiable.
/// Degenerate: a row or column that was always zero stays zero; a zero matrix stays zero. What is below 1e-15
///          of 1, as no entry of an orthogonalized matrix is that counts, may round to zero.
/// Cost:    on the CPU two reads of x and one in which it is written; elsewhere, and for an x with gaps, some twenty
///          operators with a temporary of x's size. rows + cols numbers of state a matrix.
/// Reference: NorMuon, arXiv 2510.05491 (rows); Adafactor, arXiv 1804.04235 (rows × columns).
/// @param beta β, in [0, 1).
/// @throws c10::Error for moments of another shape, dtype or device, and for beta out of its range.
BalancedUpdate balance_update(const at::Tensor& x, const UpdateMoments& moments, double beta,
                              const Scratch& scratch = {});

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/stages/detail/update_balance_impl.hpp>
#endif
