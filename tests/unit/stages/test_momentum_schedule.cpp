// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A momentum that rises over the first steps: the stage alone, and the options of it in the optimizer.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <algorithm>  // min
#include <limits>

#include "support/devices.hpp"
#include "support/meta_kernels.hpp"
#include "support/optimizer_state.hpp"
#include "support/saved.hpp"
#include "support/spectra.hpp"
#include "support/tolerances.hpp"
#include "support/training.hpp"

using namespace root_optim;
using test::on;
using test::parameter;
using test::state_of;

namespace {

using Tensors = std::vector<at::Tensor>;

/// Two matrices of one shape, one of another, and a vector.
Tensors list(at::TensorOptions where = at::kFloat) {
  return {parameter({16, 24}, 1, where), parameter({16, 24}, 2, where),
          parameter({24, 8, 3}, 3, where), parameter({24}, 4, where)};
}

RootOptions rising() {
  return RootOptions(0.05).momentum(0.95).momentum_start(0.5).momentum_warmup(6);
}

}  // namespace

TEST_CASE("the momentum rises from its start to its end, and stays", "[momentum]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::Tensor taken = at::tensor({1, 2, 4, 5, 1000}, at::kLong).to(device);
  const at::Tensor mu = momentum_after(taken, 0.5, 0.75, 4);
  CHECK_THAT(mu,
             test::same_as(at::tensor({0.5625, 0.625, 0.75, 0.75, 0.75}, at::kDouble).to(device)));
  CHECK(momentum_after(taken, 0.75, 0.5, 4)[0].item<double>() == 0.6875);  // it may fall, too
  CHECK_THROWS_WITH(
      momentum_after(taken, 1, 0.5, 4),
      test::contains("root_optim::momentum_after: expected momenta in [0, 1), got 1"));
  CHECK_THROWS_WITH(momentum_after(taken, 0, 0.5, 0), test::contains("expected warmup > 0, got 0"));
}

TEST_CASE("a momentum for each part is what one for all is", "[momentum]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  const auto form = GENERATE(MomentumForm::Sum, MomentumForm::Ema);
  const bool nesterov = GENERATE(true, false);
  const at::Tensor buffer = test::gaussian({3, 5, 7}, 1).to(on(device, dtype));
  const at::Tensor gradient = test::gaussian({3, 5, 7}, 2).to(on(device, dtype));
  const std::vector<double> mu{0, 0.5, 0.95};
  const Momentum all = accumulate_momentum(buffer, gradient,
                                           at::tensor(mu, on(device, at::kDouble)), form, nesterov);
  for (int64_t i = 0; i < 3; ++i) {
    const Momentum one =
        accumulate_momentum(buffer[i], gradient[i], mu[static_cast<size_t>(i)], form, nesterov);
    const auto bound = test::tolerance(test::Quantity::Momentum, dtype);
    CHECK_THAT(all.buffer[i], test::close_to(one.buffer, bound));
    CHECK_THAT(all.update[i], test::close_to(one.update, bound));
  }
  CHECK_THROWS_WITH(accumulate_momentum(buffer, gradient, at::zeros({2}), form, nesterov),
                    test::contains("expected a momentum for each part of [3, 5, 7], got [2]"));
}

TEST_CASE("a step has the momentum of the steps taken", "[momentum]") {
  const auto form = GENERATE(MomentumForm::Sum, MomentumForm::Ema);
  // The same by hand: a constant momentum, set anew before each step.
  const Tensors ours = list(at::kDouble), by_hand = list(at::kDouble);
  Root risen(ours, rising().momentum_form(form)),
      constant(by_hand, RootOptions(0.05).momentum_form(form));
  for (int64_t t = 1; t <= 9; ++t) {
    const double mu = 0.5 + (0.95 - 0.5) * static_cast<double>((std::min)(t, int64_t{6})) / 6;
    constant.options(0).momentum(mu);
    test::train(risen, ours, t - 1, t);
    test::train(constant, by_hand, t - 1, t);
    for (size_t i = 0; i < ours.size(); ++i) {
      INFO("step " << t << ", parameter " << i);
      CHECK_THAT(ours[i],
                 test::close_to(by_hand[i],
                                test::tolerance(test::Quantity::StepVsReference, at::kDouble)));
    }
  }
}

TEST_CASE("a skipped step does not raise the momentum", "[momentum][non_finite]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const size_t culprit = GENERATE(size_t{0}, size_t{1}, size_t{2});
  const Tensors ours = list(on(device, at::kFloat)), twins = list(on(device, at::kFloat));
  Root root(ours, rising()), twin(twins, rising());
  for (int64_t t = 1; t <= 8; ++t) {
    for (const Tensors& each : {ours, twins}) {
      for (const at::Tensor& p : each) test::set_gradient(p, test::gradient_of(p.sizes(), t));
    }
    if (t % 3 == 1) {  // the first step, too
      ours[culprit].mutable_grad().view({-1})[7] = std::numeric_limits<float>::quiet_NaN();
      twins[culprit].mutable_grad() = at::Tensor();  // the twin never sees that step
    }
    root.step();
    twin.step();
    for (size_t i = 0; i < ours.size(); ++i) {
      INFO("step " << t << ", parameter " << i);
      CHECK_THAT(ours[i], test::same_as(twins[i]));
    }
  }
  CHECK(state_of(root, ours[culprit]).skipped().item<int64_t>() == 3);
}

TEST_CASE("members of a batch rise by their own steps", "[momentum]") {
  // One gets its first gradient when the other's momentum has risen already.
  const Tensors ours = list(), apart = list();
  Root together(ours, rising()), single(apart, rising().batch_bytes(0));
  for (int64_t t = 1; t <= 8; ++t) {
    for (const Tensors& each : {ours, apart}) {
      for (const at::Tensor& p : each) test::set_gradient(p, test::gradient_of(p.sizes(), t));
      if (t < 4) each[1].mutable_grad() = at::Tensor();
    }
    together.step();
    single.step();
  }
  for (size_t i = 0; i < ours.size(); ++i) {
    INFO("parameter " << i);
    CHECK(relative_error(ours[i], apart[i]) < 1e-4);  // batched products round otherwise
  }
}

TEST_CASE("a rising momentum goes on where a checkpoint left it, bit by bit",
          "[momentum][checkpoint]") {
  const Tensors a = list(), b = list();
  Root through(a, rising()), resumed(b);
  {
    Root first(b, rising());
    test::train(first, b, 0, 3);
    test::load_from(resumed, test::saved(first));
  }
  CHECK(resumed.options(0).momentum_warmup() == 6);
  CHECK(resumed.options(0).momentum_start() == 0.5);
  test::train(through, a, 0, 8);
  test::train(resumed, b, 3, 8);
  for (size_t i = 0; i < a.size(); ++i) CHECK_THAT(b[i], test::same_as(a[i]));
}

TEST_CASE("the matrices of the coming step have its momentum", "[momentum][diagnostics]") {
  const Tensors ours = list(at::kDouble);
  Root root(ours, rising().filter_place(FilterPlace::Momentum).filter(SoftThreshold().quantile(1)));
  test::train(root, ours, 0, 2);
  for (const at::Tensor& p : ours) test::set_gradient(p, test::gradient_of(p.sizes(), 3));
  const double mu = 0.5 + 0.45 * 3 / 6;
  const at::Tensor gradient = ours[0].grad(), m = state_of(root, ours[0]).momentum_buffer();
  const NextMatrix next = next_matrices(root, 0, 0).front();
  CHECK(relative_error(next.unsplit[0], gradient + mu * (mu * m + gradient)) < 1e-14);
}

TEST_CASE("options of a rising momentum have ranges, and are off", "[momentum][options]") {
  CHECK(RootOptions().momentum_warmup() == 0);
  CHECK(RootOptions().momentum_start() == 0.85);
  CHECK(MuonOptions().momentum_warmup() == 0);
  CHECK_THROWS_WITH(RootOptions().momentum_warmup(-1).validate(),
                    test::contains("expected momentum_warmup >= 0, got -1"));
  CHECK_THROWS_WITH(RootOptions().momentum_start(1).validate(),
                    test::contains("expected 0 <= momentum_start < 1, got 1"));
  CHECK(RootOptions().momentum_warmup(3) != RootOptions());
  CHECK(RootOptions::from_fields(rising().fields()) == rising());
}
