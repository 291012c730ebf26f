// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// MatrixLayout: shapes of the matrices a tensor becomes, the views, and what does not fit.
#include "support/catch_torch.hpp"

#include <root_optim/parameters/layout.hpp>

#include "support/tolerances.hpp"

using root_optim::block_matrices;
using root_optim::block_views;
using root_optim::matrix_shapes;
using root_optim::MatrixLayout;
using root_optim::MatrixShape;

namespace {
using Shapes = std::vector<MatrixShape>;
bool gives(const std::vector<int64_t>& shape, const MatrixLayout& layout, const Shapes& expected) {
  return matrix_shapes(shape, layout) == expected;
}
}  // namespace

TEST_CASE("matrix shapes by layout", "[layout]") {
  CHECK(gives({4, 6}, MatrixLayout(), {{4, 6}}));
  CHECK(gives({4, 6, 3, 3}, MatrixLayout(), {{4, 54}}));
  CHECK(gives({12, 6}, MatrixLayout().split_rows(3), {{4, 6}, {4, 6}, {4, 6}}));
  CHECK(gives({12, 6}, MatrixLayout().split_rows({8, 2, 2}), {{8, 6}, {2, 6}, {2, 6}}));
  CHECK(gives({4, 6, 3, 3}, MatrixLayout().out_dim(1), {{6, 36}}));
  CHECK(gives({4, 6, 3, 3}, MatrixLayout().split_rows(2).out_dim(1), {{6, 18}, {6, 18}}));
  CHECK(gives({5, 4, 6}, MatrixLayout().batch(true), {{4, 6}}));
  CHECK(gives({0, 6}, MatrixLayout(), {{0, 6}}));
}

TEST_CASE("block views write through, block matrices hold what the shapes say", "[layout]") {
  const std::vector<MatrixLayout> layouts{MatrixLayout(),
                                          MatrixLayout().split_rows(2),
                                          MatrixLayout().split_rows({4, 2, 6}),
                                          MatrixLayout().out_dim(1),
                                          MatrixLayout().split_rows(3).out_dim(2),
                                          MatrixLayout().batch(true)};
  for (const MatrixLayout& layout : layouts) {
    INFO(to_string(layout));
    const at::Tensor stacked = at::arange(2 * 12 * 4 * 5, at::kDouble).reshape({2, 12, 4, 5});
    const auto shapes = matrix_shapes({12, 4, 5}, layout);
    const auto views = block_views(stacked, layout);
    int64_t entries = 0;
    size_t shape = 0;
    for (const at::Tensor& view : views) {
      const at::Tensor matrices = block_matrices(view, layout);
      CHECK(matrices.dim() == 3);
      CHECK(matrices.size(1) == shapes[shape].rows);
      CHECK(matrices.size(2) == shapes[shape].cols);
      CHECK_THAT(matrices.sum(), test::same_as(view.sum()));
      entries += matrices.numel();
      if (!layout.split_sizes().empty()) ++shape;
    }
    CHECK(entries == stacked.numel());
    for (at::Tensor view : views) view.zero_();
    CHECK(stacked.abs().max().item<double>() == 0);
  }
}

TEST_CASE("layouts that do not fit are refused", "[layout][errors]") {
  const auto refused = [](const std::vector<int64_t>& shape, const MatrixLayout& layout,
                          const std::string& message) {
    CHECK_THROWS_WITH(matrix_shapes(shape, layout), test::contains(message));
  };
  refused({4}, MatrixLayout(), "expected a tensor of rank >= 2, got shape [4]");
  refused({4, 6}, MatrixLayout().split_rows(3), "got 3 blocks for shape [4, 6]");
  refused({4, 6}, MatrixLayout().split_rows({3, 2}), "got [3, 2] for shape [4, 6]");
  refused({4, 6}, MatrixLayout().out_dim(2),
          "expected out_dim < rank, got out_dim 2 for shape [4, 6]");
  refused({4, 6, 2}, MatrixLayout().batch(true).split_rows(2),
          "expected batch(true) without split_rows and out_dim");
  refused({4, 6, 2}, MatrixLayout().batch(true).out_dim(1), "got out dim 1, batched");
  CHECK_THROWS_WITH(MatrixLayout().split_rows(0), test::contains("expected a count >= 1, got 0"));
  CHECK_THROWS_WITH(MatrixLayout().split_rows(std::vector<int64_t>{}), test::contains("got none"));
  CHECK_THROWS_WITH(MatrixLayout().split_rows({3, 0}),
                    test::contains("expected sizes >= 1, got [3, 0]"));
  CHECK_THROWS_WITH(MatrixLayout().out_dim(-1),
                    test::contains("expected a dimension >= 0, got -1"));
}

TEST_CASE("layouts in words, and through their fields", "[layout]") {
  CHECK(to_string(MatrixLayout()) == "matrix");
  CHECK(to_string(MatrixLayout().split_rows(3)) == "3 row blocks");
  CHECK(to_string(MatrixLayout().split_rows({64, 16})) == "row blocks [64, 16]");
  CHECK(to_string(MatrixLayout().split_rows(2).out_dim(1)) == "2 row blocks, out dim 1");
  CHECK(to_string(MatrixLayout().batch(true)) == "batched");
  for (const MatrixLayout& layout :
       {MatrixLayout(), MatrixLayout().split_rows(3), MatrixLayout().split_rows({64, 16}),
        MatrixLayout().out_dim(1), MatrixLayout().batch(true)}) {
    root_optim::Fields fields;
    layout.serialize(fields);
    MatrixLayout copy;
    copy.deserialize(fields);
    CHECK((copy == layout));
  }
}
