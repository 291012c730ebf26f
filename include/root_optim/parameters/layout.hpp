// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// How a parameter tensor of rank >= 2 becomes the matrices that are orthogonalized, and back. Which
// parameter gets which layout is decided in parameters/routing_table.hpp or by the user.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>   // IntArrayRef
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <algorithm>  // all_of, max
#include <cstdint>
#include <functional>  // multiplies
#include <initializer_list>
#include <numeric>  // accumulate
#include <string>
#include <utility>
#include <vector>

#include <root_optim/core/policy.hpp>  // Fields
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
  MatrixLayout& split_rows(int64_t count) {
    TORCH_CHECK(count >= 1, "root_optim::MatrixLayout::split_rows: expected a count >= 1, got ",
                count);
    count_ = count;
    sizes_.clear();
    return *this;
  }
  /// Cuts the first dimension into blocks of the given sizes, each >= 1, whose sum is that
  /// dimension.
  MatrixLayout& split_rows(std::vector<int64_t> sizes) {
    TORCH_CHECK(!sizes.empty(),
                "root_optim::MatrixLayout::split_rows: expected at least one size, got none");
    for (const int64_t size : sizes) {
      TORCH_CHECK(size >= 1, "root_optim::MatrixLayout::split_rows: expected sizes >= 1, got ",
                  c10::IntArrayRef(sizes));
    }
    count_ = 1;
    sizes_ = std::move(sizes);
    return *this;
  }
  /// The same in braces: `split_rows({32})` is one block of 32 rows, `split_rows(32)` 32 blocks.
  MatrixLayout& split_rows(std::initializer_list<int64_t> sizes) {
    return split_rows(std::vector<int64_t>(sizes));
  }
  /// The dimension that counts the outputs. Range: 0 <= out_dim < rank. Default: 0.
  MatrixLayout& out_dim(int64_t dim) {
    TORCH_CHECK(dim >= 0, "root_optim::MatrixLayout::out_dim: expected a dimension >= 0, got ",
                dim);
    out_dim_ = dim;
    return *this;
  }
  /// Whether leading dimensions of a block count matrices (true) or are flattened (false, default).
  MatrixLayout& batch(bool batch) {
    batch_ = batch;
    return *this;
  }

  int64_t split_count() const { return count_; }  ///< of equal blocks; 1 with sizes
  const std::vector<int64_t>& split_sizes() const { return sizes_; }  ///< empty with a count
  int64_t out_dim() const { return out_dim_; }
  bool batch() const { return batch_; }

  void serialize(Fields& out) const {
    out.set("split_count", count_);
    out.set("split_sizes", sizes_);
    out.set("out_dim", out_dim_);
    out.set("batch", batch_);
  }
  void deserialize(const Fields& in) {
    MatrixLayout read;
    read.split_rows(in.get<int64_t>("split_count"));
    if (const auto& sizes = in.get<std::vector<int64_t>>("split_sizes"); !sizes.empty()) {
      read.split_rows(sizes);
    }
    read.out_dim(in.get<int64_t>("out_dim")).batch(in.get<bool>("batch"));
    *this = std::move(read);
  }

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
inline std::string to_string(const MatrixLayout& layout) {
  std::string text;
  const auto add = [&text](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
  if (!layout.split_sizes().empty()) {
    std::string sizes;
    for (const int64_t size : layout.split_sizes()) {
      sizes += (sizes.empty() ? "" : ", ") + std::to_string(size);
    }
    add("row blocks [" + sizes + "]");
  } else if (layout.split_count() > 1) {
    add(std::to_string(layout.split_count()) + " row blocks");
  }
  if (layout.out_dim() != 0) add("out dim " + std::to_string(layout.out_dim()));
  if (layout.batch()) add("batched");
  return text.empty() ? "matrix" : text;
}

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
inline std::vector<int64_t> block_sizes(c10::IntArrayRef shape, const MatrixLayout& layout) {
  const bool split = layout.split_count() > 1 || !layout.split_sizes().empty();
  TORCH_CHECK(shape.size() >= 2,
              "root_optim::MatrixLayout: expected a tensor of rank >= 2, got shape ", shape);
  TORCH_CHECK(layout.out_dim() < static_cast<int64_t>(shape.size()),
              "root_optim::MatrixLayout: expected out_dim < rank, got out_dim ", layout.out_dim(),
              " for shape ", shape);
  TORCH_CHECK(!layout.batch() || (layout.out_dim() == 0 && !split),
              "root_optim::MatrixLayout: expected batch(true) without split_rows and out_dim, got ",
              to_string(layout));
  if (layout.split_sizes().empty()) {
    TORCH_CHECK(shape[0] % layout.split_count() == 0,
                "root_optim::MatrixLayout: expected split_rows to divide the first dimension, got ",
                layout.split_count(), " blocks for shape ", shape);
    TORCH_CHECK(layout.split_count() <= (std::max)(int64_t{1}, shape[0]),
                "root_optim::MatrixLayout: expected at most as many blocks as rows, got ",
                layout.split_count(), " blocks for shape ", shape);
    return std::vector<int64_t>(static_cast<size_t>(layout.split_count()),
                                shape[0] / layout.split_count());
  }
  const auto& sizes = layout.split_sizes();
  const bool fit = std::all_of(sizes.begin(), sizes.end(),
                               [&](int64_t size) { return size <= shape[0]; });  // no overflow
  TORCH_CHECK(fit && std::accumulate(sizes.begin(), sizes.end(), int64_t{0}) == shape[0],
              "root_optim::MatrixLayout: expected the sizes of split_rows to add up to the first "
              "dimension, got ",
              c10::IntArrayRef(sizes), " for shape ", shape);
  return sizes;
}

}  // namespace detail

/// The shapes of the matrices that a tensor of shape `shape` becomes, one for each block (with `batch`
/// the one shape that all share).
/// @throws c10::Error if the layout does not fit the shape.
inline std::vector<MatrixShape> matrix_shapes(c10::IntArrayRef shape, const MatrixLayout& layout) {
  std::vector<MatrixShape> shapes;
  for (const int64_t size : detail::block_sizes(shape, layout)) {
    if (layout.batch()) return {{shape[shape.size() - 2], shape.back()}};
    std::vector<int64_t> block = shape.vec();
    block[0] = size;
    const int64_t rows = block[static_cast<size_t>(layout.out_dim())];
    block.erase(block.begin() + layout.out_dim());
    const int64_t cols =
        std::accumulate(block.begin(), block.end(), int64_t{1}, std::multiplies<int64_t>());
    shapes.push_back({rows, cols});
  }
  return shapes;
}

/// Views of k stacked tensors, [k, c, out, ...], with the out dimension in front of the rest. The c
/// blocks of a split by count share one view; every block of a split by sizes has a view of its own,
/// with c = 1. Writing to a view writes to `stacked`.
/// @param stacked [k, *shape], any strides.
/// @throws c10::Error if the layout does not fit the shape.
inline std::vector<at::Tensor> block_views(const at::Tensor& stacked, const MatrixLayout& layout) {
  const auto sizes = detail::block_sizes(stacked.sizes().slice(1), layout);
  std::vector<at::Tensor> views;
  if (layout.split_sizes().empty()) {
    std::vector<int64_t> split = stacked.sizes().vec();
    split[1] = sizes.front();
    split.insert(split.begin() + 1, static_cast<int64_t>(sizes.size()));
    views.push_back(stacked.view(split).movedim(layout.out_dim() + 2, 2));
    return views;
  }
  int64_t start = 0;
  for (const int64_t size : sizes) {
    views.push_back(stacked.narrow(1, start, size).unsqueeze(1).movedim(layout.out_dim() + 2, 2));
    start += size;
  }
  return views;
}

/// One block view as a batch of matrices [count, rows, cols]; a copy only where strides demand it.
inline at::Tensor block_matrices(const at::Tensor& view, const MatrixLayout& layout) {
  const auto sizes = view.sizes();
  const auto row_dim = layout.batch() ? sizes.end() - 2 : sizes.begin() + 2;
  const auto product = [](const int64_t* first, const int64_t* last) {
    return std::accumulate(first, last, int64_t{1}, std::multiplies<int64_t>());
  };
  return view.reshape(
      {product(sizes.begin(), row_dim), *row_dim, product(row_dim + 1, sizes.end())});
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
