// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Balances orthogonalized updates by the second moments of their rows and columns: those that are long
// step after step are shortened, the others lengthened.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

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
/// Shapes:  x: [count, rows, cols], with moments to match -> new tensors. Nothing is written.
/// Dtype:   float32 or float64, moments as x. Moments start as zeros, without a bias correction, since only
///          ratios count.
/// Degenerate: a row or column that was always zero stays zero; a zero matrix stays zero.
/// Cost:    about ten operators with temporaries of x's size; rows + cols numbers of state a matrix.
/// Reference: NorMuon, arXiv 2510.05491 (rows); Adafactor, arXiv 1804.04235 (rows × columns).
/// @param beta β, in [0, 1).
/// @throws c10::Error for moments of another shape and for beta out of its range.
inline BalancedUpdate balance_update(const at::Tensor& x, const UpdateMoments& moments,
                                     double beta) {
  TORCH_CHECK(x.dim() == 3 && moments.rows.sizes() == x.sizes().slice(0, 2) &&
                  moments.cols.dim() == 2 && moments.cols.size(0) == x.size(0) &&
                  moments.cols.size(1) == x.size(2),
              "root_optim::balance_update: expected moments of the rows and columns of ", x.sizes(),
              ", got ", moments.rows.sizes(), " and ", moments.cols.sizes());
  TORCH_CHECK(beta >= 0 && beta < 1, "root_optim::balance_update: expected 0 <= beta < 1, got ",
              beta);
  constexpr double least = 1e-30;  // the square of what rounds to nothing beside entries of an X
  const at::Tensor square = x.square();
  BalancedUpdate result;
  result.moments.rows = moments.rows.mul(beta).add_(square.mean(2), 1 - beta);
  result.moments.cols = moments.cols.mul(beta).add_(square.mean(1), 1 - beta);
  const at::Tensor& r = result.moments.rows;
  const at::Tensor shorten_rows =
      r.div(r.mean(1, /*keepdim=*/true).clamp_min_(least)).clamp_min_(least).rsqrt_().unsqueeze(2);
  const at::Tensor shorten_cols = result.moments.cols.clamp_min(least).rsqrt_().unsqueeze(1);
  at::Tensor y = x.mul(shorten_rows).mul_(shorten_cols);
  const at::Tensor before = square.sum({1, 2}, /*keepdim=*/true);
  const at::Tensor after = y.square().sum({1, 2}, /*keepdim=*/true).clamp_min_(least);
  result.matrices = y.mul_(before.div(after).sqrt_());
  return result;
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
