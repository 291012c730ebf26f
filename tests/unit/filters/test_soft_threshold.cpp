// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The outlier split: the exact quantile of |U|, the three thresholds, what is clipped and what not.
#include "support/catch_torch.hpp"

#include <root_optim/filters.hpp>

#include "support/devices.hpp"
#include "support/reference.hpp"
#include "support/spectra.hpp"
#include "support/tolerances.hpp"

using root_optim::NoFilter;
using root_optim::quantile_of_abs;
using root_optim::Scratch;
using root_optim::SoftThreshold;
using test::on;
using test::Quantity;
using test::tolerance;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// One matrix [1, 1, n].
at::Tensor row(const std::vector<double>& values) {
  return at::tensor(values, at::kDouble).reshape({1, 1, -1});
}

/// The only element of a tensor.
double value(const at::Tensor& t) { return t.item<double>(); }

}  // namespace

TEST_CASE("quantile_of_abs interpolates between the neighbors of rank q (N - 1)", "[quantile]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::Tensor u = row({-4, 0, 3, -1, 2}).to(device);  // |u| sorted: 0 1 2 3 4
  CHECK(value(quantile_of_abs(u, 0.0)) == 0);
  CHECK(value(quantile_of_abs(u, 0.5)) == 2);
  CHECK(value(quantile_of_abs(u, 1.0)) == 4);
  CHECK(value(quantile_of_abs(u, 0.625)) == 2.5);
  CHECK(value(quantile_of_abs(u, 0.90625)) == 3.625);
  CHECK(value(quantile_of_abs(row({-7}).to(device), 0.3)) == 7);
}

TEST_CASE("quantile_of_abs follows the sorted reference", "[quantile]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat, at::kHalf, at::kBFloat16);
  const at::ScalarType result_dtype = dtype == at::kDouble ? at::kDouble : at::kFloat;
  for (const double q : {0.0, 0.01, 0.5, 0.85, 0.90, 0.999, 1.0}) {
    for (const std::vector<int64_t>& shape :
         {std::vector<int64_t>{3, 17, 23}, {1, 1, 2}, {2, 301, 7}, {1, 400, 500}}) {
      const at::Tensor u = test::gaussian(shape, 21).to(on(device, dtype));
      const at::Tensor quantiles = quantile_of_abs(u, q);
      CHECK(quantiles.sizes() == at::IntArrayRef({shape[0], 1, 1}));
      CHECK(quantiles.scalar_type() == result_dtype);
      for (int64_t i = 0; i < shape[0]; ++i) {
        const double expected = test::reference::quantile_of_abs(u[i].to(at::kCPU, at::kDouble), q);
        INFO("q " << q << ", shape " << shape << ", matrix " << i << ", " << dtype);
        CHECK_THAT(quantiles[i][0][0], test::close_to(at::full({}, expected, at::kDouble),
                                                      tolerance(Quantity::Quantile, result_dtype)));
      }
    }
  }
}

TEST_CASE("quantile_of_abs reads any strides and orders any magnitude", "[quantile]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  const at::Tensor base = test::gaussian({2, 40, 30}, 22).to(on(device, dtype));
  for (const at::Tensor& view :
       {base.transpose(1, 2), base.slice(1, 0, 40, 3), base.narrow(0, 1, 1)}) {
    CHECK_THAT(quantile_of_abs(view, 0.9), test::same_as(quantile_of_abs(view.contiguous(), 0.9)));
  }
  // From the smallest subnormal to the largest finite number, and zeros of both signs.
  const bool wide = dtype == at::kDouble;
  const double tiny = wide ? std::numeric_limits<double>::denorm_min()
                           : static_cast<double>(std::numeric_limits<float>::denorm_min());
  const double huge = wide ? std::numeric_limits<double>::max()
                           : static_cast<double>(std::numeric_limits<float>::max());
  const at::Tensor u = row({-huge, 1, -0.0, tiny, 0.0}).to(on(device, dtype));
  CHECK(value(quantile_of_abs(u, 0.25)) == 0);
  CHECK(value(quantile_of_abs(u, 0.5)) == tiny);
  CHECK(value(quantile_of_abs(u, 0.75)) == 1);
  CHECK(value(quantile_of_abs(u, 1.0)) == huge);
}

TEST_CASE("quantile_of_abs sorts infinity and NaN last", "[quantile]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::Tensor u = row({kNan, 1, -kInf, 2, 3}).to(device);
  CHECK(value(quantile_of_abs(u, 0.5)) == 3);
  CHECK(value(quantile_of_abs(u, 0.75)) == kInf);
  CHECK(std::isnan(value(quantile_of_abs(u, 1.0))));
}

TEST_CASE("quantile_of_abs counts ties and zeros like any other value", "[quantile]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  CHECK(value(quantile_of_abs(row(std::vector<double>(50, -2.0)).to(device), 0.9)) == 2);
  // 95 zeros of 100: the .90 quantile is 0, the .96 quantile is not.
  std::vector<double> sparse(100, 0.0);
  for (size_t i = 0; i < 5; ++i) sparse[20 * i] = static_cast<double>(i) + 1;
  CHECK(value(quantile_of_abs(row(sparse).to(device), 0.90)) == 0);
  CHECK(value(quantile_of_abs(row(sparse).to(device), 0.96)) > 0);
}

TEST_CASE("quantile_of_abs is exact beyond 2^24 elements", "[quantile]") {
  // LibTorch's own quantile refuses these; a rank rounded to float32 would be off by one.
  const int64_t n = (int64_t{1} << 24) + 3;
  const at::Tensor u = at::arange(n, at::kDouble).flip(0).reshape({1, 1, n});
  const double position = 0.9 * static_cast<double>(n - 1);
  CHECK_THAT(quantile_of_abs(u, 0.9).reshape({}),
             test::close_to(at::full({}, position, at::kDouble),
                            tolerance(Quantity::Quantile, at::kDouble)));
  const at::Tensor single = at::cat({at::zeros({n - 1}), at::ones({1})}).reshape({1, 1, n});
  CHECK(value(quantile_of_abs(single, 1.0)) == 1);
  CHECK(value(quantile_of_abs(single, static_cast<double>(n - 2) / static_cast<double>(n - 1))) ==
        0);
}

TEST_CASE("quantile_of_abs refuses what has no quantile", "[quantile][errors]") {
  CHECK_THROWS_WITH(quantile_of_abs(at::ones({2, 2}), 0.5),
                    test::contains("expected a batch of matrices [k, m, n], got shape [2, 2]"));
  CHECK_THROWS_WITH(quantile_of_abs(at::ones({1, 0, 2}), 0.5),
                    test::contains("got shape [1, 0, 2]"));
  CHECK_THROWS_WITH(quantile_of_abs(at::ones({1, 2, 2}), -0.1),
                    test::contains("expected q in [0, 1], got -0.1"));
  CHECK_THROWS_WITH(quantile_of_abs(at::ones({1, 2, 2}), 1.5), test::contains("got 1.5"));
  CHECK_THROWS_WITH(quantile_of_abs(at::ones({1, 2, 2}), kNan), test::contains("got nan"));
  CHECK_THROWS_WITH(quantile_of_abs(at::ones({1, 2, 2}, at::kInt), 0.5),
                    test::contains("expected a real floating-point tensor, got dtype Int"));
}

TEST_CASE("the split by hand", "[soft_threshold]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::Tensor u = row({-4, 0, 3, -1, 2}).to(device);
  CHECK_THAT(SoftThreshold().quantile(0.5)(u), test::same_as(row({-2, 0, 2, -1, 2}).to(device)));
  CHECK_THAT(SoftThreshold().absolute(2.5)(u),
             test::same_as(row({-2.5, 0, 2.5, -1, 2}).to(device)));
  // RMS = sqrt(30 / 5)
  const double rms = std::sqrt(6.0);
  CHECK_THAT(SoftThreshold().relative_to_rms(0.5)(u),
             test::close_to(row({-rms / 2, 0, rms / 2, -1, rms / 2}),
                            tolerance(Quantity::OneRounding, at::kDouble)));
  CHECK_THAT(SoftThreshold().quantile(1)(u), test::same_as(u));
  CHECK_THAT(NoFilter()(u), test::same_as(u));
  const auto [outliers, body] = root_optim::split_outliers(u, row({2.5}).to(device));
  CHECK_THAT(outliers, test::same_as(row({-1.5, 0, 0.5, 0, 0}).to(device)));
  CHECK_THAT(body, test::same_as(row({-2.5, 0, 2.5, -1, 2}).to(device)));
}

TEST_CASE("the scaled split: kappa times the means of row and column over the mean",
          "[soft_threshold]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  // Rows have the means 2 and 4, columns 1, 3 and 5, all the mean 3.
  const at::Tensor u = at::tensor({-1.0, 2.0, 3.0, 1.0, -4.0, 7.0}, at::kDouble)
                           .reshape({1, 2, 3})
                           .to(on(device, dtype));
  const at::Tensor expected = at::tensor({2.0, 6.0, 10.0, 4.0, 12.0, 20.0}, at::kDouble).div(3);
  CHECK_THAT(SoftThreshold().scaled(1, 1).threshold(u),
             test::close_to(expected.reshape({1, 2, 3}), tolerance(Quantity::Quantile, dtype)));
  CHECK_THAT(
      SoftThreshold().scaled(1.5, 1)(u),
      test::close_to(at::tensor({-1.0, 2.0, 3.0, 1.0, -4.0, 7.0}, at::kDouble).reshape({1, 2, 3}),
                     tolerance(Quantity::OneRounding, dtype)));
  const at::Tensor body = SoftThreshold().scaled(0.75, 1)(u);  // limits .5 1.5 2.5 1 3 5
  CHECK_THAT(body, test::close_to(
                       at::tensor({-0.5, 1.5, 2.5, 1.0, -3.0, 5.0}, at::kDouble).reshape({1, 2, 3}),
                       tolerance(Quantity::Quantile, dtype)));
}

TEST_CASE("the scaled split leaves a pattern of scales alone and cuts a spike",
          "[soft_threshold]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::Tensor signs = test::gaussian({1, 40, 60}, 26).sign();
  const at::Tensor rows = at::logspace(-4, 2, 40, 10.0, at::kDouble).reshape({1, 40, 1});
  const at::Tensor columns = at::logspace(3, -3, 60, 10.0, at::kDouble).reshape({1, 1, 60});
  at::Tensor u = (signs * rows * columns).to(device);
  const SoftThreshold filter = SoftThreshold().scaled(1.01, 1);
  CHECK_THAT(filter(u), test::same_as(u));
  CHECK(SoftThreshold().quantile(0.9)(u).ne(u).sum().item<int64_t>() == 240);  // one threshold
  const at::Tensor clean = u.clone();
  u[0][20][30] *= -1e5;
  // The spike raises its own row's mean 20 times and its column's 36 times; passes lower them again.
  const auto excess = [&](int64_t passes) {
    const at::Tensor body = SoftThreshold().scaled(3, passes)(u);
    CHECK(body.ne(u).sum().item<int64_t>() == 1);
    return (body[0][20][30] / clean[0][20][30]).abs().item<double>();
  };
  CHECK(excess(1) < 3 * 20 * 37);
  CHECK(excess(2) < 0.01 * excess(1));
  CHECK(excess(8) < 3.1);  // κ without the spike
}

TEST_CASE("the scaled split is scale invariant and takes zeros", "[soft_threshold]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  const at::Tensor u = test::gaussian({2, 12, 9}, 27).to(on(device, dtype));
  const SoftThreshold filter = SoftThreshold().scaled(1, 3);
  const double factor = std::ldexp(1.0, 40);
  CHECK_THAT(filter(u * factor), test::same_as(filter(u) * factor));
  CHECK_THAT(filter(u / factor), test::same_as(filter(u) / factor));
  CHECK_THAT(filter(at::zeros_like(u)), test::same_as(at::zeros_like(u)));
  at::Tensor empty_row = u.clone();
  empty_row[1][3].zero_();
  CHECK(filter(empty_row).isfinite().all().item<bool>());
  CHECK(filter(empty_row)[1][3].abs().max().item<double>() == 0);
}

TEST_CASE("the scaled split on the CPU does what its operators do", "[soft_threshold]") {
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  const auto shape = GENERATE(as<std::vector<int64_t>>(), std::vector<int64_t>{1, 1, 1},
                              std::vector<int64_t>{1, 1, 77}, std::vector<int64_t>{2, 77, 1},
                              std::vector<int64_t>{3, 31, 33}, std::vector<int64_t>{1, 300, 500},
                              std::vector<int64_t>{1, 12, 9000}, std::vector<int64_t>{1, 9000, 12});
  const bool transposed = GENERATE(false, true);
  at::Tensor u = (test::gaussian(shape, 28) * test::gaussian(shape, 29).exp()).to(dtype);
  u[0][0][0] *= 1000;
  if (transposed) u = u.transpose(1, 2);
  const at::Tensor before = u.clone();
  for (const int64_t passes : {1, 2, 3, 8}) {
    const SoftThreshold filter = SoftThreshold().scaled(2.5, passes);
    const at::Tensor body = filter(u);
    CHECK(body.strides() == u.strides());
    CHECK_THAT(u, test::same_as(before));
    // Sums of at most 9000 positive numbers in another order; measured 22 for 3072 by 768.
    const double bound =
        60 * (dtype == at::kDouble ? 2.2e-16 : 1.2e-7) * static_cast<double>(passes);
    const at::Tensor reference = at::minimum(u.abs(), filter.threshold(u)).copysign(u);
    CHECK((body - reference).abs().div(reference.abs().clamp_min(1e-30)).max().item<double>() <
          bound);
    at::Tensor consumed = u.clone();
    CHECK_THAT(filter(consumed, Scratch{nullptr, true}), test::same_as(body));
    CHECK_THAT(consumed, test::same_as(body));
  }
  // What autograd follows goes through operators.
  const at::Tensor leaf = before.detach().clone().requires_grad_(true);
  SoftThreshold()(leaf).sum().backward();
  CHECK(leaf.grad().isfinite().all().item<bool>());
}

TEST_CASE("the scaled split keeps NaN where it is", "[soft_threshold]") {
  at::Tensor u = test::gaussian({1, 12, 40}, 30);
  u[0][3][5] = kNan;
  const at::Tensor body = SoftThreshold()(u);
  CHECK(body.isnan().sum().item<int64_t>() == 1);
  CHECK(body[0][3][5].isnan().item<bool>());
}

TEST_CASE("every matrix of a batch has its own threshold", "[soft_threshold]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::Tensor u = (test::gaussian({4, 9, 11}, 23) *
                        at::tensor({1e-3, 1.0, 50.0, 1e6}, at::kDouble).reshape({4, 1, 1}))
                           .to(device);
  for (const SoftThreshold& filter :
       {SoftThreshold(), SoftThreshold().quantile(0.9), SoftThreshold().relative_to_rms(1.5),
        SoftThreshold().absolute(2)}) {
    const at::Tensor body = filter(u);
    const at::Tensor thresholds = filter.threshold(u);
    const bool scaled = filter.mode() == SoftThreshold::Mode::Scaled;
    CHECK(thresholds.sizes() == (scaled ? u.sizes() : at::IntArrayRef({4, 1, 1})));
    for (int64_t i = 0; i < 4; ++i) {
      CHECK_THAT(body.narrow(0, i, 1), test::same_as(filter(u.narrow(0, i, 1))));
      CHECK_THAT(thresholds.narrow(0, i, 1), test::same_as(filter.threshold(u.narrow(0, i, 1))));
    }
  }
}

TEST_CASE("a threshold of zero means no split", "[soft_threshold]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  at::Tensor sparse = at::zeros({2, 10, 10}, on(device, at::kDouble));
  sparse[0][3][4] = -5;
  sparse[0][7][1] = 2;
  CHECK_THAT(SoftThreshold().quantile(0.9)(sparse), test::same_as(sparse));
  CHECK_THAT(SoftThreshold().absolute(0)(sparse), test::same_as(sparse));
  CHECK_THAT(SoftThreshold().relative_to_rms(0)(sparse), test::same_as(sparse));
  // The published split has no such exception: it clips to 1e-9.
  CHECK_THAT(SoftThreshold::published()(sparse), test::same_as(sparse.clamp(-1e-9, 1e-9)));
}

TEST_CASE("the published split adds 1e-9", "[soft_threshold]") {
  const SoftThreshold filter = SoftThreshold::published();
  CHECK(filter.mode() == SoftThreshold::Mode::Quantile);
  CHECK(filter.value() == 0.90);
  const at::Tensor u = test::gaussian({1, 20, 30}, 24);
  CHECK_THAT(filter.threshold(u), test::same_as(quantile_of_abs(u, 0.90) + 1e-9));
}

TEST_CASE("filters keep shape and dtype and do not write their input", "[soft_threshold]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  // Not float16: the optimizer never hands it to a filter, and LibTorch 1.13 has no clamp for it.
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat, at::kBFloat16);
  const at::Tensor u = test::gaussian({2, 12, 9}, 25).to(on(device, dtype));
  const at::Tensor before = u.clone();
  for (const SoftThreshold& filter :
       {SoftThreshold(), SoftThreshold().quantile(0.9), SoftThreshold::published(),
        SoftThreshold().relative_to_rms(1), SoftThreshold().absolute(1),
        SoftThreshold().scaled(1, 2)}) {
    const at::Tensor body = filter(u);
    CHECK(body.sizes() == u.sizes());
    CHECK(body.scalar_type() == dtype);
    CHECK(body.device() == u.device());
    CHECK_THAT(u, test::same_as(before));
  }
}

TEST_CASE("SoftThreshold survives its fields", "[soft_threshold][policy]") {
  for (const SoftThreshold& filter :
       {SoftThreshold(), SoftThreshold::published(), SoftThreshold().quantile(0.85),
        SoftThreshold().absolute(0.25), SoftThreshold().relative_to_rms(3),
        SoftThreshold().scaled(4, 2)}) {
    root_optim::Fields fields, again;
    filter.serialize(fields);
    SoftThreshold copy;
    copy.deserialize(fields);
    copy.serialize(again);
    CHECK(fields == again);
    CHECK(copy.mode() == filter.mode());
    CHECK(copy.value() == filter.value());
    CHECK(copy.passes() == filter.passes());
  }
}

TEST_CASE("SoftThreshold names what is out of range", "[soft_threshold][policy][errors]") {
  CHECK_THROWS_WITH(
      SoftThreshold().quantile(1.2).validate(),
      test::contains("root_optim::SoftThreshold: expected a quantile in [0, 1], got 1.2"));
  CHECK_THROWS_WITH(SoftThreshold().quantile(kNan).validate(), test::contains("got nan"));
  CHECK_THROWS_WITH(SoftThreshold().absolute(-1).validate(),
                    test::contains("expected an absolute threshold from 0 to 3.4e38, got -1"));
  CHECK_THROWS_WITH(SoftThreshold().relative_to_rms(kInf).validate(),
                    test::contains("expected a factor of the RMS from 0 to 3.4e38, got inf"));
  CHECK_THROWS_WITH(SoftThreshold().scaled(-3).validate(),
                    test::contains("expected 0 < kappa <= 3.4e38, got -3"));
  CHECK_THROWS_WITH(SoftThreshold().scaled(3, 0).validate(),
                    test::contains("expected 1 <= passes <= 8, got 0"));
  CHECK_THROWS_AS(SoftThreshold().quantile(-1)(at::ones({1, 2, 2})), c10::Error);
}

TEST_CASE("SoftThreshold refuses what is no batch of matrices", "[soft_threshold][errors]") {
  for (const SoftThreshold& filter :
       {SoftThreshold(), SoftThreshold().quantile(0.9), SoftThreshold().absolute(1),
        SoftThreshold().relative_to_rms(1)}) {
    for (const at::Tensor& u : {at::ones({2, 2}), at::ones({1, 2, 2, 2})}) {
      const auto message = test::contains("expected a batch of matrices [k, m, n], got shape");
      CHECK_THROWS_WITH(filter(u), message);
      CHECK_THROWS_WITH(filter(u, Scratch{nullptr, true}), message);
      CHECK_THROWS_WITH(filter.threshold(u), message);
    }
  }
  CHECK_THROWS_WITH(root_optim::split_outliers(at::ones({2, 3, 3}), at::ones({1, 1, 1})),
                    test::contains("expected one threshold per matrix or per entry of [2, 3, 3], "
                                   "got shape [1, 1, 1]"));
}
