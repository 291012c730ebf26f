// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Products of tiles against float64, for every kind of CPU that this one can stand for.
#include "support/catch_torch.hpp"

#include <root_optim/kernels/tile_product.hpp>

#include <utility>

#include "support/spectra.hpp"

using root_optim::detail::TileProduct;

namespace {

/// The largest error of run(p) against float64, and whether what lies beside the tile is as it was.
template <class T, class Run>
void check(bool transposed, bool add, const Run& run) {
  const at::ScalarType dtype = c10::CppTypeToScalarType<T>::value;
  // Every matrix is a part of a larger one.
  const at::Tensor a = test::gaussian({70, 80}, 1).to(dtype),
                   b = test::gaussian({70, 99}, 2).to(dtype),
                   c = test::gaussian({70, 101}, 3).to(dtype);
  for (const int64_t rows : {32, 64}) {
    for (const int64_t columns : {32, 64}) {
      for (const int64_t depth : {0, 1, 7, 64}) {
        CAPTURE(rows, columns, depth, transposed, add);
        at::Tensor actual = c.clone(), expected = c.to(at::kDouble);
        const int64_t row = transposed ? 1 : 80, column = transposed ? 80 : 1;
        run(TileProduct<T>{actual.data_ptr<T>(), 101, a.data_ptr<T>(), row, column, b.data_ptr<T>(),
                           99, rows, columns, depth, T(-0.5), add});
        at::Tensor tile = expected.narrow(0, 0, rows).narrow(1, 0, columns);
        const at::Tensor left = a.as_strided({rows, depth}, {row, column}).to(at::kDouble);
        const at::Tensor right = b.narrow(0, 0, depth).narrow(1, 0, columns).to(at::kDouble);
        tile.mul_(add ? 1 : 0).sub_(left.matmul(right), 0.5);
        // 64 products of Gaussians, at most about 10 each, in sums of up to 30.
        const double bound = dtype == at::kFloat ? 2e-5 : 4e-14;
        CHECK((actual.to(at::kDouble) - expected).abs().max().item<double>() < bound);
        CHECK(at::equal(actual.narrow(1, columns, 101 - columns),
                        c.narrow(1, columns, 101 - columns)));
        CHECK(at::equal(actual.narrow(0, rows, 70 - rows), c.narrow(0, rows, 70 - rows)));
      }
    }
  }
}

template <class T>
void check_all() {
  const bool transposed = GENERATE(false, true), add = GENERATE(false, true);
  check<T>(transposed, add, [](const TileProduct<T>& p) { root_optim::detail::tile_product(p); });
  check<T>(transposed, add, [](const TileProduct<T>& p) {
    root_optim::detail::tile_product_any(p, std::make_index_sequence<4>());
  });
#if defined(__GNUC__) && defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    check<T>(transposed, add, [](const TileProduct<T>& p) {
      root_optim::detail::tile_product_avx2(p, std::make_index_sequence<4>());
    });
  }
#endif
}

}  // namespace

TEST_CASE("a product of tiles is that of matmul on every kind of CPU", "[tile_product]") {
  SECTION("float32") { check_all<float>(); }
  SECTION("float64") { check_all<double>(); }
}
