// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// How a parameter tensor of rank >= 2 becomes the matrices that are orthogonalized, and back. Which
// parameter gets which layout is decided in parameters/routing_table.hpp or by the user.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>  // IntArrayRef

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include <root_optim/core/fields.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// How a tensor becomes matrices; a value type.
///
/// The tensor is cut in this order:
///  1. along its first dimension into blocks (`split_rows`; default: one block);
///  2. in each block, dimension `out_dim` moves to the front (default 0: nothing moves);
///  3. the block is flattened to (rows, everything else).
///
/// With `batch(true)` nothing is cut or flattened: the last two dimensions are the matrix, and each
/// index of the leading ones is a matrix of its own.
///
/// Every matrix is filtered, orthogonalized and scaled on its own.
///
/// | parameter                            | layout                                       |
/// |--------------------------------------|----------------------------------------------|
/// | Linear weight [out, in]              | MatrixLayout()                                     |
/// | fused QKV weight [3·d, d]            | MatrixLayout().split_rows(3)                       |
/// | grouped-query weight [d + 2·k, d]    | MatrixLayout().split_rows({d, k, k})               |
/// | Conv2d weight [out, in/groups, h, w] | MatrixLayout().split_rows(groups)                  |
/// | ConvTranspose2d [in, out/groups, h, w] | MatrixLayout().split_rows(groups).out_dim(1)     |
/// | experts [e, out, in]                 | MatrixLayout().batch(true)                         |
class MatrixLayout {
 public:
  /// Cuts the first dimension into `count` equal blocks. Range: >= 1 and a divisor of that
  /// dimension. Default: 1.
  MatrixLayout& split_rows(int64_t count);
  /// Cuts the first dimension into blocks of the given sizes, each >= 1, whose sum is that
  /// dimension.
  MatrixLayout& split_rows(std::vector<int64_t> sizes);
  /// The same in braces: `split_rows({32})` is one block of 32 rows, `split_rows(32)` 32 blocks.
  MatrixLayout& split_rows(std::initializer_list<int64_t> sizes) {
    return split_rows(std::vector<int64_t>(sizes));
  }
  /// The dimension that counts the outputs. Range: 0 <= out_dim < rank. Default: 0.
  MatrixLayout& out_dim(int64_t dim);
  /// Whether leading dimensions of a block count matrices (true) or are flattened (false, default).
  MatrixLayout& batch(bool batch);

  int64_t split_count() const { return count_; }  ///< of equal blocks; 1 with sizes
  const std::vector<int64_t>& split_sizes() const { return sizes_; }  ///< empty with a count
  int64_t out_dim() const { return out_dim_; }
  bool batch() const { return batch_; }

  void serialize(Fields& out) const;
  void deserialize(const Fields& in);

  friend bool operator==(const MatrixLayout& a, const MatrixLayout& b) {
    return a.count_ == b.count_ && a.sizes_ == b.sizes_ && a.out_dim_ == b.out_dim_ &&
           a.batch_ == b.batch_;
  }
  friend bool operator!=(const MatrixLayout& a, const MatrixLayout& b) { return !(a == b); }

 private:
  int64_t count_ = 1;
  std::vector<int64_t> sizes_;
  int64_t out_dim_ = 0;
  bool batch_ = false;
};

/// The layout in words: "matrix", "3 row blocks", "row blocks [64, 16, 16]", "out dim 1",
/// "batched".
std::string to_string(const MatrixLayout& layout);

/// One matrix as laid out, before any transposition.
struct MatrixShape {
  int64_t rows;  ///< m
  int64_t cols;  ///< n
  friend bool operator==(MatrixShape a, MatrixShape b) {
    return a.rows == b.rows && a.cols == b.cols;
  }
};

namespace detail {

/// The block sizes along the first dimension of a tensor of shape `shape`, after checking that the
/// layout fits it.
std::vector<int64_t> block_sizes(c10::IntArrayRef shape, const MatrixLayout& layout);

}  // namespace detail

/// The shapes of the matrices that a tensor of shape `shape` becomes, one for each block (with `batch`
/// the one shape that all share).
/// @throws c10::Error if the layout does not fit the shape.
std::vector<MatrixShape> matrix_shapes(c10::IntArrayRef shape, const MatrixLayout& layout);

/// Views of k stacked tensors, [k, c, out, ...], with the out dimension in front of the rest. The c
/// blocks of a split by count share one view; every block of a split by sizes has a view of its own,
/// with c = 1. Writing to a view writes to `stacked`.
/// @param stacked [k, *shape], any strides.
/// @throws c10::Error if the layout does not fit the shape.
std::vector<at::Tensor> block_views(const at::Tensor& stacked, const MatrixLayout& layout);

/// One block view as a batch of matrices [count, rows, cols]; a copy only where strides demand it.
at::Tensor block_matrices(const at::Tensor& view, const MatrixLayout& layout);

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/parameters/detail/layout_impl.hpp>
#endif
