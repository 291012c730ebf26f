// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The last stage of a step: how long the orthogonalized update is for a matrix shape, and how it
// and the weight decay reach the parameter.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mul.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <algorithm>
#include <cmath>
#include <cstdint>

#include <root_optim/kernels/workspace.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// What the learning rate of a matrix of `rows` × `cols` is multiplied by. Rows and columns are
/// those of the matrix as laid out (Layout), before any transposition.
enum class LrScale {
  MatchRmsAdamW,  ///< 0.2·√max(rows, cols): the update's RMS matches AdamW's, so its lr transfers
  Original,       ///< √max(1, rows/cols): Muon as first published
  Spectral,       ///< √(rows/cols): unit RMS-to-RMS operator norm
  None            ///< 1
};

/// The factor s(rows, cols) of LrScale.
/// @param rows, cols >= 1.
/// Reference: Moonlight, arXiv 2502.16982 (MatchRmsAdamW); K. Jordan, Muon (Original).
inline double lr_scale(LrScale scale, int64_t rows, int64_t cols) {
  TORCH_CHECK(rows >= 1 && cols >= 1, "root_optim::lr_scale: expected rows and cols >= 1, got ",
              rows, " and ", cols);
  const double m = static_cast<double>(rows);
  const double n = static_cast<double>(cols);
  switch (scale) {
    case LrScale::MatchRmsAdamW:
      return 0.2 * std::sqrt(std::max(m, n));
    case LrScale::Original:
      return std::sqrt(std::max(1.0, m / n));
    case LrScale::Spectral:
      return std::sqrt(m / n);
    case LrScale::None:
      return 1.0;
  }
  TORCH_CHECK(false, "root_optim::lr_scale: expected a value of LrScale, got ",
              static_cast<int>(scale));
}

/// (1 − lr·λ) p, in `dtype` and contiguous: decoupled weight decay, with the learning rate as set (not
/// scaled by shape). `parameter`, of any shape and floating-point dtype, is not written.
inline at::Tensor decayed(const at::Tensor& parameter, double lr, double weight_decay,
                          at::ScalarType dtype) {
  at::Tensor result = detail::temporary(parameter.sizes(), parameter.options().dtype(dtype));
  if (parameter.scalar_type() != dtype) {
    return result.copy_(parameter).mul_(1.0 - lr * weight_decay);
  }
  return at::mul_out(result, parameter.detach(),
                     at::full({}, 1.0 - lr * weight_decay, result.options()));
}

/// value ← value − lr·s·X for an orthogonalized X and s = `scale`, in place. In float32 or float64, so
/// that a half-precision parameter, to which the caller copies the value, is rounded once.
/// @throws c10::Error unless X has the shape of the value.
inline void add_direction(const at::Tensor& value, const at::Tensor& direction, double lr,
                          double scale) {
  TORCH_CHECK(value.sizes() == direction.sizes(),
              "root_optim::add_direction: expected a direction ", value.sizes(),
              ", as the value, got ", direction.sizes());
  value.add_(direction, -lr * scale);
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
