// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The policy AdaNewton: how many steps a shape gets, which triples, what is refused. What the
// iteration does with them is in test_newton_schulz.cpp and tests/property.
#include "support/catch_torch.hpp"

#include <root_optim/ada_newton.hpp>

#include "support/devices.hpp"
#include "support/spectra.hpp"
#include "support/tolerances.hpp"

using root_optim::AdaNewton;
using root_optim::Form;
using root_optim::Precision;

TEST_CASE("the budget decides the number of steps by shape", "[ada_newton]") {
  const AdaNewton policy;
  CHECK(policy.steps_for(1024, 1024, Precision::Float32) == 5);
  CHECK(policy.steps_for(1024, 2048, Precision::Float32) == 6);
  CHECK(policy.steps_for(1024, 4096, Precision::Float32) == 9);
  CHECK(policy.steps_for(4096, 1024, Precision::Float32) == 9);
  CHECK(policy.steps_for(1024, 4096, Precision::BFloat16) == 5);  // no Gram space, no discount
  CHECK(AdaNewton().budget(1e-3).steps_for(64, 64, Precision::Float32) ==
        root_optim::min_default_steps);
  CHECK(AdaNewton().budget(100).steps_for(64, 64, Precision::Float32) ==
        root_optim::max_default_steps);
  CHECK(AdaNewton().steps(7).steps_for(1024, 4096, Precision::Float32) == 7);
  CHECK(AdaNewton().steps(7).budget(1.05).steps_for(1024, 1024, Precision::Float32) == 5);
}

TEST_CASE("the shipped triples are valid in every precision", "[ada_newton]") {
  const Precision precision = GENERATE(Precision::Float64, Precision::Float32, Precision::BFloat16);
  const auto limits =
      root_optim::ValidationOptions::for_precision(precision, root_optim::NormKind::Schatten8);
  for (int64_t n = root_optim::min_default_steps; n <= root_optim::max_default_steps; ++n) {
    const auto report =
        root_optim::validate_schedule(AdaNewton().steps(n).schedule(64, 96, precision), limits);
    INFO(n << " steps: " << report.reason);
    CHECK(report.valid);
  }
}

TEST_CASE("AdaNewton is orthogonalize with its schedule", "[ada_newton]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::Tensor x = test::gaussian({2, 16, 40}, 131).to(device);
  const AdaNewton policy;
  CHECK_THAT(policy(x), test::same_as(root_optim::orthogonalize(
                            x, policy.schedule(16, 40, Precision::Float64))));
}

TEST_CASE("AdaNewton survives its fields", "[ada_newton][policy]") {
  for (const AdaNewton& policy :
       {AdaNewton(), AdaNewton().steps(8), AdaNewton().budget(2).form(Form::Direct),
        AdaNewton().compute_dtype(at::kBFloat16)}) {
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
  }
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
