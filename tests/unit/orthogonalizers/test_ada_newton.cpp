// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The policy AdaNewton: how many steps a shape gets, which triples, what is refused. What the
// iteration does with them is in test_newton_schulz.cpp and tests/property.
#include "support/catch_torch.hpp"

#include <root_optim/coefficients/design.hpp>
#include <root_optim/coefficients/published.hpp>
#include <root_optim/orthogonalizers/ada_newton.hpp>

#include "support/devices.hpp"
#include "support/spectra.hpp"
#include "support/tolerances.hpp"

#include <cmath>
#include <utility>
#include <vector>

using root_optim::AdaNewton;
using root_optim::Form;
using root_optim::Precision;

TEST_CASE("the budget decides the number of steps by shape", "[ada_newton]") {
  const AdaNewton policy;
  CHECK(policy.steps_for(1024, 1024, Precision::Float32) == 5);
  CHECK(policy.steps_for(1024, 2048, Precision::Float32) == 6);
  CHECK(policy.steps_for(1024, 4096, Precision::Float32) == 9);
  CHECK(policy.steps_for(4096, 1024, Precision::Float32) == 9);
  CHECK(policy.steps_for(256, 256, Precision::Float32) == 5);  // no products by blocks
  CHECK(policy.steps_for(256, 512, Precision::Float32) == 5);
  CHECK(policy.steps_for(256, 1024, Precision::Float32) == 8);
  CHECK(policy.steps_for(1024, 1024, Precision::BFloat16) == 5);  // no discounts
  CHECK(policy.steps_for(1024, 4096, Precision::BFloat16) == 5);
  for (const int64_t cols : {300, 1000, 4000, 9000, 60000}) {
    const int64_t steps = policy.steps_for(600, cols, Precision::Float32);
    INFO("600 x " << cols << ": " << steps << " steps");
    CHECK(root_optim::plan_iteration(600, cols, policy.quintics(600, cols, Precision::Float32),
                                     Precision::Float32)
              .cost <= root_optim::direct_flops(600, cols, 5));
  }
  CHECK(AdaNewton().budget(1e-3).steps_for(64, 64, Precision::Float32) ==
        root_optim::min_default_steps);
  CHECK(AdaNewton().budget(100).steps_for(64, 64, Precision::Float32) ==
        root_optim::max_default_steps);
  CHECK(AdaNewton().steps(7).steps_for(1024, 4096, Precision::Float32) == 7);
  CHECK(AdaNewton().steps(7).budget(1.05).steps_for(256, 256, Precision::Float32) == 5);
}

TEST_CASE("the shipped triples are valid in every precision", "[ada_newton]") {
  const Precision precision = GENERATE(Precision::Float64, Precision::Float32, Precision::BFloat16);
  const auto limits =
      root_optim::ValidationOptions::for_precision(precision, root_optim::Normalization::Schatten8);
  for (int64_t n = root_optim::min_default_steps; n <= root_optim::max_default_steps; ++n) {
    const auto report =
        root_optim::validate_quintics(AdaNewton().steps(n).quintics(64, 96, precision), limits);
    INFO(n << " steps: " << report.reason);
    CHECK(report.valid);
  }
}

TEST_CASE("AdaNewton is orthogonalize with its schedule", "[ada_newton]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::Tensor x = test::gaussian({2, 16, 40}, 131).to(device);
  const AdaNewton policy;
  CHECK_THAT(policy(x), test::same_as(root_optim::orthogonalize(
                            x, policy.quintics(16, 40, Precision::Float64))));
}

TEST_CASE("an entry of the table comes before the shipped triples", "[ada_newton]") {
  using root_optim::CoefficientSet;
  root_optim::CoefficientTable table;
  const root_optim::Quintics you = CoefficientSet::you().quintics(1, 1, 5);
  table.set(40, 16, you);
  const AdaNewton policy = AdaNewton().steps(7).table(table);
  CHECK(policy.quintics(16, 40, Precision::Float32) == you);
  CHECK(policy.steps_for(16, 40, Precision::Float64) == 5);
  CHECK(policy.quintics(16, 40, Precision::BFloat16) == root_optim::shipped_quintics(7));
  CHECK(policy.quintics(16, 41, Precision::Float32) ==
        root_optim::shipped_quintics(7, Precision::Float32));
  const at::Tensor x = test::gaussian({2, 16, 40}, 132);
  CHECK_THAT(policy(x), test::same_as(root_optim::orthogonalize(x, you)));

  // The entry's form, too.
  root_optim::TableEntry entry = *table.find(16, 40);
  entry.form = Form::Gram;
  table.set(entry);
  root_optim::OrthogonalizeOptions gram;
  gram.form = Form::Gram;
  CHECK_THAT(AdaNewton().form(Form::Direct).table(table)(x),
             test::same_as(root_optim::orthogonalize(x, you, gram)));
  CHECK(policy.table().find(16, 40)->form == Form::Auto);  // the policy has a copy of its own

  CHECK(AdaNewton(policy).table({}).quintics(16, 40, Precision::Float32) ==
        root_optim::shipped_quintics(7, Precision::Float32));
}

TEST_CASE("the shipped triples are within a few percent of designs for a shape", "[ada_newton]") {
  // Measured 2026-11 over ten shapes from 64x64 to 4096x16384: at most 1.0 % at five steps, .6 % at
  // six, 2.0 % at eight.
  for (const auto& [m, n] :
       std::vector<std::pair<int64_t, int64_t>>{{256, 256}, {128, 512}, {2048, 8192}}) {
    for (const int64_t steps : {5, 6}) {
      const auto parts = root_optim::shape_spectra(m, n);
      double shipped = 0;
      for (const auto& [weight, spectrum] : parts) {
        const auto triples = root_optim::shipped_quintics(steps, Precision::Float32);
        shipped += weight * std::sqrt(root_optim::expected_mse(triples, spectrum));
      }
      INFO(m << " x " << n << ", " << steps << " steps");
      CHECK(shipped < 1.02 * root_optim::design_for_shape(m, n, steps).relative_error);
    }
  }
}

TEST_CASE("AdaNewton survives its fields", "[ada_newton][policy]") {
  root_optim::CoefficientTable table;
  table.set(8, 24, root_optim::shipped_quintics(4));
  for (const AdaNewton& policy :
       {AdaNewton(), AdaNewton().steps(8), AdaNewton().budget(2).form(Form::Direct),
        AdaNewton().compute_dtype(at::kBFloat16), AdaNewton().table(table)}) {
    root_optim::Fields fields, again;
    policy.serialize(fields);
    AdaNewton copy = AdaNewton().steps(4);
    copy.deserialize(fields);
    copy.serialize(again);
    CHECK(fields == again);
    CHECK(copy.steps() == policy.steps());
    CHECK(copy.budget() == policy.budget());
    CHECK(copy.form() == policy.form());
    CHECK(copy.compute_dtype() == policy.compute_dtype());
    CHECK(copy.table().to_text() == policy.table().to_text());
  }
  root_optim::Fields fields;
  AdaNewton().table(table).serialize(fields);
  fields.set("table", std::string("root_optim coefficients 1\nentry 8\n"));
  AdaNewton unchanged = AdaNewton().steps(4);
  CHECK_THROWS_WITH(unchanged.deserialize(fields), test::contains("the stored table:2"));
  CHECK(unchanged.steps() == 4);
}

TEST_CASE("coefficients that an older version designed on first use must be in the table",
          "[ada_newton][policy][errors]") {
  root_optim::CoefficientTable table;
  table.set(8, 24, root_optim::shipped_quintics(4));
  root_optim::Fields fields;
  AdaNewton().table(table).serialize(fields);
  fields.set("model", std::vector<double>{0.2, 0.1, 100});
  AdaNewton policy;
  policy.deserialize(fields);
  const at::Tensor parameter = at::zeros({8, 24});
  CHECK_NOTHROW(policy.validate_for(24, 8, parameter));
  CHECK_THROWS_WITH(
      policy.validate_for(8, 16, parameter),
      test::contains("root_optim::load: expected coefficients for 8x16 in the table") &&
          test::contains("root_optim::design_coefficients"));
  fields.set("model", std::vector<double>{});
  policy.deserialize(fields);
  CHECK_NOTHROW(policy.validate_for(8, 16, parameter));
}

TEST_CASE("AdaNewton names what is out of range", "[ada_newton][policy][errors]") {
  CHECK_THROWS_WITH(AdaNewton().steps(2).validate(),
                    test::contains("expected 3 <= steps <= 12, got 2"));
  CHECK_THROWS_WITH(AdaNewton().steps(13).validate(), test::contains("got 13"));
  CHECK_THROWS_WITH(AdaNewton().budget(0).validate(),
                    test::contains("expected budget to be finite and > 0, got 0"));
  CHECK_THROWS_WITH(AdaNewton().budget(std::numeric_limits<double>::infinity()).validate(),
                    test::contains("got inf"));
  CHECK_THROWS_WITH(AdaNewton().compute_dtype(at::kHalf).validate(),
                    test::contains("root_optim::AdaNewton: expected compute_dtype"));
}
