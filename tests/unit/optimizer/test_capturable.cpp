// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The option `capturable`: rates and the number of steps live on the device, so that a replayed step sees what
// has changed since. tests/cuda/ captures one; here the tensors are written as a replay would find them.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <string>

#include "support/devices.hpp"
#include "support/meta_kernels.hpp"
#include "support/optimizer_state.hpp"
#include "support/saved.hpp"
#include "support/training.hpp"

using namespace root_optim;
using test::contains;
using test::on;
using test::parameter;
using test::state_of;

namespace {

using Tensors = std::vector<at::Tensor>;

/// Matrices, a vector for the fused kernel and a transposed tensor for the plain one.
Tensors parameters_in(at::TensorOptions where) {
  return {parameter({16, 24}, 1, where), parameter({16, 24}, 2, where), parameter({24}, 3, where),
          parameter(test::gaussian({4, 6}, 4).to(where).t()), parameter({}, 5, where)};
}

/// Largest difference between parameters, as a share of their largest entry.
double difference(const Tensors& a, const Tensors& b) {
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const at::Tensor x = a[i].detach().to(at::kDouble), y = b[i].detach().to(at::kDouble);
    REQUIRE(x.isfinite().all().item<bool>());
    worst = std::max(worst, (x - y).abs().max().item<double>() / y.abs().max().item<double>());
  }
  return worst;
}

bool same_bits(const Tensors& a, const Tensors& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (!a[i].equal(b[i])) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("a capturable step is the step up to rounding", "[capturable]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat, at::kBFloat16);
  const auto where = on(device, dtype);
  const Tensors a = parameters_in(where), b = parameters_in(where);
  const auto options = RootOptions(0.05).weight_decay(0.3).update_beta(0.9);
  CHECK_FALSE(options.capturable());
  Root plain(a, options), captured(b, RootOptions(options).capturable(true));
  LrScheduler of_plain(plain, LrSchedule::cosine(8).warmup(2));
  LrScheduler of_captured(captured, LrSchedule::cosine(8).warmup(2));
  for (int64_t t = 0; t < 6; ++t) {
    for (const Tensors& parameters : {a, b}) {
      for (const at::Tensor& p : parameters) {
        test::set_gradient(p, test::gradient_of(p.sizes(), t));
        if (t == 3) p.mutable_grad().view({-1})[0].fill_(std::nan(""));  // skipped
        if (p.dim() == 0) break;
      }
    }
    plain.step();
    captured.step();
    of_plain.step();
    of_captured.step();
  }
  // The same products, which a device may round otherwise. Measured on a CPU after six steps: 7.9e-18, 0 and 0.
  INFO(difference(b, a));
  CHECK(difference(b, a) <= (dtype == at::kDouble ? 1e-13 : dtype == at::kFloat ? 1e-5 : 0.01));
  CHECK_FALSE(same_bits(a, parameters_in(where)));
  for (size_t i = 0; i < a.size(); ++i) {
    CHECK(state_of(captured, b[i]).counted_steps() == 6);
    CHECK(state_of(captured, b[i]).step() == 0);
    CHECK(state_of(captured, b[i]).skipped().equal(state_of(plain, a[i]).skipped()));
  }
}

TEST_CASE("a capturable step reads its rates and its count from the device", "[capturable]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const Tensors a = parameters_in(on(device, at::kFloat));
  Root root(a, RootOptions(0.05).capturable(true));
  test::train(root, a, 0, 2);
  const DeviceRates rates = root.options(0).rates_on(device);
  CHECK(rates.lr.item<double>() == 0.05);
  CHECK(rates.weight_decay.item<double>() == 0.1);

  // As a kernel of a graph would: the host does not know, and does not write over it.
  rates.lr.fill_(0);
  Tensors before;
  for (const at::Tensor& p : a) before.push_back(p.detach().clone());
  test::train(root, a, 2, 3);
  CHECK(same_bits(a, before));
  CHECK(rates.lr.item<double>() == 0);

  // Whatever sets the learning rate writes the same tensors.
  root.param_groups()[0].options().set_lr(0.25);
  CHECK(rates.lr.item<double>() == 0.25);
  root.options(0).lr(0.5).weight_decay(0.75);
  CHECK(rates.lr.item<double>() == 0.5);
  CHECK(rates.weight_decay.item<double>() == 0.75);
  CHECK(root.options(0).rates_on(device).lr.is_same(rates.lr));
  RootOptions copy = root.options(0);  // a group of its own, perhaps
  copy.lr(1);
  CHECK(rates.lr.item<double>() == 0.5);
  root.options(0).lr() = 0.125;  // by reference: with the next step
  test::train(root, a, 3, 4);
  CHECK(rates.lr.item<double>() == 0.125);

  // Replays count on the device alone.
  for (const at::Tensor& p : a) state_of(root, p).device_step().fill_(100);
  test::train(root, a, 4, 5);
  const ParamState& of_vector = state_of(root, a[2]);
  CHECK(of_vector.counted_steps() == 101);
  CHECK(of_vector.step() == 0);
}

TEST_CASE("AdamW's bias correction follows the count of the device", "[capturable]") {
  // Both ways: a contiguous float32 tensor (fused), and a transposed one (plain).
  const at::Device device = GENERATE(from_range(test::devices()));
  for (const bool transposed : {false, true}) {
    const auto make = [&] {
      const at::Tensor value = test::gaussian({4, 6}, 1).to(on(device, at::kFloat));
      return parameter(transposed ? value.t() : value);
    };
    const at::Tensor a = make(), b = make();
    const auto options = RootOptions(0.1).rule(Rule::AdamW);
    Root captured({a}, RootOptions(options).capturable(true)), plain({b}, options);
    test::train(captured, {a}, 0, 1);
    test::train(plain, {b}, 0, 1);
    static_cast<ParamState&>(*captured.state().begin()->second).device_step().fill_(50);
    static_cast<ParamState&>(*plain.state().begin()->second).step(50);
    test::train(captured, {a}, 1, 2);
    test::train(plain, {b}, 1, 2);
    CHECK(difference({a}, {b}) <= 1e-6);
  }
}

TEST_CASE("a capturable optimizer saves what the device has counted", "[capturable]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const auto where = on(device, at::kFloat);
  const Tensors a = parameters_in(where), b = parameters_in(where), c = parameters_in(where);
  const auto options = RootOptions(0.05);
  Root saved(a, RootOptions(options).capturable(true)),
      captured(b, RootOptions(options).capturable(true)), plain(c, options);
  test::train(saved, a, 0, 3);
  const std::string content = test::saved(saved);
  test::load_from(captured, content);
  test::load_from(plain, content);
  CHECK(captured.options(0).capturable());  // belongs to the program
  CHECK_FALSE(plain.options(0).capturable());
  for (const at::Tensor& p : c) CHECK(state_of(plain, p).step() == 3);
  for (size_t i = 0; i < a.size(); ++i) {
    b[i].data().copy_(a[i]);
    c[i].data().copy_(a[i]);
  }
  test::train(saved, a, 3, 5);
  test::train(captured, b, 3, 5);
  test::train(plain, c, 3, 5);
  CHECK(same_bits(a, b));
  CHECK(difference(c, a) <= 1e-5);
  CHECK(state_of(captured, b[0]) == state_of(saved, a[0]));

  // Switched off, the count comes back to the host; switched on, it goes to the device.
  captured.options(0).capturable(false);
  plain.options(0).capturable(true);
  test::train(captured, b, 5, 6);
  test::train(plain, c, 5, 6);
  CHECK(state_of(captured, b[0]).step() == 6);
  CHECK_FALSE(state_of(captured, b[0]).device_step().defined());
  CHECK(state_of(plain, c[0]).counted_steps() == 6);
  CHECK(difference(c, b) <= 1e-5);
}

TEST_CASE("a capturable step reads nothing back and makes no state after the first",
          "[capturable]") {
  auto devices = test::devices();
  devices.emplace_back(at::kMeta);
  const at::Device device = GENERATE_COPY(from_range(devices));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat, at::kBFloat16);
  const auto where = on(device, dtype);
  for (const auto& options :
       {RootOptions(), RootOptions().rule(Rule::AdamW), RootOptions().update_beta(0.9),
        RootOptions().master_weights(true), RootOptions().rule(Rule::AdamW).master_weights(true),
        RootOptions().non_finite(NonFinite::Zero), RootOptions().non_finite(NonFinite::SkipGroup),
        RootOptions().non_finite(NonFinite::Propagate)}) {
    Tensors parameters;
    for (const std::vector<int64_t>& shape :
         std::vector<std::vector<int64_t>>{{16, 24}, {24, 16}, {16, 8, 3, 3}, {24}, {2, 2}}) {
      parameters.push_back(at::empty(shape, where).requires_grad_(true));
      parameters.back().mutable_grad() = at::zeros_like(parameters.back());
    }
    Root root(parameters, RootOptions(options).capturable(true));
    root.step();
    root.step();  // warm-up
    // Of the tensors that a graph reads: its state, the count, the rates.
    const auto addresses = [&] {
      std::vector<const void*> all;
      for (const at::Tensor& p : parameters) {
        const ParamState& state = state_of(root, p);
        for (const ParamState::Slot& slot : ParamState::slot_list()) {
          all.push_back((state.*slot.tensor).unsafeGetTensorImpl());
        }
        all.push_back(state.device_step().unsafeGetTensorImpl());
      }
      const DeviceRates rates = root.options(0).rates_on(device);
      all.push_back(rates.lr.unsafeGetTensorImpl());
      all.push_back(rates.weight_decay.unsafeGetTensorImpl());
      return all;
    };
    const auto before = addresses();
    test::OperatorRecorder recorder;
    root.step();
    for (const std::string& name : recorder.names()) {
      INFO(name);
      CHECK(test::synchronizing_operators().count(name) == 0);
    }
    CHECK(addresses() == before);
    if (device == at::kMeta) CHECK((recorder.on_cpu() == std::set<std::string>{}));
  }
}

TEST_CASE("what cannot be captured says so", "[capturable]") {
  const Tensors a = parameters_in(at::kFloat);
  CHECK_THROWS_WITH(Root(a, RootOptions().capturable(true).non_finite(NonFinite::Raise)),
                    contains("expected non_finite other than Raise"));
  using Exact = OrthogonalizedOptimizer<NoFilter, ExactPolar>;
  CHECK_THROWS_WITH(Exact(a, Exact::Options().capturable(true)),
                    contains("expected policies that do not wait for the device"));
}

TEST_CASE("rates on the device are checked for what they are", "[capturable]") {
  const at::Tensor x = at::ones({2, 3}), value = at::empty({2, 3});
  const at::Tensor good = at::full({}, 0.5, at::kDouble);
  CHECK_NOTHROW(update_parameter(value, x, x, DeviceRates{good, good}, 2.0));
  CHECK(value.allclose(at::full({2, 3}, 1 - 0.25 - 1.0)));
  for (const at::Tensor& bad : {at::Tensor(), at::ones({1}, at::kDouble), at::ones({}, at::kFloat),
                                at::ones({}, on(at::kMeta, at::kDouble))}) {
    CHECK_THROWS_AS(update_parameter(value, x, x, DeviceRates{good, bad}, 2.0), c10::Error);
    CHECK_THROWS_AS(
        adamw_step(x, x, x, x, at::ones({}), {0.1, 0.9, 0.99, 1e-8, 0.1}, DeviceRates{bad, good}),
        c10::Error);
  }
}
