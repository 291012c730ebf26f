// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
#include "support/catch_torch.hpp"

#include <root_optim/filters/detail/scaled_clamp.hpp>
#include <root_optim/kernels/widest_vectors.hpp>

#include <cstdint>
#include <limits>
#include <vector>

using root_optim::detail::add_clipped;
using root_optim::detail::by_widest_vectors;

TEMPLATE_TEST_CASE("the widest vectors give the bits of any others", "", float, double) {
  torch::manual_seed(3);
  const auto dtype = at::TensorOptions(c10::CppTypeToScalarType<TestType>::value);
  for (const int64_t n : {1, 7, 31, 32, 33, 64, 257}) {
    at::Tensor u = at::randn({n}, dtype);
    if (n > 40) u[35] = std::numeric_limits<double>::quiet_NaN();
    const at::Tensor columns = at::rand({n}, dtype);
    const auto run = [&](at::Tensor& sums) {
      return add_clipped(u.data_ptr<TestType>(), n, TestType(0.7), columns.data_ptr<TestType>(),
                         sums.data_ptr<TestType>());
    };
    at::Tensor plain = at::zeros({n}, dtype), widest = at::zeros({n}, dtype);
    TestType total = run(plain), total_of_widest = 0;
    by_widest_vectors([&] { total_of_widest = run(widest); });
    CHECK(at::allclose(plain, widest, 0, 0, /*equal_nan=*/true));
    CHECK((total == total_of_widest || (total != total && total_of_widest != total_of_widest)));
  }
}
