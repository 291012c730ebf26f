// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of parameters/layout.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>   // IntArrayRef
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <algorithm>  // all_of, max
#include <cstddef>
#include <cstdint>
#include <functional>  // multiplies
#include <numeric>     // accumulate
#include <string>
#include <utility>
#include <vector>

#include <root_optim/core/fields.hpp>
#include <root_optim/parameters/layout.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE MatrixLayout& MatrixLayout::split_rows(int64_t count) {
  TORCH_CHECK(count >= 1, "root_optim::MatrixLayout::split_rows: expected a count >= 1, got ",
              count);
  count_ = count;
  sizes_.clear();
  return *this;
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE MatrixLayout& MatrixLayout::split_rows(
    std::vector<int64_t> sizes) {
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

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE MatrixLayout& MatrixLayout::out_dim(int64_t dim) {
  TORCH_CHECK(dim >= 0, "root_optim::MatrixLayout::out_dim: expected a dimension >= 0, got ", dim);
  out_dim_ = dim;
  return *this;
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE MatrixLayout& MatrixLayout::batch(bool batch) {
  batch_ = batch;
  return *this;
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void MatrixLayout::serialize(Fields& out) const {
  out.set("split_count", count_);
  out.set("split_sizes", sizes_);
  out.set("out_dim", out_dim_);
  out.set("batch", batch_);
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void MatrixLayout::deserialize(const Fields& in) {
  MatrixLayout read;
  read.split_rows(in.get<int64_t>("split_count"));
  if (const auto& sizes = in.get<std::vector<int64_t>>("split_sizes"); !sizes.empty()) {
    read.split_rows(sizes);
  }
  read.out_dim(in.get<int64_t>("out_dim")).batch(in.get<bool>("batch"));
  *this = std::move(read);
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE std::string to_string(const MatrixLayout& layout) {
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

namespace detail {

ROOT_OPTIM_INLINE std::vector<int64_t> block_sizes(c10::IntArrayRef shape,
                                                   const MatrixLayout& layout) {
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

ROOT_OPTIM_INLINE std::vector<MatrixShape> matrix_shapes(c10::IntArrayRef shape,
                                                         const MatrixLayout& layout) {
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

ROOT_OPTIM_INLINE std::vector<at::Tensor> block_views(const at::Tensor& stacked,
                                                      const MatrixLayout& layout) {
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

ROOT_OPTIM_INLINE at::Tensor block_matrices(const at::Tensor& view, const MatrixLayout& layout) {
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
