// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Generated matrices (shapes, strides, spectra, dtypes), coefficients and forms: what comes out is
// finite, bounded as the validator promises, equivariant, and what exact arithmetic gives. What is
// generated is in support/generators.hpp.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <cmath>
#include <limits>

#include "support/convert.hpp"
#include "support/devices.hpp"
#include "support/generators.hpp"
#include "support/reference.hpp"
#include "support/singular_values.hpp"

using namespace root_optim;
using test::expect;
using test::MatrixCase;

namespace {

/// ‖a − b‖_F / √min(m, n), the largest of a batch.
double difference(const at::Tensor& a, const at::Tensor& b) {
  if (a.numel() == 0) return 0;
  const auto rank = static_cast<double>(std::min(a.size(1), a.size(2)));
  return (a.to(at::kDouble) - b.to(at::kDouble)).norm(2, {1, 2}).max().item<double>() /
         std::sqrt(rank);
}

/// The bound on `difference` to exact arithmetic in bfloat16, where slopes say nothing: what a step
/// rounds, u(|a|σ + |b|σ³ + |c|σ⁵), against the smallest singular value that it leaves. Schedules
/// dip: the shipped ones send σ = .85 to .005 in their first step, less than bfloat16 rounds there,
/// so that such a direction is lost. Above 1 nothing is left to compare. Over 20,000 generated batches
/// .8 of the plain sum was met; hence the factor 2.
double bfloat16_bound(const MatrixCase& c, const at::Tensor& x) {
  const Quintics schedule = test::schedule_of(c);
  const double u = test::unit_roundoff(at::kBFloat16);
  double largest = 0;
  for (int64_t i = 0; i < c.count; ++i) {
    const at::Tensor start = test::reference::start_of(
        x[i].to(at::kDouble), test::start(static_cast<Normalization>(c.norm)), 1e-7);
    at::Tensor sigma = at::linalg_svdvals(start);
    double bound = 0;
    for (const Quintic& p : schedule) {
      const at::Tensor terms =
          std::abs(p.a) * sigma + std::abs(p.b) * sigma.pow(3) + std::abs(p.c) * sigma.pow(5);
      sigma = p.a * sigma + p.b * sigma.pow(3) + p.c * sigma.pow(5);
      bound += 2 * u * terms.max().item<double>() / sigma.min().item<double>();
    }
    largest = std::max(largest, bound);
  }
  return largest;
}

/// The bound on `difference` to exact arithmetic, or infinity.
double error_bound(const MatrixCase& c, const at::Tensor& x) {
  if (x.numel() == 0) return 0;
  if (c.compute == at::kBFloat16) {
    const double bound = bfloat16_bound(c, x);
    return bound <= 1 ? bound : std::numeric_limits<double>::infinity();
  }
  const Quintics schedule = test::schedule_of(c);
  const IterationPlan plan = plan_iteration(c.rows, c.cols, schedule, test::precision_of(c.compute),
                                            static_cast<Form>(c.form));
  // The norm divides in the input's dtype, or in float32 if that is half.
  const double u = std::max(test::unit_roundoff(c.compute),
                            test::unit_roundoff(c.input == at::kDouble ? at::kDouble : at::kFloat));
  return test::direction_bound(u, test::slope_of(schedule), test::steepest_run(plan, schedule)) +
         2 * test::unit_roundoff(c.input);  // the result is rounded to the input's dtype
}

bool runs_here(const MatrixCase& c) {
  return c.compute != at::kBFloat16 || test::bfloat16_products_hold(at::kCPU);
}

}  // namespace

TEST_CASE("generated matrices: finite, within the validator's promise, near exact arithmetic",
          "[property][generated]") {
  test::Sharpness largest, float64, float32, bfloat16;
  int64_t compared = 0;
  test::check_property("matrices", [&] {
    const MatrixCase c = *test::matrix_cases();
    if (!runs_here(c)) return;
    const at::Tensor x = test::matrices_of(c), before = x.clone();
    const at::Tensor y = test::orthogonalized(c, x);
    expect(y.sizes() == x.sizes() && y.scalar_type() == x.scalar_type(), "got ", y.sizes(), " of ",
           y.scalar_type());
    expect(at::equal(x, before), "the input was written");
    // The promise holds in the compute dtype; rounding each entry to the input's by u adds at most
    // u‖Y‖_F.
    const auto rank = static_cast<double>(std::min(c.rows, c.cols));
    const double bound =
        1.35 *
        (1 + std::sqrt(rank) * (c.input == at::kBFloat16 ? test::unit_roundoff(c.input) : 0));
    const double sigma = test::largest_singular_value(y);
    largest.add(sigma, bound);
    expect(sigma <= bound, "a singular value of ", sigma, ", expected at most ", bound);
    const double allowed = error_bound(c, x);
    if (x.numel() == 0 || std::isinf(allowed)) return;
    const auto triples = test::triples(test::schedule_of(c));
    std::vector<at::Tensor> exact;
    for (int64_t i = 0; i < c.count; ++i) {
      exact.push_back(test::reference::map_singular_values(
          x[i].to(at::kDouble), triples, test::start(static_cast<Normalization>(c.norm)), 1e-7));
    }
    const double error = difference(y, at::stack(exact));
    (c.compute == at::kDouble  ? float64
     : c.compute == at::kFloat ? float32
                               : bfloat16)
        .add(error, allowed);
    ++compared;
    expect(error <= allowed, "an error of ", error, ", expected at most ", allowed);
  });
  WARN(compared << " compared; largest singular value / promise: " << largest.largest()
                << "; largest error / bound: float64 " << float64.largest() << ", float32 "
                << float32.largest() << ", bfloat16 " << bfloat16.largest());
}

TEST_CASE("generated matrices: transposed, permuted, scaled, one by one", "[property][generated]") {
  test::Sharpness transposed, permuted, single;
  test::check_property("equivariance", [&] {
    const MatrixCase c = *test::matrix_cases();
    if (!runs_here(c)) return;
    const at::Tensor x = test::matrices_of(c);
    const at::Tensor y = test::orthogonalized(c, x);
    // Two runs, each within error_bound of exact arithmetic.
    const double bound = 2 * error_bound(c, x);
    const auto near = [&](const char* what, const at::Tensor& actual, const at::Tensor& expected,
                          test::Sharpness& sharpness) {
      expect(actual.sizes() == expected.sizes(), what, ": got ", actual.sizes());
      if (std::isinf(bound)) return;
      const double error = difference(actual, expected);
      sharpness.add(error, bound);
      expect(error <= bound, what, ": a difference of ", error, ", expected at most ", bound);
    };
    near("transposed", test::orthogonalized(c, x.transpose(1, 2)), y.transpose(1, 2), transposed);

    // P X Q with random signs and permutations
    const auto signed_permutation = [&](int64_t size, uint64_t seed) {
      const at::Tensor noise = test::gaussian({2, size}, c.seed + seed);
      return std::make_pair(noise[0].argsort(), noise[1].sign());
    };
    const auto [rows, row_signs] = signed_permutation(c.rows, 101);
    const auto [cols, col_signs] = signed_permutation(c.cols, 102);
    const auto permute = [&, &p = rows, &s = row_signs, &q = cols,
                          &t = col_signs](const at::Tensor& z) {
      return z.index_select(1, p)
          .index_select(2, q)
          .mul(s.unsqueeze(1).to(z.scalar_type()))
          .mul(t.to(z.scalar_type()));
    };
    near("signs and permutations", test::orthogonalized(c, permute(x)), permute(y), permuted);

    // A power of two is exact at every operation of the relative form: the same bits, if the order in
    // memory is the same; another may have products add in another order.
    if (c.norm == 2) {
      const at::Tensor scaled = test::with_strides(x * (c.scale > 0 ? 0x1p-20 : 0x1p20),
                                                   static_cast<test::Strides>(c.strides));
      expect(at::equal(test::orthogonalized(c, scaled), y), "a power of two changes bits");
    }
    for (int64_t i = 0; i < c.count; ++i) {
      near("one by one", test::orthogonalized(c, x.narrow(0, i, 1)), y.narrow(0, i, 1), single);
    }
    expect(at::equal(test::orthogonalized(c, x), y), "the same input gives other bits");
  });
  WARN("largest difference / bound: transposed " << transposed.largest() << ", permuted "
                                                 << permuted.largest() << ", one by one "
                                                 << single.largest());
}

TEST_CASE("generated matrices: the policies run orthogonalize", "[property][generated]") {
  test::check_property("policies", [&] {
    MatrixCase c = *test::matrix_cases();
    c.blocks = 1;
    if (!runs_here(c) || c.rows == 0 || c.cols == 0) return;
    const at::Tensor x = test::matrices_of(c), y = test::orthogonalized(c, x);
    const Quintics schedule = test::schedule_of(c);
    const auto numbered = NewtonSchulz()
                              .coefficients(CoefficientSet::per_step(schedule))
                              .steps(static_cast<int64_t>(schedule.size()))
                              .normalization(static_cast<Normalization>(c.norm))
                              .compute_dtype(c.compute)
                              .form(static_cast<Form>(c.form));
    expect(at::equal(numbered(x), y), "NewtonSchulz differs");
    // Tables hold what passes in float32 (or bfloat16) with the Schatten-8 norm.
    const Precision precision =
        c.compute == at::kBFloat16 ? Precision::BFloat16 : Precision::Float32;
    if (c.norm != 2 || !validate_quintics(schedule, ValidationOptions::for_precision(
                                                        precision, Normalization::Schatten8))
                            .valid) {
      return;
    }
    CoefficientTable table;
    table.set(c.rows, c.cols, schedule, precision);
    const auto by_shape =
        AdaNewton().table(table).compute_dtype(c.compute).form(static_cast<Form>(c.form));
    expect(at::equal(by_shape(x), y), "AdaNewton differs");
  });
}

TEST_CASE("generated matrices: the split", "[property][generated]") {
  test::check_property("split", [&] {
    MatrixCase c = *test::matrix_cases();
    if (c.input == at::kBFloat16) c.input = at::kFloat;  // the optimizer hands on float32
    const int mode = *test::any_in(0, 3);
    const auto passes = *test::any_in<int64_t>(1, 4);
    const double value = 1e-3 * *test::any_in(0, 1000);
    if (c.rows == 0 || c.cols == 0) return;
    const at::Tensor u = test::matrices_of(c);
    SoftThreshold filter;
    test::reference::MatrixRule rule;
    rule.split_value = value;
    if (mode == 0) {
      filter.quantile(value);
    } else if (mode == 1) {
      rule.split = test::reference::Split::Absolute;
      rule.split_value = value * std::pow(10.0, c.scale);
      filter.absolute(rule.split_value);
    } else if (mode == 2) {
      rule.split = test::reference::Split::RelativeToRms;
      rule.split_value = 3 * value;
      filter.relative_to_rms(rule.split_value);
    } else {
      rule.split = test::reference::Split::Scaled;
      rule.split_value = 1e-3 + 6 * value;
      rule.split_passes = passes;
      filter.scaled(rule.split_value, passes);
    }
    // Three roundings of a threshold, an interpolation or a product; of the scaled one those of two
    // means more, of the pass before too.
    const double roundings = mode == 3 ? static_cast<double>(passes * (12 + c.rows + c.cols)) : 4;
    // The reference's own sums, one after the other, of both means and their product.
    const double sums =
        mode == 3 ? 2 * static_cast<double>(passes * (c.rows + c.cols)) * 0x1p-53 : 0;
    // Passes may shrink entries until they underflow.
    const double least = mode == 3 ? std::numeric_limits<float>::min() : 0;
    const at::Tensor body = filter(u);
    const auto [outliers, same] = split_outliers(u, filter.threshold(u));
    if (mode == 3) {  // a kernel beside operators, which add in another order
      const double bound = roundings * test::unit_roundoff(c.input);
      expect((body - same).abs().le(same.abs() * bound + least).all().item<bool>(),
             "the operators of the scaled split differ from its kernel");
    } else {
      expect(at::equal(body, same), "split_outliers differs from the filter");
    }
    // Within one ulp of the larger of the parts.
    const double ulp = 2 * test::unit_roundoff(c.input);
    expect(((outliers + same) - u).abs().le(u.abs() * ulp).all().item<bool>(), "O + B is not U");
    expect(body.abs().le(u.abs()).all().item<bool>() && (body * u).ge(0).all().item<bool>(),
           "B exceeds U or changes a sign");
    for (int64_t i = 0; i < c.count; ++i) {
      const at::Tensor exact = test::reference::split_off_outliers(u[i].to(at::kDouble), rule);
      const double largest = exact.abs().max().item<double>();
      const double error = (body[i].to(at::kDouble) - exact).abs().max().item<double>();
      // And a norm, a sum of N squares in float64: of equal ones every addition may round one way, N
      // roundings, of which the root leaves half.
      const double bound =
          (roundings * ulp + sums + 0x1p-54 * static_cast<double>(c.rows * c.cols)) * largest +
          least;
      expect(error <= bound, "an error of ", error, " for entries up to ", largest);
    }
  });
}
