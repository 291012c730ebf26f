// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The first and the last stage of a step, as free functions: momentum, scale by shape, decay and
// update.
#include "support/catch_torch.hpp"

#include <root_optim/stages.hpp>

#include "support/devices.hpp"
#include "support/spectra.hpp"
#include "support/tolerances.hpp"

using root_optim::accumulate_momentum;
using root_optim::lr_scale;
using root_optim::LrScale;
using root_optim::MomentumForm;
using test::on;
using test::Quantity;
using test::tolerance;

TEST_CASE("momentum by hand", "[momentum]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::Tensor buffer = at::full({1}, 8.0, on(device, at::kDouble));
  const at::Tensor gradient = at::full({1}, 4.0, on(device, at::kDouble));
  const auto check = [&](MomentumForm form, bool nesterov, double expected_buffer,
                         double expected_update) {
    const auto [next, update] = accumulate_momentum(buffer, gradient, 0.75, form, nesterov);
    CHECK(next.item<double>() == expected_buffer);
    CHECK(update.item<double>() == expected_update);
  };
  check(MomentumForm::Sum, false, 0.75 * 8 + 4, 10);
  check(MomentumForm::Sum, true, 10, 4 + 0.75 * 10);
  check(MomentumForm::Ema, false, 0.75 * 8 + 0.25 * 4, 7);
  check(MomentumForm::Ema, true, 7, 0.25 * 4 + 0.75 * 7);
  // Arguments are not written.
  CHECK(buffer.item<double>() == 8);
  CHECK(gradient.item<double>() == 4);
}

TEST_CASE("momentum and update name what they cannot take", "[momentum][errors]") {
  const at::Tensor buffer = at::zeros({3, 4}), gradient = at::ones({3, 4});
  const auto sum = [&](const at::Tensor& b, const at::Tensor& g, double mu) {
    return accumulate_momentum(b, g, mu, MomentumForm::Sum, true);
  };
  CHECK_THROWS_WITH(sum(buffer, at::ones({4}), 0.9),
                    test::contains("root_optim::accumulate_momentum: expected a gradient [3, 4] of "
                                   "dtype Float, as the buffer, got [4] of dtype Float"));
  CHECK_THROWS_WITH(sum(buffer, gradient.to(at::kDouble), 0.9),
                    test::contains("got [3, 4] of dtype Double"));
  CHECK_THROWS_WITH(sum(buffer, gradient, 1), test::contains("expected 0 <= momentum < 1, got 1"));
  CHECK_THROWS_WITH(accumulate_momentum(buffer, gradient, 0.9, static_cast<MomentumForm>(5), true),
                    test::contains("expected form to be an enumerator of its type, got 5"));
  CHECK_THROWS_WITH(sum(buffer, at::ones({3, 4}).set_requires_grad(true), 0.9),
                    test::contains("expected a tensor without autograd"));
  CHECK_THROWS_WITH(root_optim::update_parameter(buffer, gradient, at::ones({4}), 1, 1, 0),
                    test::contains("expected a parameter and a direction [3, 4], as the value, got "
                                   "[3, 4] and [4]"));
  CHECK_THROWS_WITH(
      root_optim::update_parameter(buffer, gradient.to(at::kDouble), gradient, 1, 1, 0),
      test::contains("expected a parameter of dtype Float, as the value, got Double"));
}

TEST_CASE("sum and EMA momentum differ by 1 - mu only", "[momentum]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  const bool nesterov = GENERATE(true, false);
  const double mu = 0.95;
  at::Tensor sum = at::zeros({7, 9}, on(device, dtype));
  at::Tensor ema = at::zeros({7, 9}, on(device, dtype));
  for (uint64_t t = 0; t < 30; ++t) {
    const at::Tensor gradient = test::gaussian({7, 9}, 100 + t).to(on(device, dtype));
    const auto by_sum = accumulate_momentum(sum, gradient, mu, MomentumForm::Sum, nesterov);
    const auto by_ema = accumulate_momentum(ema, gradient, mu, MomentumForm::Ema, nesterov);
    sum = by_sum.buffer;
    ema = by_ema.buffer;
    CHECK_THAT(by_ema.update,
               test::close_to(by_sum.update.mul(1 - mu), tolerance(Quantity::Momentum, dtype)));
    CHECK_THAT(ema, test::close_to(sum.mul(1 - mu), tolerance(Quantity::Momentum, dtype)));
  }
}

TEST_CASE("the scale of a matrix shape", "[update]") {
  const auto is = [](double expected) { return Catch::Matchers::WithinRel(expected, 1e-15); };
  CHECK_THAT(lr_scale(LrScale::MatchRmsAdamW, 100, 400), is(0.2 * 20));
  CHECK_THAT(lr_scale(LrScale::MatchRmsAdamW, 400, 100), is(0.2 * 20));
  CHECK_THAT(lr_scale(LrScale::Original, 100, 400), is(1));
  CHECK_THAT(lr_scale(LrScale::Original, 400, 100), is(2));
  CHECK_THAT(lr_scale(LrScale::Spectral, 100, 400), is(0.5));
  CHECK_THAT(lr_scale(LrScale::Spectral, 400, 100), is(2));
  CHECK_THAT(lr_scale(LrScale::Unscaled, 100, 400), is(1));
  CHECK_THROWS_WITH(lr_scale(LrScale::Unscaled, 0, 4),
                    test::contains("expected rows and cols >= 1, got 0 and 4"));
}

TEST_CASE("weight decay is applied once, with the unscaled learning rate", "[update]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::Tensor parameter = at::full({1}, 2.0, on(device, at::kDouble));
  const at::Tensor value = at::empty_like(parameter);
  root_optim::update_parameter(value, parameter, at::full({1}, 3.0, on(device, at::kDouble)), 0.25,
                               4, 0.5);
  CHECK(value.item<double>() == (1 - 0.25 * 0.5) * 2 - 0.25 * 4 * 3);
  CHECK(parameter.item<double>() == 2);
}
