// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Does a tensor of this shape gain from orthogonalization? `Rule::Auto` applies this rule to flat
// parameter lists, and the routing of modules builds on it. It sees shapes only; routing.hpp judges the
// type and the name of a module. The papers say "matrices"; the two limits below make that precise.
#pragma once

#include <c10/util/ArrayRef.h>  // IntArrayRef

#include <cstdint>
#include <string>

#include <root_optim/parameters/layout.hpp>  // MatrixLayout, MatrixShape, matrix_shapes
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// A matrix with a side below this follows AdamW: a handful of singular values is no spectrum to even
/// out.
inline constexpr int64_t min_matrix_side = 8;

/// A matrix with an aspect (longer over shorter side) above this follows AdamW: it is a table of vectors
/// rather than a map.
inline constexpr int64_t max_matrix_aspect = 256;

/// The verdict on one shape.
struct Suitability {
  bool orthogonalize;  ///< else AdamW
  std::string reason;  ///< in words, for tables and errors
};

/// Judges the matrices that `layout` makes of a tensor, by their sides alone.
///
/// AdamW if the rank is below 2 or any one matrix has a smaller side < `min_matrix_side` (empty
/// matrices included) or an aspect > `max_matrix_aspect`; else orthogonalization.
/// @throws c10::Error if the layout does not fit the shape.
Suitability matrix_suitability(c10::IntArrayRef shape, const MatrixLayout& layout);

/// Judges a tensor of which nothing but the shape is known, by `matrix_suitability`. A tensor of rank
/// >= 3 with size(1) == 1, the shape of a depthwise kernel, follows AdamW, too.
///
/// A convolution that really has one input channel looks the same. A module tells the two apart
/// (parameters/routing_table.hpp). So does a layout: then more than the shape is known, and this second
/// rule does not apply. Otherwise `Rule::Orthogonalized` overrides the verdict.
/// @throws c10::Error if the layout does not fit the shape.
Suitability suitability(c10::IntArrayRef shape, const MatrixLayout& layout);

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/parameters/detail/suitability_impl.hpp>
#endif
