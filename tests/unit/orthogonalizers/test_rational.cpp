// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The iteration by inverses against the slow, obvious one in float64, on inputs that are hard.
#include "support/catch_torch.hpp"

#include <root_optim/orthogonalizers/rational.hpp>

#include <cmath>
#include <limits>
#include <vector>

#include "support/spectra.hpp"

using root_optim::gain;
using root_optim::orthogonalize_rational;
using root_optim::RationalOptions;
using root_optim::RationalOutput;
using root_optim::RationalStage;
using root_optim::RationalStages;
using root_optim::zolotarev_stages;

namespace {

std::vector<RationalStages> schedules() {
  return {zolotarev_stages({{2, 1e-3}}), zolotarev_stages({{3, 1e-3}}),
          zolotarev_stages({{1, 1e-3}, {2, 0.1}}), zolotarev_stages({{2, 1e-3}, {2, 1e-2}})};
}

/// X ← a₀X + Σ a_j (XXᵀ + c_jI)⁻¹X, line by line.
at::Tensor reference(const at::Tensor& matrix, const RationalStages& schedule) {
  if (matrix.numel() == 0 || matrix.abs().max().item<double>() == 0) return matrix.clone();
  const bool tall = matrix.size(0) > matrix.size(1);
  at::Tensor x = matrix / matrix.abs().max();
  if (tall) x = x.t();
  x = x / std::sqrt(x.matmul(x.t()).norm().item<double>());
  for (const RationalStage& f : schedule) {
    const at::Tensor gram = x.matmul(x.t());
    at::Tensor next = f.constant * x;
    for (size_t j = 0; j < f.poles.size(); ++j) {
      const at::Tensor shifted = gram + f.poles[j] * at::eye(gram.size(0), at::kDouble);
      next = next + f.weights[j] * at::linalg_solve(shifted, x);
    }
    x = next;
  }
  return tall ? x.t() : x;
}

at::Tensor float64(const at::Tensor& x) { return x.to(at::kDouble); }

/// ‖actual − expected‖_F / √min(m, n): as a share of the polar factor's norm.
double error_of(const at::Tensor& actual, const at::Tensor& expected) {
  if (expected.numel() == 0) return 0;
  const auto rank = static_cast<double>(std::min(expected.size(-2), expected.size(-1)));
  return (float64(actual) - expected).norm().item<double>() / std::sqrt(rank);
}

}  // namespace

TEST_CASE("the rational iteration is the slow, obvious one", "[rational]") {
  const at::ScalarType dtype = GENERATE(at::kFloat, at::kDouble);
  for (const RationalStages& schedule : schedules()) {
    // Rounding errors, 2^-24 of the size, are lifted by the gain of a stage, at most 1700 here, and less by what
    // later ones do with them; measured 2.7e-3, and 1.7e-11 in float64 (2^-29 of it: 5e-12).
    const double bound = dtype == at::kFloat ? 1e-2 : 1e-10;
    for (const auto& [name, matrix] : test::hard_spectra()) {
      CAPTURE(name, dtype, schedule.size(), gain(schedule));
      const at::Tensor x = matrix.to(dtype);
      const at::Tensor before = x.clone();
      const RationalOutput output = orthogonalize_rational(x.unsqueeze(0), schedule);
      CHECK(at::equal(x, before));
      REQUIRE(output.x.sizes() == x.unsqueeze(0).sizes());
      CHECK(output.x.scalar_type() == dtype);
      CHECK_FALSE(output.failed.any().item<bool>());
      CHECK(error_of(output.x[0], reference(float64(x), schedule)) < bound);
    }
  }
}

TEST_CASE("larger matrices go through the recursion, in batches and alone", "[rational]") {
  const RationalStages schedule = zolotarev_stages({{2, 1e-3}, {2, 1e-2}});
  for (const auto& [k, m, n] : std::vector<std::tuple<int64_t, int64_t, int64_t>>{{3, 130, 150},
                                                                                  {2, 300, 129},
                                                                                  {1, 256, 256},
                                                                                  {1, 270, 600},
                                                                                  {2, 700, 260},
                                                                                  {2, 5000, 260}}) {
    CAPTURE(k, m, n);
    std::vector<at::Tensor> matrices;
    for (int64_t i = 0; i < k; ++i) {
      matrices.push_back(
          test::heavy_tailed(m, n, std::pow(10.0, 2 + 3 * i), static_cast<uint64_t>(i)));
    }
    const at::Tensor x = at::stack(matrices).to(at::kFloat);
    const RationalOutput output = orthogonalize_rational(x, schedule);
    for (int64_t i = 0; i < k; ++i) {
      CHECK(error_of(output.x[i], reference(float64(x[i]), schedule)) < 1e-2);
    }
    // Overwriting changes nothing but the input.
    CHECK(at::equal(
        orthogonalize_rational(x.clone(), schedule, {}, root_optim::Scratch{nullptr, true}).x,
        output.x));
  }
}

TEST_CASE("scale is of no account, and half precision comes back as it came", "[rational]") {
  const RationalStages schedule = zolotarev_stages({{2, 1e-3}});
  const at::Tensor x = test::gaussian({2, 20, 33}, 3).to(at::kFloat);
  const at::Tensor expected = orthogonalize_rational(x, schedule).x;
  for (const double scale : {0x1p-100, 0x1p-40, 0x1p40, 0x1p100}) {
    CHECK(at::equal(orthogonalize_rational(x * scale, schedule).x, expected));
  }
  CHECK(at::equal(orthogonalize_rational(at::zeros_like(x), schedule).x, at::zeros_like(x)));
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
    const RationalOutput output = orthogonalize_rational(x.to(dtype), schedule);
    CHECK(output.x.scalar_type() == dtype);
    CHECK(error_of(output.x[0], reference(float64(x.to(dtype))[0], schedule)) < 0.01);
  }
  RationalOptions options;
  options.compute_dtype = at::kDouble;
  const at::Tensor exact = orthogonalize_rational(x, schedule, options).x;
  CHECK(exact.scalar_type() == at::kFloat);
  CHECK(error_of(exact[1], reference(float64(x[1]), schedule)) < 1e-6);
}

TEST_CASE("a matrix that is not finite is marked and leaves the others alone", "[rational]") {
  const RationalStages schedule = zolotarev_stages({{2, 1e-3}, {1, 0.1}});
  const double bad =
      GENERATE(std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity());
  const at::Tensor x = test::gaussian({3, 80, 90}, 4).to(at::kFloat);
  const at::Tensor whole = orthogonalize_rational(x, schedule).x;
  x[1][70][3] = bad;
  const RationalOutput output = orthogonalize_rational(x, schedule);
  CHECK(output.failed[1].item<bool>());
  for (const int64_t i : {0, 2}) {
    CHECK_FALSE(output.failed[i].item<bool>());
    CHECK(at::equal(output.x[i], whole[i]));
  }
}

TEST_CASE("the factor of a failed matrix is zero", "[rational]") {
  // No Gram matrix is indefinite, so the iteration's own part is called with one that is.
  const at::Tensor r = at::eye(100, at::kFloat).repeat({2, 1, 1});
  r[0][80][80] = -1;
  const at::Tensor p = at::empty_like(r);
  const at::Tensor failed = at::zeros({2}, at::kBool);
  root_optim::detail::rational_factor(p, r, {0.5, {0.3}, {0.5}}, failed, nullptr);
  CHECK(failed[0].item<bool>());
  CHECK_FALSE(failed[1].item<bool>());
  CHECK(p[0].eq(0).all().item<bool>());
  CHECK((p[1] - 0.7 * at::eye(100)).abs().max().item<double>() < 1e-6);
}

TEST_CASE("products in bfloat16 stay within the bound", "[rational]") {
  const RationalStages schedule = zolotarev_stages({{2, 1e-3}, {1, 0.1}});
  RationalOptions options;
  options.bfloat16_product = true;
  for (const auto& [name, matrix] : test::hard_spectra()) {
    if (matrix.numel() == 0) continue;
    CAPTURE(name);
    const at::Tensor x = matrix.to(at::kFloat).unsqueeze(0);
    const at::Tensor y = orthogonalize_rational(x, schedule, options).x[0];
    // 2⁻⁹ of each entry and of the gain of the last stage, 10.6; measured 1.1e-2.
    CHECK(error_of(y, reference(float64(x[0]), schedule)) < 0.025);
    CHECK(at::linalg_matrix_norm(float64(y), 2).item<double>() < 1.25);
  }
}

TEST_CASE("outputs stay below what validation states on 10,000 adversarial spectra", "[rational]") {
  constexpr int64_t batch = 1000, m = 12, n = 16;
  const std::vector<RationalStages> all = schedules();
  for (uint64_t round = 0; round < 10; ++round) {
    const RationalStages& schedule = all[round % all.size()];
    const auto report = root_optim::validate_rational(schedule);
    // Levels from 1 down to 1e-8, each met by a random share of the singular values: flat, clustered, stepped, deep,
    // rank-deficient. A third get values around the peaks of the stage's terms.
    const at::Tensor depth = 8 * test::gaussian({batch, 1}, 7 * round + 1).abs().clamp_max(1);
    const at::Tensor uniform =
        0.5 * (1 + at::erf(test::gaussian({batch, m}, 7 * round + 2) / std::sqrt(2.0)));
    at::Tensor sigma = at::pow(10.0, -depth * at::floor(uniform * 4) / 4);
    sigma.slice(0, 0, batch, 3).copy_(at::pow(10.0, -4 * uniform.slice(0, 0, batch, 3)));
    sigma.slice(0, 1, batch, 5).masked_fill_(uniform.slice(0, 1, batch, 5) > 0.4, 0);
    sigma.select(1, 0).fill_(1);
    const at::Tensor u = std::get<0>(at::linalg_qr(test::gaussian({batch, m, m}, 7 * round + 3)));
    const at::Tensor v = std::get<0>(at::linalg_qr(test::gaussian({batch, n, m}, 7 * round + 4)));
    const at::Tensor x = at::bmm(u * sigma.unsqueeze(1), v.transpose(1, 2)).to(at::kFloat);
    const RationalOutput output = orthogonalize_rational(x, schedule);
    CHECK_FALSE(output.failed.any().item<bool>());
    CHECK(at::isfinite(output.x).all().item<bool>());
    const double largest = at::linalg_matrix_norm(float64(output.x), 2).max().item<double>();
    CAPTURE(round, largest, report.max_output, report.rounding);
    CHECK(largest <= report.max_output + report.rounding);
  }
}

TEST_CASE("the rational iteration refuses what it cannot do", "[rational]") {
  const RationalStages schedule = zolotarev_stages({{2, 1e-3}});
  const at::Tensor x = at::ones({1, 3, 4});
  CHECK_THROWS_WITH(orthogonalize_rational(x[0][0], schedule),
                    test::contains("orthogonalize_rational: expected"));
  CHECK_THROWS_WITH(orthogonalize_rational(x.to(at::kInt), schedule),
                    test::contains("floating-point"));
  CHECK_THROWS_WITH(orthogonalize_rational(at::Tensor(), schedule), test::contains("undefined"));
  CHECK_THROWS_WITH(orthogonalize_rational(x, {}), test::contains("has no stages"));
  RationalOptions options;
  options.compute_dtype = at::kBFloat16;
  CHECK_THROWS_WITH(orthogonalize_rational(x, schedule, options),
                    test::contains("compute_dtype to be float32 or float64"));
  const at::Tensor followed = x.clone().requires_grad_();
  CHECK_THROWS_WITH(orthogonalize_rational(followed, schedule), test::contains("without autograd"));
}
