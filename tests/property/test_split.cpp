// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What holds for every outlier split U = O + B.
#include "support/catch_torch.hpp"

#include <root_optim/filters/soft_threshold.hpp>

#include "support/devices.hpp"
#include "support/reference.hpp"
#include "support/spectra.hpp"
#include "support/tolerances.hpp"

using root_optim::SoftThreshold;
using root_optim::split_outliers;
using test::on;
using test::Quantity;
using test::tolerance;

namespace {

/// Batches with outliers, ties, zeros and extreme scales; float64 on the CPU.
std::vector<test::Spectrum> inputs() {
  std::vector<test::Spectrum> list;
  for (const test::Spectrum& spectrum : test::hard_spectra()) {
    if (spectrum.matrix.numel() > 0) list.push_back({spectrum.name, spectrum.matrix.unsqueeze(0)});
  }
  const at::Tensor noise = test::gaussian({3, 20, 30}, 91);
  list.push_back({"Cauchy", test::gaussian({3, 20, 30}, 92) / noise});
  list.push_back({"ties", noise.round()});
  list.push_back({"many zeros", noise * noise.gt(1.5).to(at::kDouble)});
  list.push_back({"one value", at::full({2, 9, 9}, -2.5, at::kDouble)});
  return list;
}

template <class Check>
void for_all(Check check) {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  for (const auto& [name, input] : inputs()) {
    for (const double q : {0.0, 0.5, 0.85, 0.90, 1.0}) {
      INFO(name << ", q " << q << ", " << dtype << " on " << device);
      check(input.to(on(device, dtype)), q, dtype);
    }
  }
}

}  // namespace

TEST_CASE("O + B = U to one ulp, |B| <= epsilon, and O is the soft threshold",
          "[property][split]") {
  for_all([](const at::Tensor& u, double q, at::ScalarType dtype) {
    const at::Tensor epsilon = SoftThreshold().quantile(q).threshold(u);
    const auto [outliers, body] = split_outliers(u, epsilon);
    // One ulp of each entry of U, not of the largest.
    const at::Tensor error = (outliers + body - u).abs();
    CHECK(error.le(u.abs() * 2 * test::unit_roundoff(dtype)).all().item<bool>());
    const at::Tensor split = epsilon.gt(0);  // epsilon = 0 splits nothing
    CHECK(body.abs().le(epsilon).logical_or(split.logical_not()).all().item<bool>());
    const at::Tensor soft = u.sign() * (u.abs() - epsilon).clamp_min(0) * split.to(dtype);
    CHECK_THAT(outliers, test::close_to(soft, tolerance(Quantity::OneRounding, dtype)));
  });
}

TEST_CASE("B keeps signs and what does not exceed epsilon, bit by bit", "[property][split]") {
  for_all([](const at::Tensor& u, double q, at::ScalarType) {
    const auto filter = SoftThreshold().quantile(q);
    const at::Tensor epsilon = filter.threshold(u);
    const at::Tensor body = filter(u);
    const at::Tensor split = epsilon.gt(0).expand_as(u);  // epsilon = 0: no split
    const at::Tensor inside = u.abs().le(epsilon).logical_or(split.logical_not());
    CHECK(body.eq(u).logical_or(inside.logical_not()).all().item<bool>());
    CHECK(body.abs().eq(epsilon).logical_or(inside).all().item<bool>());
    CHECK((body * u).ge(0).logical_or((body * u).isinf()).all().item<bool>());
  });
}

TEST_CASE("the share of |U| above epsilon is 1 - q within one element", "[property][split]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  for (const std::vector<int64_t>& shape :
       std::vector<std::vector<int64_t>>{{4, 16, 24}, {1, 7, 11}, {1, 1, 10}, {2, 300, 200}}) {
    const int64_t n = shape[1] * shape[2];
    // Distinct absolute values: a permutation of 1 ... n with random signs.
    std::vector<at::Tensor> matrices;
    for (int64_t i = 0; i < shape[0]; ++i) {
      const at::Tensor noise = test::gaussian({n}, static_cast<uint64_t>(93 + i));
      matrices.push_back((noise.argsort().to(at::kDouble) + 1) * noise.sign());
    }
    const at::Tensor u = at::stack(matrices).reshape(shape).to(on(device, dtype));
    for (const double q : {0.0, 0.1, 0.5, 0.85, 0.90, 0.99, 1.0}) {
      const at::Tensor above =
          u.abs().gt(SoftThreshold().quantile(q).threshold(u)).to(at::kDouble).sum({1, 2});
      INFO("q " << q << " of " << n);
      CHECK((above - (1 - q) * static_cast<double>(n)).abs().le(1).all().item<bool>());
    }
  }
}

TEST_CASE("relative thresholds scale with U, an absolute one does not", "[property][split]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  const at::Tensor u = test::gaussian({2, 12, 18}, 97).to(on(device, dtype));
  for (const double scale : {0x1p-90, 0x1p-3, 0x1p90}) {  // powers of two: exact
    for (const auto& filter : {SoftThreshold(), SoftThreshold().relative_to_rms(1.1)}) {
      CHECK_THAT(filter(u * scale),
                 test::close_to(filter(u) * scale, tolerance(Quantity::OneRounding, dtype)));
    }
    const auto fixed = SoftThreshold().absolute(0.5);
    CHECK_THAT(fixed(u * scale), test::same_as((u * scale).clamp(-0.5, 0.5)));
  }
}

TEST_CASE("splitting commutes with transposing and permuting", "[property][split]") {
  for_all([](const at::Tensor& u, double q, at::ScalarType) {
    const auto filter = SoftThreshold().quantile(q);
    CHECK_THAT(filter(u.transpose(1, 2)), test::same_as(filter(u).transpose(1, 2)));
    CHECK_THAT(filter(u.flip(1)), test::same_as(filter(u).flip(1)));
    CHECK_THAT(filter(-u), test::same_as(-filter(u)));
  });
}
