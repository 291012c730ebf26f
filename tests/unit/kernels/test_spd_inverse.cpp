// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The inverse of R + cI against linalg_solve in float64: every method, size and pole, and what fails.
#include "support/catch_torch.hpp"

#include <root_optim/kernels/spd_inverse.hpp>
#include <root_optim/kernels/symmetric_product.hpp>

#include <cmath>
#include <limits>
#include <vector>

#include "support/spectra.hpp"

using root_optim::add_spd_inverse;

namespace {

struct Inverse {
  at::Tensor x, failed;
};

/// weight · (R + cI)⁻¹ by the library.
Inverse inverse_of(const at::Tensor& r, double c, bool refine = true, double weight = 1) {
  const at::Tensor sum = at::zeros(r.sizes(), r.options());
  const at::Tensor failed = at::zeros({r.size(0)}, at::kBool);
  add_spd_inverse(sum, r, c, weight, refine, failed);
  root_optim::detail::mirror_upper(sum);
  return {sum, failed};
}

at::Tensor reference(const at::Tensor& r, double c) {
  const at::Tensor one = at::eye(r.size(1), at::kDouble).expand_as(r);
  return at::linalg_solve(r.to(at::kDouble) + c * one, one);
}

double relative_error(const at::Tensor& actual, const at::Tensor& expected) {
  return ((actual.to(at::kDouble) - expected).norm() / expected.norm()).item<double>();
}

/// XXᵀ of Gaussian matrices with a largest eigenvalue near 1.
at::Tensor gaussian_grams(int64_t k, int64_t m, at::ScalarType dtype) {
  const at::Tensor x = test::gaussian({k, m, m}, static_cast<uint64_t>(m)) / (2 * std::sqrt(m));
  return at::bmm(x, x.transpose(1, 2)).to(dtype);
}

/// Singular values, the largest 1, that momentum has at its worst: deep, clustered, rank-deficient, flat.
std::vector<at::Tensor> hostile_sigmas(int64_t m) {
  std::vector<at::Tensor> sigmas;
  for (const double depth : {2.0, 3.0, 4.0, 6.0, 10.0}) {
    sigmas.push_back(at::pow(10.0, at::linspace(0, -depth, m, at::kDouble)));
  }
  for (const double low : {0.0, 1e-4, 1e-3, 1e-2}) {
    for (const int64_t large : {int64_t{1}, m / 8, m / 2}) {
      at::Tensor sigma = at::full({m}, low, at::kDouble);
      sigma.narrow(0, 0, large).fill_(1);
      sigmas.push_back(sigma);
    }
  }
  sigmas.push_back(at::ones({m}, at::kDouble));
  return sigmas;
}

}  // namespace

TEST_CASE("the inverse is that of linalg_solve for every size", "[spd_inverse]") {
  const bool refine = GENERATE(true, false);
  const at::ScalarType dtype = GENERATE(at::kFloat, at::kDouble);
  // Condition 100 and less, a few hundred 2^-24; measured 1.4e-6, and 9e-15 in float64.
  const double bound = dtype == at::kFloat ? 4e-6 : 2e-14;
  for (const auto& [k, m] : std::vector<std::pair<int64_t, int64_t>>{{1, 1},
                                                                     {2, 3},
                                                                     {3, 4},
                                                                     {1, 17},
                                                                     {5, 33},
                                                                     {2, 63},
                                                                     {3, 64},
                                                                     {1, 65},
                                                                     {2, 100},
                                                                     {1, 128},
                                                                     {3, 129},
                                                                     {2, 200},
                                                                     {1, 256},
                                                                     {2, 257},
                                                                     {1, 500},
                                                                     {1, 512},
                                                                     {2, 640}}) {
    CAPTURE(k, m);
    const at::Tensor r = gaussian_grams(k, m, dtype);
    const Inverse inverse = inverse_of(r, 0.01, refine, 0.5);
    CHECK_FALSE(inverse.failed.any().item<bool>());
    CHECK(relative_error(inverse.x, 0.5 * reference(r, 0.01)) < bound);
    CHECK(at::equal(inverse.x, inverse.x.transpose(1, 2)));
  }
}

TEST_CASE("inverses add up, and only the upper triangle of R is read", "[spd_inverse]") {
  const at::Tensor r = gaussian_grams(2, 150, at::kFloat);
  at::Tensor upper = r.clone();
  upper.add_(at::tril(at::full_like(r, 7), -1));
  const at::Tensor sum = at::zeros_like(r);
  const at::Tensor failed = at::zeros({2}, at::kBool);
  add_spd_inverse(sum, upper, 0.1, 2, false, failed);
  add_spd_inverse(sum, upper, 0.01, 3, true, failed);
  root_optim::detail::mirror_upper(sum);
  CHECK(relative_error(sum, 2 * reference(r, 0.1) + 3 * reference(r, 0.01)) < 3e-6);
}

TEST_CASE("the inverse does not depend on the number of threads", "[spd_inverse]") {
  const bool refine = GENERATE(true, false);
  const at::Tensor r = gaussian_grams(2, 300, at::kFloat);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = inverse_of(r, 1e-3, refine).x;
  at::set_num_threads(3);
  const at::Tensor three = inverse_of(r, 1e-3, refine).x;
  at::set_num_threads(threads);
  CHECK(at::equal(one, three));
}

TEST_CASE("every pole keeps its accuracy on hostile spectra", "[spd_inverse]") {
  // Of √c (R + cI)⁻¹X. An error δR of R itself makes at most ‖δR‖/(2c), and a float32 sum of 300 products has up to
  // four roundings of 2^-24 in ‖δR‖: 1.2e-7/c. Thrice as much unrefined down to 1e-4. Measured: 8.0e-8/c with MKL on an
  // Intel Xeon (100 × 300, at 1e-4); with the OpenBLAS of LibTorch 1.13.1 8.0e-3 at 1e-5 and 5.5e-2 at 2e-6.
  struct Row {
    bool refine;
    double pole, bound;
  };
  const Row rows[] = {{false, 1e-1, 2.4e-6}, {false, 1e-2, 2.4e-5}, {false, 1e-3, 2.4e-4},
                      {false, 1e-4, 2.4e-3}, {true, 1e-3, 1.2e-4},  {true, 1e-4, 1.2e-3},
                      {true, 1e-5, 1.2e-2},  {true, 2e-6, 6e-2}};
  for (const auto& [m, n] :
       std::vector<std::pair<int64_t, int64_t>>{{64, 64}, {100, 300}, {192, 192}}) {
    const std::vector<at::Tensor> sigmas = hostile_sigmas(m);
    for (size_t i = 0; i < sigmas.size(); ++i) {
      const at::Tensor x =
          test::with_singular_values(m, n, sigmas[i], 17 * i).to(at::kFloat).unsqueeze(0);
      const at::Tensor wide = x.to(at::kDouble);
      const at::Tensor r = at::bmm(x, x.transpose(1, 2)),
                       exact = at::bmm(wide, wide.transpose(1, 2));
      for (const Row& row : rows) {
        CAPTURE(m, n, i, row.pole);
        const Inverse inverse = inverse_of(r, row.pole, row.refine);
        CHECK_FALSE(inverse.failed.item<bool>());
        const at::Tensor error = at::bmm(inverse.x, x).to(at::kDouble) -
                                 at::linalg_solve(exact + row.pole * at::eye(m, at::kDouble), wide);
        CHECK(std::sqrt(row.pole) * at::linalg_matrix_norm(error[0], 2).item<double>() < row.bound);
      }
    }
  }
}

TEST_CASE("a matrix without a factor is reported, and the others are untouched", "[spd_inverse]") {
  const bool refine = GENERATE(true, false);
  const double bad = GENERATE(-1.0, std::numeric_limits<double>::quiet_NaN(),
                              std::numeric_limits<double>::infinity());
  // In the first leaf, inside the recursion, in the last leaf.
  const int64_t place = GENERATE(0, 5, 64, 130, 199);
  const at::Tensor r = gaussian_grams(3, 200, at::kFloat);
  const Inverse whole = inverse_of(r, 0.01, refine);
  r[1][place][place] = bad;
  const Inverse inverse = inverse_of(r, 0.01, refine);
  CHECK(inverse.failed[1].item<bool>());
  for (const int64_t i : {0, 2}) {
    CHECK_FALSE(inverse.failed[i].item<bool>());
    CHECK(at::equal(inverse.x[i], whole.x[i]));
  }
  // What was flagged stays flagged.
  const at::Tensor sum = at::zeros_like(r);
  add_spd_inverse(sum, gaussian_grams(3, 200, at::kFloat), 0.01, 1, refine, inverse.failed);
  CHECK(inverse.failed[1].item<bool>());
}

TEST_CASE("rounding below the pole is no failure", "[spd_inverse]") {
  // Rank one plus noise of the size that rounding leaves in a Gram matrix: eigenvalues down to -3e-7.
  const int64_t m = 160;
  const at::Tensor v = at::ones({m, 1}, at::kDouble) / std::sqrt(static_cast<double>(m));
  at::Tensor noise = test::gaussian({m, m}, 5) * 1e-8;
  noise = noise + noise.t();
  const at::Tensor r = (v.matmul(v.t()) + noise).to(at::kFloat).unsqueeze(0);
  const Inverse inverse = inverse_of(r, 1e-6);
  CHECK_FALSE(inverse.failed.item<bool>());
  CHECK(at::isfinite(inverse.x).all().item<bool>());
}

TEST_CASE("LibTorch's factorization, for other devices, gives the same", "[spd_inverse]") {
  const at::Tensor r = gaussian_grams(2, 70, at::kDouble);
  r[1][40][40] = -5;
  const at::Tensor sum = at::zeros_like(r), failed = at::zeros({2}, at::kBool);
  root_optim::detail::add_inverse_by_libtorch(sum, r, 0.01, 2, failed, nullptr);
  CHECK(relative_error(sum[0], 2 * reference(r, 0.01)[0]) < 1e-12);
  CHECK_FALSE(failed[0].item<bool>());
  CHECK(failed[1].item<bool>());
  CHECK(at::isfinite(sum[1]).all().item<bool>());
}

TEST_CASE("a leaf is the inverse of the Cholesky factor", "[spd_inverse]") {
  for (int64_t n = 1; n <= 64; ++n) {
    const at::Tensor r = gaussian_grams(1, n, at::kDouble)[0] + 0.01 * at::eye(n, at::kDouble);
    at::Tensor w = at::full({n, n + 3}, 9, at::kDouble);
    w.narrow(1, 0, n).copy_(at::tril(r));
    const at::Tensor factor = at::full({n, n + 1}, 9, at::kDouble);
    REQUIRE(root_optim::detail::factor_leaf(w.data_ptr<double>(), n + 3, n, 0.01,
                                            factor.data_ptr<double>(), n + 1));
    CHECK(factor.select(1, n).eq(9).all().item<bool>());
    const at::Tensor exact = at::linalg_cholesky(r);
    const at::Tensor product = w.narrow(1, 0, n).matmul(exact);
    CHECK((factor.narrow(1, 0, n) - exact).abs().max().item<double>() < 1e-14);
    CHECK((product - at::eye(n, at::kDouble)).abs().max().item<double>() < 1e-13);
    CHECK(at::triu(w.narrow(1, 0, n), 1).eq(0).all().item<bool>());
    CHECK(w.narrow(1, n, 3).eq(9).all().item<bool>());
  }
}
