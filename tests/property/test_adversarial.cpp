// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Ten thousand spectra for every set of coefficients that passes validation, in every form, in
// float32 and bfloat16: no singular value comes out above 1.35, none is NaN. The spectra are made
// against the set: values at and between the critical points of the composed polynomial, of every
// rank, conditions up to 1e12. And bfloat16 on spectra that a step maps to where rounding is largest.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "support/devices.hpp"
#include "support/singular_values.hpp"
#include "support/spectra.hpp"

using namespace root_optim;
using test::largest_singular_value;

namespace {

struct Set {
  std::string name;
  Quintics schedule;
  Normalization normalization;
};

std::vector<Set> sets() {
  const auto floor = Normalization::FrobeniusFloor;
  std::vector<Set> all = {
      {"jordan", CoefficientSet::jordan().quintics(1, 1, 5), floor},
      {"you", CoefficientSet::you().quintics(1, 1, 5), floor},
      {"cubic", CoefficientSet::cubic().quintics(1, 1, 12), floor},
      {"polar_express(1.01)", CoefficientSet::polar_express(1.01).quintics(1, 1, 5), floor},
      {"polar_express(1.05)", CoefficientSet::polar_express(1.05).quintics(1, 1, 8), floor}};
  for (int64_t steps = min_default_steps; steps <= max_default_steps; ++steps) {
    for (const Precision precision : {Precision::Float32, Precision::BFloat16}) {
      all.push_back({std::string("default of ") +
                         (precision == Precision::Float32 ? "float32, " : "bfloat16, ") +
                         std::to_string(steps) + " steps",
                     shipped_quintics(steps, precision), Normalization::Schatten8});
    }
  }
  return all;
}

/// Local extrema of the composed polynomial on (0, 1], and points between them.
std::vector<double> critical_values(const Quintics& schedule) {
  std::vector<double> x, points;
  for (int i = 0; i <= 20000; ++i) x.push_back(std::pow(10.0, -6.0 * (1 - i / 20000.0)));
  for (size_t i = 1; i + 1 < x.size(); ++i) {
    const double left = evaluate(schedule, x[i - 1]), here = evaluate(schedule, x[i]),
                 right = evaluate(schedule, x[i + 1]);
    if ((here - left) * (right - here) <= 0) points.push_back(x[i]);
  }
  points.push_back(1);
  const size_t count = points.size();
  for (size_t i = 1; i < count; ++i) points.push_back(std::sqrt(points[i - 1] * points[i]));
  return points;
}

/// count × rank singular values whose norm is 1, so that the normalization leaves them in place.
at::Tensor spectra(const Set& set, int64_t count, int64_t rank, uint64_t seed) {
  const double p = set.normalization == Normalization::Schatten8 ? 8 : 2;
  const std::vector<double> critical = critical_values(set.schedule);
  std::mt19937_64 random(seed);
  const auto uniform = [&random] { return static_cast<double>(random() >> 11) * 0x1p-53; };
  at::Tensor sigma = at::zeros({count, rank}, at::kDouble);
  auto values = sigma.accessor<double, 2>();
  for (int64_t i = 0; i < count; ++i) {
    const auto used = 1 + static_cast<int64_t>(uniform() * static_cast<double>(rank));
    const double decades = 12 * uniform();
    double room = 1;
    for (int64_t j = 1; j < used; ++j) {
      double v = 0;
      switch (i % 4) {
        case 0:  // at and between the critical points
          v = critical[static_cast<size_t>(uniform() * static_cast<double>(critical.size()))];
          break;
        case 1:  // anywhere in the logarithm
          v = std::pow(10.0, -decades * uniform());
          break;
        case 2:  // near-equal values: the norm is far above the largest
          v = std::pow(static_cast<double>(used), -1 / p) * (1 + 1e-3 * uniform());
          break;
        default:  // two clusters
          v = uniform() < 0.5 ? std::pow(10.0, -decades) : 0.7 * uniform();
      }
      if (std::pow(v, p) > room) {
        v = std::pow(10.0, -decades * uniform() - 1e-3) * std::pow(room, 1 / p);
      }
      values[i][j] = v;
      room = std::max(0.0, room - std::pow(v, p));
    }
    values[i][0] = std::pow(room, 1 / p);
  }
  return sigma;
}

}  // namespace

// The first step sends one value near .85 almost to zero, and to lift it again later steps need its
// sign: bfloat16 must not have rounded it away. Where all singular values are of one size the norm is
// known, so the exact polynomial's error is.
TEST_CASE("bfloat16 loses no direction of a well-conditioned matrix", "[property][adversarial]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  if (!test::bfloat16_products_hold(device)) return;
  constexpr int64_t count = 500;
  OrthogonalizeOptions options;
  options.compute_dtype = at::kBFloat16;
  for (const int64_t rank : {1, 2, 3, 4, 5, 6, 8, 12, 16}) {
    for (const int64_t cols : {rank, int64_t{64}}) {
      const auto seed = static_cast<uint64_t>(100 * rank + cols);
      const at::Tensor left = std::get<0>(at::linalg_qr(test::gaussian({count, rank, rank}, seed)));
      const at::Tensor right =
          std::get<0>(at::linalg_qr(test::gaussian({count, cols, rank}, seed + 1))).transpose(1, 2);
      // All equal, or between the largest one and a half of it.
      const at::Tensor spread = at::linspace(0, 0.5, count, at::kDouble).reshape({count, 1});
      const at::Tensor sigma =
          1 - spread * test::gaussian({count, rank}, seed + 2).abs().clamp_max(1);
      const at::Tensor x = (left * sigma.unsqueeze(1)).matmul(right).to(device, at::kFloat);
      const at::Tensor polar = left.matmul(right);
      const at::Tensor normalized = sigma / at::linalg_vector_norm(sigma, 8, {1}, /*keepdim=*/true);
      for (int64_t steps = min_default_steps; steps <= max_default_steps; ++steps) {
        const Quintics schedule = shipped_quintics(steps);
        at::Tensor exact = normalized;
        for (const Quintic& p : schedule) {
          exact = exact * (p.a + exact.square() * (p.b + exact.square() * p.c));
        }
        const at::Tensor result = orthogonalize(x, schedule, options).to(at::kCPU, at::kDouble);
        const auto error = [&](const at::Tensor& difference, at::IntArrayRef dims) {
          return at::linalg_vector_norm(difference, 2, dims) / std::sqrt(static_cast<double>(rank));
        };
        const double added =
            (error(result - polar, {1, 2}) - error(exact - 1, {1})).max().item<double>();
        INFO(steps << " steps, " << rank << " x " << cols << " on " << device);
        // Measured at most .45, .08 and .03; with a floor of .02 in place of .04, 1.6.
        CHECK(added <= (steps == 3 ? 0.5 : steps == 4 ? 0.1 : 0.05));
      }
    }
  }
}

TEST_CASE("10,000 spectra against each set: no output above 1.35", "[property][adversarial]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  constexpr int64_t count = 2500;  // of each of four shapes
  const std::vector<std::pair<int64_t, int64_t>> shapes = {{2, 2}, {4, 4}, {8, 24}, {12, 12}};
  std::vector<std::pair<at::Tensor, at::Tensor>> bases;
  for (size_t s = 0; s < shapes.size(); ++s) {
    const auto [m, n] = shapes[s];
    bases.emplace_back(std::get<0>(at::linalg_qr(test::gaussian({count, m, m}, 201 + s))),
                       std::get<0>(at::linalg_qr(test::gaussian({count, n, m}, 211 + s))));
  }
  for (const Set& set : sets()) {
    for (size_t s = 0; s < shapes.size(); ++s) {
      const at::Tensor sigma = spectra(set, count, shapes[s].first, 221 + s);
      const at::Tensor x = (bases[s].first * sigma.unsqueeze(1))
                               .matmul(bases[s].second.transpose(1, 2))
                               .to(device, at::kFloat);
      INFO(set.name << ", " << shapes[s].first << " x " << shapes[s].second << " on " << device);
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        const Precision precision = dtype == at::kFloat ? Precision::Float32 : Precision::BFloat16;
        const auto limits = ValidationOptions::for_precision(precision, set.normalization);
        if (!validate_quintics(set.schedule, limits).valid) continue;
        if (dtype == at::kBFloat16 && !test::bfloat16_products_hold(device)) continue;
        for (const Form form : {Form::Direct, Form::Gram}) {
          OrthogonalizeOptions options;
          options.normalization = set.normalization;
          options.compute_dtype = dtype;
          options.form = form;
          INFO(dtype << (form == Form::Gram ? ", Gram" : ", direct"));
          CHECK(largest_singular_value(orthogonalize(x, set.schedule, options)) <= 1.35);
        }
      }
      // By blocks, as matrices of this size do not go by themselves.
      const at::Tensor start = root_optim::detail::scaled(x, set.normalization, 1e-7, at::kFloat);
      const auto runs = gram_runs(set.schedule, Precision::Float32);
      CHECK(largest_singular_value(root_optim::detail::iterate_direct(
                start.clone(), set.schedule, 3, set.normalization)) <= 1.35);
      CHECK(largest_singular_value(root_optim::detail::iterate_gram(
                start.clone(), set.schedule, runs, 3, set.normalization)) <= 1.35);
    }
  }
}
