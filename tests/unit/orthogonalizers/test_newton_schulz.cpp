// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// orthogonalize() and the policy NewtonSchulz, against singular value decompositions on inputs that
// are hard: what comes out, at which dtype and shape, and what is refused.
#include "support/catch_torch.hpp"

#include <root_optim/orthogonalizers/exact_polar.hpp>
#include <root_optim/orthogonalizers/newton_schulz.hpp>

#include <cmath>

#include "support/convert.hpp"
#include "support/devices.hpp"
#include "support/reference.hpp"
#include "support/spectra.hpp"
#include "support/tolerances.hpp"

using root_optim::CoefficientSet;
using root_optim::Form;
using root_optim::NewtonSchulz;
using root_optim::Normalization;
using root_optim::OrthogonalizeOptions;
using root_optim::Quintics;
using test::on;
using test::Quantity;
using test::tolerance;

namespace {

const std::vector<Normalization> kNormalizations{
    Normalization::FrobeniusFloor, Normalization::FrobeniusPlus, Normalization::Schatten8};

/// Sets whose slope at zero stays below the 1100 that the bounds of Quantity::Orthogonalize assume.
std::vector<Quintics> schedules() {
  return {CoefficientSet::jordan().quintics(64, 64, 5), CoefficientSet::you().quintics(64, 64, 5),
          CoefficientSet::polar_express().quintics(64, 64, 5),
          CoefficientSet::cubic().quintics(64, 64, 12)};
}

/// Polar Express and its limit: enough steps to lift 1e-10 of the largest singular value to 1.
Quintics converging() { return CoefficientSet::polar_express().quintics(64, 64, 36); }

at::Tensor float64(const at::Tensor& t) { return t.to(at::kCPU, at::kDouble); }

}  // namespace

TEST_CASE("orthogonalize maps every singular value through the polynomials", "[newton_schulz]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  const Form form = GENERATE(Form::Direct, Form::Gram);
  const auto bound = tolerance(
      form == Form::Direct ? Quantity::Orthogonalize : Quantity::OrthogonalizeGram, dtype);
  for (const auto& [name, matrix] : test::hard_spectra()) {
    const at::Tensor x = matrix.to(on(device, dtype));
    for (const Normalization normalization : kNormalizations) {
      for (const Quintics& schedule : schedules()) {
        OrthogonalizeOptions options = test::normalized_by(normalization);
        options.compute_dtype = dtype;
        options.form = form;
        INFO(name << ", normalization " << static_cast<int>(normalization) << ", first a "
                  << schedule[0].a << ", form " << static_cast<int>(form) << ", " << device);
        const at::Tensor expected = test::reference::map_singular_values(
            float64(x), test::triples(schedule), test::start(normalization), options.eps);
        CHECK_THAT(root_optim::orthogonalize(x, schedule, options),
                   test::close_to(expected, bound));
      }
    }
  }
}

TEST_CASE("orthogonalize converges to the polar factor", "[newton_schulz]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const auto form = GENERATE(Form::Direct, Form::Gram);
  OrthogonalizeOptions options;
  options.form = form;
  for (const auto& [name, matrix] : test::hard_spectra()) {
    INFO(name << ", form " << static_cast<int>(form) << ", " << device);
    const at::Tensor x = matrix.to(device);
    // 1e-11: below the smallest singular values that the list means to have, far above rounding.
    const at::Tensor expected = test::reference::polar_factor(matrix, 1e-11);
    const auto quantity =
        form == Form::Direct ? Quantity::PolarConverged : Quantity::PolarConvergedGram;
    CHECK_THAT(root_optim::orthogonalize(x, converging(), options),
               test::close_to(expected, tolerance(quantity, at::kDouble), 1.0));
  }
}

TEST_CASE("no compute dtype leaves the output bound on any spectrum", "[newton_schulz]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType compute = GENERATE(at::kDouble, at::kFloat, at::kBFloat16);
  const Form form = GENERATE(Form::Auto, Form::Direct, Form::Gram);
  const Quintics schedule = CoefficientSet::polar_express(1.05).quintics(64, 64, 8);
  for (const auto& [name, matrix] : test::hard_spectra()) {
    for (const Normalization normalization : kNormalizations) {
      OrthogonalizeOptions options = test::normalized_by(normalization);
      options.compute_dtype = compute;
      options.form = form;
      INFO(name << ", normalization " << static_cast<int>(normalization) << ", form "
                << static_cast<int>(form) << ", " << compute);
      const at::Tensor x =
          root_optim::orthogonalize(matrix.to(on(device, at::kFloat)), schedule, options);
      if (x.numel() == 0) continue;
      const double largest = at::linalg_svdvals(float64(x)).max().item<double>();
      CHECK(largest <= root_optim::ValidationOptions().output_bound +
                           tolerance(Quantity::OutputBound, compute).bound);
    }
  }
}

TEST_CASE("bfloat16 products approximate the exact map", "[newton_schulz]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  if (!test::bfloat16_products_hold(device)) return;
  const Quintics schedule = CoefficientSet::jordan().quintics(64, 64, 5);
  for (const auto& x : {test::gaussian({24, 64}, 1), test::gaussian({64, 24}, 2)}) {
    for (const Normalization normalization : kNormalizations) {
      OrthogonalizeOptions options = test::normalized_by(normalization);
      options.compute_dtype = at::kBFloat16;
      const at::Tensor expected = test::reference::map_singular_values(
          x, test::triples(schedule), test::start(normalization), options.eps);
      CHECK_THAT(root_optim::orthogonalize(x.to(on(device, at::kFloat)), schedule, options),
                 test::close_to(expected, tolerance(Quantity::Orthogonalize, at::kBFloat16)));
    }
  }
}

TEST_CASE("orthogonalize keeps shape, dtype and device and does not write its input",
          "[newton_schulz]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat, at::kHalf, at::kBFloat16);
  const Quintics schedule = CoefficientSet::jordan().quintics(8, 12, 5);
  const at::Tensor base = test::gaussian({2, 3, 12, 8}, 5).to(on(device, dtype));
  for (const at::Tensor& x : {base, base.transpose(2, 3), base.select(0, 0), base[0][0],
                              base.slice(2, 0, 12, 2), base.narrow(0, 0, 0)}) {
    const at::Tensor before = x.clone();
    const at::Tensor result = root_optim::orthogonalize(x, schedule);
    CHECK(result.sizes() == x.sizes());
    CHECK(result.scalar_type() == dtype);
    CHECK(result.device() == x.device());
    CHECK_FALSE(result.is_alias_of(x));
    CHECK_THAT(x, test::same_as(before));
  }
}

TEST_CASE("half-precision inputs are rounded once, on the way out", "[newton_schulz]") {
  const at::ScalarType dtype = GENERATE(at::kHalf, at::kBFloat16);
  const Quintics schedule = CoefficientSet::jordan().quintics(12, 20, 5);
  const at::Tensor x = test::gaussian({12, 20}, 6).to(dtype);
  CHECK_THAT(root_optim::orthogonalize(x, schedule),
             test::same_as(root_optim::orthogonalize(x.to(at::kFloat), schedule).to(dtype)));
}

TEST_CASE("steps without a quintic term", "[newton_schulz]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType compute = GENERATE(at::kDouble, at::kFloat, at::kBFloat16);
  if (compute == at::kBFloat16 && !test::bfloat16_products_hold(device)) return;
  const int64_t m = GENERATE(4, 13, 17, 64);  // oneDNN multiplies bfloat16 only from some size on
  const Form form = GENERATE(Form::Direct, Form::Gram);
  INFO(m << " x " << 2 * m << ", " << compute << " on " << device);
  const at::Tensor x = test::gaussian({2, m, 2 * m}, 61).to(on(device, at::kDouble));
  const Quintics schedule = CoefficientSet::cubic().quintics(m, 2 * m, 12);
  OrthogonalizeOptions options;
  options.form = form;
  options.compute_dtype = compute;
  const at::Tensor difference =
      root_optim::orthogonalize(x, schedule, options) - root_optim::exact_polar(x);
  // Twelve steps bring these singular values to 1. Measured: 6.4e-3, 7.5e-7, below 1e-14.
  const double bound = compute == at::kBFloat16 ? 0.02 : compute == at::kFloat ? 2e-6 : 1e-14;
  const double error =
      difference.norm(2, {1, 2}).max().item<double>() / std::sqrt(static_cast<double>(m));
  CHECK(error <= bound);
}

TEST_CASE("zero in, zero out", "[newton_schulz]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType compute = GENERATE(at::kDouble, at::kFloat, at::kBFloat16);
  const Form form = GENERATE(Form::Direct, Form::Gram);
  for (const Normalization normalization : kNormalizations) {
    OrthogonalizeOptions options = test::normalized_by(normalization);
    options.compute_dtype = compute;
    options.form = form;
    for (const double eps : {1e-7, 0.0}) {
      options.eps = eps;
      const at::Tensor x = at::zeros({2, 9, 12}, on(device, at::kFloat));
      for (const Quintics& schedule : {CoefficientSet::cubic().quintics(9, 12, 5),
                                       CoefficientSet::polar_express(1.05).quintics(9, 12, 5)}) {
        CHECK_THAT(root_optim::orthogonalize(x, schedule, options), test::same_as(x));
      }
    }
  }
}

TEST_CASE("a non-finite matrix spoils no other of its batch", "[newton_schulz]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const double bad =
      GENERATE(std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity());
  const Quintics schedule = CoefficientSet::jordan().quintics(8, 12, 5);
  const at::Tensor clean = test::gaussian({3, 8, 12}, 7).to(on(device, at::kFloat));
  at::Tensor spoiled = clean.clone();
  spoiled[1][2][3] = bad;
  for (const Normalization normalization : kNormalizations) {
    const auto options = test::normalized_by(normalization);
    const at::Tensor expected = root_optim::orthogonalize(clean, schedule, options);
    const at::Tensor result = root_optim::orthogonalize(spoiled, schedule, options);
    CHECK_THAT(result[0], test::same_as(expected[0]));
    CHECK_THAT(result[2], test::same_as(expected[2]));
    CHECK(result[1].isnan().any().item<bool>());
  }
}

TEST_CASE("symmetric products by blocks are the plain ones", "[newton_schulz]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  const int64_t m = GENERATE(1, 5, 24, 37), blocks = GENERATE(1, 2, 3, 4);
  if (blocks > m) return;
  INFO(m << " in " << blocks << " blocks, " << dtype << " on " << device);
  const at::Tensor x = test::gaussian({2, m, 60}, 141).to(on(device, dtype));
  const at::Tensor gram = x.matmul(x.transpose(1, 2));
  at::Tensor out = at::full_like(gram, std::nan(""));
  root_optim::detail::symmetric_product_out(out, x, x, blocks);
  CHECK_THAT(out, test::close_to(gram, tolerance(Quantity::OneRounding, dtype),
                                 60.0 * static_cast<double>(m)));
  if (blocks > 1) {
    const at::Tensor strict = out.tril(-(m / blocks) - 1);  // outside the diagonal blocks
    CHECK_THAT(out.triu(m / blocks + 1), test::same_as(strict.transpose(1, 2)));
  }
  at::Tensor sum = at::full_like(gram, std::nan(""));
  root_optim::detail::symmetric_product_out(sum, gram, gram, blocks, gram, 0.5, 2);
  CHECK_THAT(sum,
             test::close_to(gram.matmul(gram) * 2 + gram * 0.5,
                            tolerance(Quantity::OneRounding, dtype), 8e4 * static_cast<double>(m)));
}

TEST_CASE("the blocked forms map singular values as the plain ones", "[newton_schulz]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  const int64_t blocks = GENERATE(2, 4);
  const Quintics schedule = CoefficientSet::polar_express().quintics(64, 64, 5);
  const root_optim::Precision precision =
      dtype == at::kDouble ? root_optim::Precision::Float64 : root_optim::Precision::Float32;
  for (const auto& [name, matrix] : test::hard_spectra()) {
    if (std::min(matrix.size(0), matrix.size(1)) < blocks) continue;
    INFO(name << " in " << blocks << " blocks, " << dtype << " on " << device);
    at::Tensor x = matrix.to(on(device, dtype)).unsqueeze(0);
    if (x.size(1) > x.size(2)) x = x.transpose(1, 2);
    x = root_optim::detail::scale_by_max(x, dtype);
    const auto runs = root_optim::gram_runs(schedule, precision);
    using root_optim::detail::iterate_direct;
    using root_optim::detail::iterate_gram;
    CHECK_THAT(
        iterate_direct(x.clone(), schedule, blocks, root_optim::Normalization::Schatten8),
        test::close_to(iterate_direct(x.clone(), schedule, 1, root_optim::Normalization::Schatten8),
                       tolerance(Quantity::Equivariance, dtype), 1.0));
    CHECK_THAT(
        iterate_gram(x.clone(), schedule, runs, blocks, root_optim::Normalization::Schatten8),
        test::close_to(
            iterate_gram(x.clone(), schedule, runs, 1, root_optim::Normalization::Schatten8),
            tolerance(Quantity::EquivarianceGram, dtype), 1.0));
  }
}

TEST_CASE("large matrices take blocks and count fewer FLOP", "[newton_schulz]") {
  using root_optim::plan_iteration;
  using root_optim::Precision;
  const Quintics schedule = CoefficientSet::jordan().quintics(1, 1, 5);
  const auto plan = [&](int64_t m, int64_t n, Precision precision, Form form) {
    return plan_iteration(m, n, schedule, precision, form);
  };
  const double m3 = 512.0 * 512.0 * 512.0;
  const auto blocked = plan(512, 512, Precision::Float32, Form::Direct);
  CHECK(blocked.blocks == 4);  // ten of sixteen blocks: 5/8 of the symmetric products
  CHECK(blocked.flops == Approx(5 * (2 + 4 * 0.625) * m3));
  CHECK(blocked.cost == Approx(5 * (2 + 4 * 0.8) * m3));
  CHECK(plan(511, 511, Precision::Float32, Form::Direct).blocks == 1);
  const auto reduced = plan(512, 512, Precision::BFloat16, Form::Direct);
  CHECK(reduced.blocks == 1);
  CHECK(reduced.flops == Approx(5 * 6 * m3));
  CHECK(reduced.cost == reduced.flops);
  const auto gram = plan(512, 1024, Precision::Float64, Form::Gram);
  REQUIRE(gram.runs.size() == 1);
  CHECK(gram.flops == Approx((2 * (2 + 1.25) + 5 * 1.25 + 24) * m3));
  CHECK(gram.cost == Approx((2 * (2 + 1.6) + 5 * 1.6 + 24) * m3));
}

TEST_CASE("the Frobenius kinds keep their published eps", "[newton_schulz]") {
  // One step of p(x) = x is the normalization alone.
  const Quintics identity{{1, 0, 0}};
  const at::Tensor x = at::full({1, 1}, 3e-7, at::kDouble);
  auto options = test::normalized_by(Normalization::FrobeniusPlus);
  // 3e-7 / (3e-7 + 1e-7), and 5e-8 / max(5e-8, 1e-7)
  CHECK_THAT(root_optim::orthogonalize(x, identity, options),
             test::close_to(at::full({1, 1}, 0.75), tolerance(Quantity::OneRounding, at::kDouble)));
  options = test::normalized_by(Normalization::FrobeniusFloor);
  CHECK_THAT(root_optim::orthogonalize(x / 6, identity, options),
             test::close_to(at::full({1, 1}, 0.5), tolerance(Quantity::OneRounding, at::kDouble)));
}

TEST_CASE("orthogonalize refuses what is not a matrix or not safe", "[newton_schulz][errors]") {
  const Quintics schedule = CoefficientSet::jordan().quintics(8, 8, 5);
  const auto with = [&](auto change) {
    OrthogonalizeOptions options;
    change(options);
    return root_optim::orthogonalize(at::ones({8, 8}), schedule, options);
  };
  CHECK_THROWS_WITH(root_optim::orthogonalize(at::ones({8}), schedule),
                    test::contains("expected a tensor of rank >= 2, got shape [8]"));
  CHECK_THROWS_WITH(root_optim::orthogonalize(at::ones({8, 8}, at::kInt), schedule),
                    test::contains("expected a real floating-point tensor, got dtype Int"));
  CHECK_THROWS_WITH(root_optim::orthogonalize(at::ones({8, 8}, at::kComplexFloat), schedule),
                    test::contains("got dtype ComplexFloat"));
  CHECK_THROWS_WITH(root_optim::orthogonalize(at::ones({8, 8}).to_sparse(), schedule),
                    test::contains("expected a strided tensor, got layout Sparse"));
  CHECK_THROWS_WITH(root_optim::orthogonalize(at::Tensor(), schedule),
                    test::contains("expected a matrix, got an undefined tensor"));
  CHECK_THROWS_WITH(
      with([](auto& o) { o.compute_dtype = at::kHalf; }),
      test::contains("expected compute_dtype to be float64, float32 or bfloat16, got Half"));
  CHECK_THROWS_WITH(with([](auto& o) { o.eps = -1; }),
                    test::contains("expected eps to be finite and >= 0, got -1"));
  CHECK_THROWS_WITH(with([](auto& o) { o.eps = std::numeric_limits<double>::infinity(); }),
                    test::contains("expected eps to be finite and >= 0, got inf"));
  CHECK_THROWS_WITH(with([](auto& o) { o.form = static_cast<root_optim::Form>(7); }),
                    test::contains("expected form to be an enumerator of its type, got 7"));
  CHECK_THROWS_WITH(with([](auto& o) { o.normalization = static_cast<Normalization>(-1); }),
                    test::contains("expected normalization to be an enumerator"));
  OrthogonalizeOptions unsafe;
  unsafe.allow_unsafe = true;
  CHECK_THROWS_WITH(root_optim::orthogonalize(at::ones({8, 8}), {}, unsafe),
                    test::contains("expected at least one step, got none"));
  const at::Tensor followed = at::ones({8, 8}).set_requires_grad(true);
  CHECK_THROWS_WITH(root_optim::orthogonalize(followed, schedule),
                    test::contains("expected a tensor without autograd"));
  const at::NoGradGuard no_grad;
  CHECK_NOTHROW(root_optim::orthogonalize(followed, schedule));
  CHECK_THROWS_WITH(root_optim::orthogonalize(at::ones({8, 8}), {{-1, 0, 0}}),
                    test::contains("step 1 of 1"));
}

TEST_CASE("unsafe coefficients run only when allowed", "[newton_schulz][errors]") {
  const Quintics published = CoefficientSet::root_paper().quintics(2048, 2048, 6);
  // Two singular values: one in the window that the published 2048 x 2048 triple does not hold
  // back.
  const double escaping = 0.5591;  // its first local maximum
  const at::Tensor x =
      at::diag(at::tensor({escaping, std::sqrt(1 - escaping * escaping)}, at::kDouble));
  OrthogonalizeOptions options = test::normalized_by(Normalization::FrobeniusFloor);
  CHECK_THROWS_WITH(root_optim::orthogonalize(x, published, options), test::contains("fails at"));
  options.allow_unsafe = true;
  const at::Tensor result = root_optim::orthogonalize(x, published, options);
  CHECK(result[0][0].item<double>() > 100);  // 679 at worst, after six steps
}

TEST_CASE("NewtonSchulz defaults to torch.optim.Muon's iteration", "[newton_schulz][policy]") {
  const NewtonSchulz policy;
  CHECK(policy.coefficients() == CoefficientSet::jordan());
  CHECK(policy.steps() == 5);
  CHECK(policy.normalization() == Normalization::FrobeniusFloor);
  CHECK(policy.eps() == 1e-7);
  CHECK_FALSE(policy.compute_dtype().has_value());
  CHECK(policy.form() == Form::Direct);
  CHECK_FALSE(policy.allow_unsafe());
}

TEST_CASE("NewtonSchulz runs its set by shape and steps", "[newton_schulz][policy]") {
  const at::Tensor x = test::gaussian({2, 12, 20}, 8);
  const auto expected = [&](const Quintics& schedule, Normalization normalization) {
    OrthogonalizeOptions options = test::normalized_by(normalization);
    options.form = Form::Direct;  // the policy's default: as published
    return root_optim::orthogonalize(x, schedule, options);
  };
  CHECK_THAT(NewtonSchulz()(x), test::same_as(expected(CoefficientSet::jordan().quintics(12, 20, 5),
                                                       Normalization::FrobeniusFloor)));
  const auto policy = NewtonSchulz()
                          .coefficients(CoefficientSet::polar_express())
                          .steps(9)
                          .normalization(Normalization::Schatten8);
  CHECK_THAT(policy(x), test::same_as(expected(CoefficientSet::polar_express().quintics(12, 20, 9),
                                               Normalization::Schatten8)));
  // root_paper knows four shapes, in either orientation; any other gets jordan.
  const auto paper = CoefficientSet::root_paper();
  CHECK((paper.quintics(3072, 2048, 5)[0] == root_optim::Quintic{3.4509, -4.5790, 1.9325}));
  CHECK((paper.quintics(2048, 3072, 5) == paper.quintics(3072, 2048, 5)));
  CHECK((paper.quintics(12, 20, 5) == CoefficientSet::jordan().quintics(12, 20, 5)));
}

TEST_CASE("NewtonSchulz survives its fields", "[newton_schulz][policy]") {
  const auto policy =
      NewtonSchulz()
          .coefficients(CoefficientSet::per_step({{1.9, -1.3, 0.4}, {1.5, -0.5, 0}}))
          .steps(3)
          .normalization(Normalization::FrobeniusPlus)
          .eps(1e-9)
          .compute_dtype(at::kBFloat16)
          .form(Form::Gram)
          .allow_unsafe(true);
  root_optim::Fields fields;
  policy.serialize(fields);
  NewtonSchulz copy;
  copy.deserialize(fields);
  root_optim::Fields again;
  copy.serialize(again);
  CHECK(fields == again);
  CHECK(copy.coefficients() == policy.coefficients());
  CHECK(copy.steps() == 3);
  CHECK(copy.normalization() == Normalization::FrobeniusPlus);
  CHECK(copy.eps() == 1e-9);
  CHECK(copy.compute_dtype() == at::kBFloat16);
  CHECK(copy.form() == Form::Gram);
  CHECK(copy.allow_unsafe());
}

TEST_CASE("NewtonSchulz names what is out of range", "[newton_schulz][policy][errors]") {
  CHECK_THROWS_WITH(NewtonSchulz().steps(0).validate(),
                    test::contains("root_optim::NewtonSchulz: expected 1 <= steps <= 64, got 0"));
  CHECK_THROWS_WITH(NewtonSchulz().steps(65).validate(), test::contains("got 65"));
  CHECK_THROWS_WITH(NewtonSchulz().eps(-1e-3).validate(),
                    test::contains("expected eps to be finite and >= 0, got -0.001"));
  CHECK_THROWS_WITH(
      NewtonSchulz().compute_dtype(at::kInt).validate(),
      test::contains("expected compute_dtype to be float64, float32 or bfloat16, got Int"));
  CHECK_THROWS_WITH(CoefficientSet::named("mouon"), test::contains("got 'mouon'"));
}
