// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The length of the orthogonalized update by matrix shape.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK

#include <algorithm>
#include <cmath>
#include <cstdint>

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// What the learning rate of a matrix of `rows` × `cols` is multiplied by. Rows and columns are
/// those of the matrix as laid out (MatrixLayout), before any transposition.
enum class LrScale {
  MatchRmsAdamW,  ///< 0.2·√max(rows, cols): the update's RMS matches AdamW's, so its lr transfers
  Original,       ///< √max(1, rows/cols): Muon as first published
  Spectral,       ///< √(rows/cols): unit RMS-to-RMS operator norm
  Unscaled        ///< 1
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
      return 0.2 * std::sqrt((std::max)(m, n));
    case LrScale::Original:
      return std::sqrt((std::max)(1.0, m / n));
    case LrScale::Spectral:
      return std::sqrt(m / n);
    case LrScale::Unscaled:
      return 1.0;
  }
  TORCH_CHECK(false, "root_optim::lr_scale: expected a value of LrScale, got ",
              static_cast<int>(scale));
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
