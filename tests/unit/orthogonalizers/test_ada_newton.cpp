// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The policy AdaNewton: which iteration, with which coefficients, and what is refused. What the iterations do with
// them is in test_newton_schulz.cpp, test_rational.cpp and tests/property.
#include "support/catch_torch.hpp"

#include <root_optim/coefficients/design.hpp>
#include <root_optim/coefficients/published.hpp>
#include <root_optim/coefficients/shipped_rational.hpp>
#include <root_optim/orthogonalizers/ada_newton.hpp>
#include <root_optim/orthogonalizers/iteration_plan.hpp>
#include <root_optim/orthogonalizers/newton_schulz.hpp>
#include <root_optim/orthogonalizers/rational.hpp>

#include "support/devices.hpp"
#include "support/spectra.hpp"
#include "support/tolerances.hpp"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

using root_optim::AdaNewton;
using root_optim::Form;
using root_optim::Iteration;
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

TEST_CASE("AdaNewton is either iteration with its coefficients", "[ada_newton]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kFloat, at::kDouble);
  const at::Tensor x = test::gaussian({2, 16, 40}, 131).to(device, dtype);
  AdaNewton
      newton_schulz;  // not from a temporary: GCC 12 would think a member of it not initialized
  newton_schulz.iteration(Iteration::NewtonSchulz);
  CHECK_THAT(newton_schulz(x),
             test::same_as(root_optim::orthogonalize(
                 x, newton_schulz.quintics(16, 40, newton_schulz.precision_for(x)))));
  const AdaNewton rational = AdaNewton().iteration(Iteration::Rational);
  const at::Tensor expected =
      root_optim::orthogonalize_rational(x, root_optim::shipped_rational(16, 40)).x;
  CHECK_THAT(rational(x), test::same_as(expected));
  CHECK_THAT(rational(x[0]),
             test::same_as(
                 root_optim::orthogonalize_rational(x[0], root_optim::shipped_rational(16, 40)).x));
  if (device.is_cpu()) CHECK_THAT(AdaNewton()(x), test::same_as(expected));
}

TEST_CASE("device, dtype and settings decide the iteration", "[ada_newton]") {
  const at::Tensor cpu = at::zeros({16, 40}), meta = at::zeros({16, 40}, at::kMeta);
  const auto of = [](const AdaNewton& policy, const at::Tensor& p) {
    return policy.iteration_for(16, 40, p);
  };
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
    CHECK(of(AdaNewton(), cpu.to(dtype)) == Iteration::Rational);
  }
  CHECK(of(AdaNewton(), meta) == Iteration::NewtonSchulz);
  CHECK(of(AdaNewton().iteration(Iteration::Rational), meta) == Iteration::Rational);
  CHECK(of(AdaNewton().iteration(Iteration::NewtonSchulz), cpu) == Iteration::NewtonSchulz);
  CHECK(of(AdaNewton().compute_dtype(at::kBFloat16), cpu) == Iteration::NewtonSchulz);
  CHECK(of(AdaNewton().compute_dtype(at::kDouble), cpu) == Iteration::Rational);
  CHECK(of(AdaNewton().steps(5), cpu) == Iteration::NewtonSchulz);
  CHECK(of(AdaNewton().steps(5).budget(1), cpu) == Iteration::Rational);
  CHECK(of(AdaNewton().form(Form::Direct), cpu) == Iteration::NewtonSchulz);
  CHECK(of(AdaNewton().form(Form::Gram), cpu) == Iteration::NewtonSchulz);
  root_optim::CoefficientTable table;
  table.set(16, 40, root_optim::shipped_quintics(7));
  CHECK(of(AdaNewton().table(table), cpu) == Iteration::NewtonSchulz);
  table.set(16, 40, root_optim::shipped_rational(16, 40));
  CHECK(of(AdaNewton().table(table).steps(5), cpu) == Iteration::Rational);

  CHECK_THAT(AdaNewton().explain(256, 1024, cpu),
             test::contains("256x1024: inverses, stages of ") &&
                 test::contains("of Muon's; the cheapest with at most .75 of Muon's error") &&
                 test::contains("because it is on the CPU in float32"));
  CHECK_THAT(AdaNewton().budget(0.5).explain(256, 256, cpu), test::contains("the budget affords"));
  CHECK_THAT(AdaNewton().explain(256, 1024, meta),
             test::contains("Newton–Schulz, 8 steps, Gram space") &&
                 test::contains("it is not on the CPU"));
  CHECK_THAT(
      AdaNewton().steps(4).explain(8, 9, cpu),
      test::contains("4 steps, direct") && test::contains("their number of steps or form is set"));
  CHECK_THAT(AdaNewton().table(table).explain(16, 40, cpu), test::contains("the table's (user)"));
}

TEST_CASE("a budget buys the most exact plan that it affords", "[ada_newton]") {
  using root_optim::rational_cost;
  using root_optim::shipped_rational_error;
  const std::vector<std::vector<int64_t>> plans = root_optim::shipped_rational_poles();
  for (const auto& [m, n] :
       std::vector<std::pair<int64_t, int64_t>>{{64, 64}, {768, 3072}, {2048, 2048}}) {
    CHECK(AdaNewton().budget(1e-3).stages(m, n) ==
          root_optim::shipped_rational(m, n, plans.front()));
    double least = 1;
    for (double budget = 0.05; budget < 2; budget *= 1.3) {
      const auto stages = AdaNewton().budget(budget).stages(m, n);
      std::vector<int64_t> poles;
      for (const auto& f : stages) poles.push_back(static_cast<int64_t>(f.poles.size()));
      CAPTURE(m, n, budget, poles);
      CHECK((rational_cost(m, n, poles) <= budget || poles == plans.front()));
      const double error = shipped_rational_error(m, n, poles).training;
      CHECK(error <= least);
      least = error;
      for (const auto& other : plans) {
        if (rational_cost(m, n, other) <= budget) {
          CHECK(shipped_rational_error(m, n, other).training >= error);
        }
      }
    }
  }
  // 4.5 m²n a stage and κ m³ a pole over 20 m²n + 10 m³.
  CHECK(rational_cost(20, 80, {1, 2}) == Approx((2 * 4.5 * 4 + 3 * 6) / 90.0));
  CHECK(rational_cost(500, 2000, {1, 2}) == Approx((2 * 4.5 * 4 + 3 * 2) / 90.0));
  CHECK(rational_cost(256, 64, {1, 2}) == rational_cost(64, 256, {1, 2}));
  CHECK_THROWS_WITH(rational_cost(0, 1, {1}), test::contains("got 0, 1"));
}

TEST_CASE("Root's default is the cheapest plan with three quarters of Muon's error",
          "[ada_newton]") {
  using namespace root_optim;
  const auto root_of = [](double mse) { return std::sqrt(mse); };
  const Quintics muon = CoefficientSet::jordan().quintics(1, 1, 5);
  for (const int64_t n : {512, 1024, 1536, 2048, 4096}) {  // the shapes that the tool looks at
    const double of_muon =
        root_of(expected_mse(muon, gaussian_spectrum(512, n, Normalization::FrobeniusFloor)));
    const Spectrum gaussian =
        schatten4_spectrum(gaussian_spectrum(512, n, Normalization::FrobeniusFloor), 512);
    const auto good = [&](const std::vector<int64_t>& poles) {
      const ShippedRationalError error = shipped_rational_error(512, n, poles);
      return error.training <= 0.75 * error.muon_training &&
             error.held_out <= 0.75 * error.muon_held_out &&
             root_of(expected_mse(shipped_rational(512, n, poles), gaussian)) <= 0.75 * of_muon;
    };
    const std::vector<std::vector<int64_t>> plans = shipped_rational_poles();
    const auto found = std::find_if(plans.begin(), plans.end(), good);
    REQUIRE(found != plans.end());
    CAPTURE(n, *found);
    CHECK(AdaNewton().stages(512, n) == shipped_rational(512, n, *found));
    CHECK(AdaNewton().stages(n, 512) == shipped_rational(512, n, *found));
  }
}

TEST_CASE("an entry of the table with stages comes before the shipped ones", "[ada_newton]") {
  root_optim::CoefficientTable table;
  const auto mine = root_optim::zolotarev_stages({{2, 1e-3}, {1, 0.1}});
  table.set(40, 16, mine);
  const AdaNewton policy = AdaNewton().table(table);
  CHECK(policy.stages(16, 40) == mine);
  CHECK(policy.stages(16, 41) == root_optim::shipped_rational(16, 41));
  const at::Tensor x = test::gaussian({2, 40, 16}, 133).to(at::kFloat);
  CHECK_THAT(policy(x), test::same_as(root_optim::orthogonalize_rational(x, mine).x));
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
        AdaNewton().compute_dtype(at::kBFloat16), AdaNewton().table(table),
        AdaNewton().iteration(Iteration::Rational).budget(0.5),
        AdaNewton().iteration(Iteration::NewtonSchulz)}) {
    root_optim::Fields fields, again;
    policy.serialize(fields);
    AdaNewton copy = AdaNewton().steps(4);
    copy.deserialize(fields);
    copy.serialize(again);
    CHECK(fields == again);
    CHECK(copy.steps() == policy.steps());
    CHECK(copy.iteration() == policy.iteration());
    CHECK(copy.budget() == policy.budget());
    CHECK(copy.form() == policy.form());
    CHECK(copy.compute_dtype() == policy.compute_dtype());
    CHECK(copy.table().to_text() == policy.table().to_text());
  }
  // Files of formats 1 to 4 go on as they were.
  root_optim::Fields older;
  AdaNewton().serialize(older);
  root_optim::Fields without_iteration;
  without_iteration.set("budget", 1.0);
  without_iteration.set("steps", std::vector<int64_t>{});
  without_iteration.set("compute_dtype", older.get<std::string>("compute_dtype"));
  without_iteration.set("form", int64_t{0});
  without_iteration.set("table", std::string());
  AdaNewton upgraded;
  upgraded.deserialize(without_iteration);
  CHECK(upgraded.iteration() == Iteration::NewtonSchulz);
  CHECK(upgraded.budget() == 1);

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
  const AdaNewton rational = AdaNewton().iteration(Iteration::Rational);
  CHECK_THROWS_WITH(AdaNewton(rational).steps(5).validate(),
                    test::contains("expected neither steps nor a form nor bfloat16") &&
                        test::contains("got 5 steps"));
  CHECK_THROWS_WITH(AdaNewton(rational).compute_dtype(at::kBFloat16).validate(),
                    test::contains("got bfloat16"));
  CHECK_THROWS_WITH(AdaNewton(rational).form(Form::Gram).validate(), test::contains("got a form"));
  root_optim::CoefficientTable table;
  table.set(8, 9, root_optim::shipped_quintics(5));
  table.set(8, 10, root_optim::shipped_rational(8, 10));
  const at::Tensor p = at::zeros({8, 9});
  CHECK_THROWS_WITH(
      AdaNewton(rational).table(table).validate_for(8, 9, p),
      test::contains("expected stages for 8x9 in the table") && test::contains("got triples"));
  CHECK_THROWS_WITH(
      AdaNewton().iteration(Iteration::NewtonSchulz).table(table).validate_for(10, 8, p),
      test::contains("expected triples for 10x8"));
  CHECK_NOTHROW(AdaNewton().table(table).validate_for(8, 10, p));
  CHECK_THROWS_WITH(AdaNewton().compute_dtype(at::kHalf).validate(),
                    test::contains("root_optim::AdaNewton: expected compute_dtype"));
}
