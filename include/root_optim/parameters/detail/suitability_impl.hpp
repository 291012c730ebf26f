// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of parameters/suitability.hpp.
#pragma once

#include <c10/util/ArrayRef.h>  // IntArrayRef

#include <algorithm>
#include <string>
#include <vector>

#include <root_optim/parameters/layout.hpp>  // MatrixLayout, MatrixShape, matrix_shapes
#include <root_optim/parameters/suitability.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

ROOT_OPTIM_INLINE Suitability matrix_suitability(c10::IntArrayRef shape,
                                                 const MatrixLayout& layout) {
  if (shape.size() < 2) return {false, "rank " + std::to_string(shape.size())};
  const auto text = [](MatrixShape matrix) {
    return std::to_string(matrix.rows) + "x" + std::to_string(matrix.cols);
  };
  const std::vector<MatrixShape> matrices = matrix_shapes(shape, layout);
  bool alike = true;
  for (const MatrixShape& matrix : matrices) {
    const auto [shorter, longer] = std::minmax(matrix.rows, matrix.cols);
    if (shorter < min_matrix_side) {
      return {false, text(matrix) + " (side < " + std::to_string(min_matrix_side) + ")"};
    }
    if (longer > max_matrix_aspect * shorter) {
      return {false, text(matrix) + " (aspect > " + std::to_string(max_matrix_aspect) + ")"};
    }
    alike = alike && matrix == matrices.front();
  }
  if (matrices.size() == 1 && !layout.batch()) return {true, text(matrices.front())};
  if (!alike) return {true, std::to_string(matrices.size()) + " matrices of several shapes"};
  return {true, (layout.batch() ? "a batch" : std::to_string(matrices.size())) + " of " +
                    text(matrices.front())};
}

ROOT_OPTIM_INLINE Suitability suitability(c10::IntArrayRef shape, const MatrixLayout& layout) {
  Suitability verdict = matrix_suitability(shape, layout);
  if (shape.size() < 3 || layout != MatrixLayout()) return verdict;
  if (verdict.orthogonalize && shape[1] == 1) {
    return {false, "shape of a depthwise kernel: size(1) = 1"};
  }
  return {verdict.orthogonalize, "flattened to " + verdict.reason};
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
