// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// exact_polar() and the policy ExactPolar on hard spectra.
#include "support/catch_torch.hpp"

#include <root_optim/orthogonalizers/exact_polar.hpp>

#include "support/devices.hpp"
#include "support/reference.hpp"
#include "support/spectra.hpp"
#include "support/tolerances.hpp"

using root_optim::exact_polar;
using root_optim::ExactPolar;
using test::on;
using test::Quantity;
using test::tolerance;

TEST_CASE("exact_polar is the partial isometry over the singular values above the tolerance",
          "[exact_polar]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  for (const auto& [name, matrix] : test::hard_spectra()) {
    INFO(name << ", " << device);
    const at::Tensor polar = exact_polar(matrix.to(device), 1e-12);
    CHECK(polar.scalar_type() == at::kDouble);
    CHECK_THAT(polar, test::close_to(test::reference::polar_factor(matrix, 1e-12),
                                     tolerance(Quantity::ExactPolar, at::kDouble), 1.0));
  }
}

TEST_CASE("exact_polar has singular values one and zero, as many ones as the rank",
          "[exact_polar]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  for (const int64_t rank : {1, 5, 20, 24}) {
    const at::Tensor polar = exact_polar(test::low_rank(24, 40, rank, 31).to(device));
    const at::Tensor expected =
        at::cat({at::ones({rank}, at::kDouble), at::zeros({24 - rank}, at::kDouble)});
    CHECK_THAT(at::linalg_svdvals(polar),
               test::close_to(expected, tolerance(Quantity::ExactPolar, at::kDouble)));
  }
}

TEST_CASE("exact_polar takes batches and every floating dtype", "[exact_polar]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat, at::kHalf, at::kBFloat16);
  const at::Tensor x = test::gaussian({2, 3, 9, 14}, 32).to(on(device, dtype));
  const at::Tensor before = x.clone();
  const at::Tensor polar = exact_polar(x);
  CHECK(polar.sizes() == x.sizes());
  CHECK_THAT(polar[1][2], test::close_to(exact_polar(x[1][2]),
                                         tolerance(Quantity::ExactPolar, at::kDouble), 1.0));
  CHECK_THAT(x, test::same_as(before));
}

TEST_CASE("ExactPolar treats what rounding left as zero", "[exact_polar][policy]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  const at::Tensor exact = test::low_rank(24, 40, 3, 33);
  const at::Tensor polar = ExactPolar()(exact.unsqueeze(0).to(on(device, dtype)));
  CHECK(polar.scalar_type() == dtype);
  CHECK_THAT(polar[0], test::close_to(test::reference::polar_factor(exact, 1e-9),
                                      tolerance(Quantity::ExactPolar, dtype), 1.0));
}

TEST_CASE("ExactPolar survives its fields", "[exact_polar][policy]") {
  for (const std::optional<double> value : {std::optional<double>(), std::optional<double>(1e-3)}) {
    root_optim::Fields fields;
    ExactPolar().tolerance(value).serialize(fields);
    ExactPolar copy = ExactPolar().tolerance(0.5);
    copy.deserialize(fields);
    CHECK(copy.tolerance() == value);
  }
}

TEST_CASE("exact_polar names what it refuses", "[exact_polar][errors]") {
  CHECK_THROWS_WITH(exact_polar(at::ones({3})),
                    test::contains("root_optim::exact_polar: expected a tensor of rank >= 2"));
  CHECK_THROWS_WITH(exact_polar(at::ones({3, 3}), 1.0),
                    test::contains("expected a tolerance in [0, 1), got 1"));
  CHECK_THROWS_WITH(
      ExactPolar().tolerance(-0.5).validate(),
      test::contains("root_optim::ExactPolar: expected a tolerance in [0, 1), got -0.5"));
  CHECK_THROWS_AS(exact_polar(at::full({3, 3}, std::numeric_limits<double>::quiet_NaN())),
                  c10::Error);
}
