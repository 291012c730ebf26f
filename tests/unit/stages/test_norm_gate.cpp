// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The gate for whole steps: the stage alone, and its state in the optimizer.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <cmath>
#include <limits>
#include <sstream>

#include "support/devices.hpp"
#include "support/spectra.hpp"
#include "support/tolerances.hpp"
#include "support/training.hpp"

using namespace root_optim;
using test::on;
using test::parameter;

namespace {

using Tensors = std::vector<at::Tensor>;
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// The weights of steps of these norms, and what is left of the gate.
struct Gate {
  explicit Gate(at::Device device, double threshold = 1.4, int64_t most = 1)
      : state(GateState::begin(device)), kappa(threshold), run(most) {}

  double operator()(double norm) {
    const GatedStep step =
        norm_gate(at::full({}, norm, on(state.norms.device(), at::kDouble)), state, kappa, run);
    state = step.state;
    return step.weight.item<double>();
  }
  int64_t strikes() const { return state.strikes.item<int64_t>(); }

  GateState state;
  double kappa;
  int64_t run;
};

Tensors list(at::TensorOptions where = at::kFloat) {
  return {parameter({16, 24}, 1, where), parameter({16, 24}, 2, where),
          parameter({24, 8, 3}, 3, where), parameter({24}, 4, where), parameter({2, 2}, 5, where)};
}

/// Sets gradients of step t, `scale` times as long.
void set_gradients(const Tensors& parameters, int64_t t, double scale = 1) {
  for (const at::Tensor& p : parameters) {
    test::set_gradient(p, test::gaussian(p.sizes(), static_cast<uint64_t>(1000 + t)) * scale);
  }
}

RootOptions gated() { return RootOptions(0.02).gate(1.4); }

void check_same(const GateState& a, const GateState& b) {
  CHECK_THAT(a.norms, test::same_as(b.norms));
  CHECK_THAT(a.run, test::same_as(b.run));
  CHECK_THAT(a.strikes, test::same_as(b.strikes));
}

/// An orthogonalizer that throws when it is told to.
struct Failing {
  static constexpr const char* name = "failing_at_will";
  bool* fails = nullptr;
  void validate() const {}
  void serialize(Fields&) const {}
  void deserialize(const Fields&) {}
  at::Tensor operator()(const at::Tensor& x) const {
    TORCH_CHECK(fails == nullptr || !*fails, "as asked");
    return x;
  }
};

}  // namespace

TEST_CASE("a step that stands out is weighed down", "[norm_gate]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  Gate gate(device);
  for (const double norm : {100.0, 1.0, 2.0, 3.0}) CHECK(gate(norm) == 1);  // no median yet
  CHECK(gate(1000) == 1);
  // Of 1, 2, 3, 100, 1000 it is 3.
  CHECK(std::abs(gate(8.4) - std::pow(0.5, 16)) < 1e-12);
  CHECK(gate.strikes() == 1);
  CHECK(gate(1e6) == 1);  // never twice in a row
  CHECK(gate.strikes() == 1);
  CHECK(gate(3) == 1);
  // Not a strike, but not all of it: of 1, 2, 3, 3, 8.4, 100, 1000, 1e6 the lower median is 3.
  CHECK(std::abs(gate(4.3) - std::pow(4.2 / 4.3, 16)) < 1e-12);
  CHECK(gate.strikes() == 1);
  CHECK(gate.state.run.item<int64_t>() == 0);
  // The oldest goes.
  for (int i = 0; i < 17; ++i) gate(7);
  CHECK(gate.state.norms.eq(7).all().item<bool>());
}

TEST_CASE("a step without a norm leaves the gate as it is", "[norm_gate]") {
  Gate gate(at::kCPU);
  for (const double norm : {0.0, kNaN, kInf}) CHECK(gate(norm) == 1);
  CHECK(gate.state.norms.eq(0).all().item<bool>());
  for (int i = 0; i < 5; ++i) gate(1);
  CHECK(gate(10) < 1e-6);
  const GateState before = gate.state;
  for (const double norm : {0.0, kNaN, kInf}) {
    CHECK(gate(norm) == 1);
    check_same(gate.state, before);
  }
  CHECK(gate(10) == 1);  // still the one behind a strike
}

TEST_CASE("a lasting change of scale costs a few steps", "[norm_gate]") {
  const int64_t most = GENERATE(1, 3);
  const double factor = GENERATE(2.0, 1e6, 1e-6);
  Gate gate(at::kCPU, 1.4, most);
  for (int i = 0; i < 40; ++i) CHECK(gate(1) == 1);
  for (int i = 0; i < 60; ++i) {
    const double weight = gate(factor);
    if (i >= 9) CHECK(weight == 1);
  }
  CHECK(gate.strikes() == (factor < 1 ? 0 : most == 1 ? 5 : 7));
  // Without an end: half of the steps at most are lost with `most` = 1.
  Gate growing(at::kCPU, 1.4, most);
  double norm = 1;
  for (int i = 0; i < 100; ++i) growing(norm *= 1.5);
  CHECK(growing.strikes() <= 100 * most / (most + 1));
}

TEST_CASE("the gate names what it cannot take", "[norm_gate][errors]") {
  const GateState state = GateState::begin(at::kCPU);
  const at::Tensor norm = at::ones({}, at::kDouble);
  CHECK_THROWS_WITH(norm_gate(norm, state, 0.5, 1),
                    test::contains("root_optim::norm_gate: expected threshold >= 1, got 0.5"));
  CHECK_THROWS_WITH(norm_gate(norm, state, 1.4, 0), test::contains("expected most > 0, got 0"));
  CHECK_THROWS_WITH(RootOptions().gate(0.5).validate(),
                    test::contains("expected gate to be 0 or >= 1, got 0.5"));
  CHECK_THROWS_WITH(RootOptions().gate_run(0).validate(),
                    test::contains("expected gate_run > 0, got 0"));
  CHECK(RootOptions().gate() == 0);
  CHECK(RootOptions().gate_run() == 1);
  CHECK(RootOptions::from_fields(gated().gate_run(3).fields()) == gated().gate_run(3));
}

TEST_CASE("a struck step moves nothing but by momentum, and writes no gradient", "[norm_gate]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat, at::kBFloat16);
  const auto place =
      GENERATE(FilterPlace::Momentum, FilterPlace::Gradient, FilterPlace::AllGradients);
  const Tensors ours = list(on(device, dtype)), twins = list(on(device, dtype));
  Root root(ours, gated().filter_place(place));
  Root twin(twins, gated().gate(0).filter_place(place));
  for (int64_t t = 1; t <= 8; ++t) {
    set_gradients(ours, t, t == 7 ? 1e4 : 1);
    set_gradients(twins, t, t == 7 ? 0 : 1);  // (1.4e-4)^16 is 0 beside the momentum
    const at::Tensor gradient = ours[0].grad().clone();
    root.step();
    twin.step();
    CHECK_THAT(ours[0].grad(), test::same_as(gradient));
    for (size_t i = 0; i < ours.size(); ++i) {
      INFO("step " << t << ", parameter " << i);
      CHECK_THAT(ours[i], test::same_as(twins[i]));
    }
  }
  CHECK(root.gate_state().strikes.item<int64_t>() == 1);
  CHECK_FALSE(twin.gate_state().norms.defined());
}

TEST_CASE("the norm is that of all gradients as the filter leaves them", "[norm_gate]") {
  const auto place =
      GENERATE(FilterPlace::Momentum, FilterPlace::Gradient, FilterPlace::AllGradients);
  const Tensors ours = list(at::kDouble);
  Root root(ours, gated().filter_place(place));
  set_gradients(ours, 1);
  for (const at::Tensor& p : ours) p.mutable_grad().view({-1})[1] = 1e3;
  double squares = 0;
  for (size_t i = 0; i < ours.size(); ++i) {
    at::Tensor g = ours[i].grad();
    const bool filtered =
        i < 3 ? place != FilterPlace::Momentum : place == FilterPlace::AllGradients;
    const at::Tensor matrix = g.dim() > 1 ? g.flatten(1).unsqueeze(0) : g.view({1, 1, -1});
    if (filtered) g = SoftThreshold()(matrix);
    squares += g.square().sum().item<double>();
  }
  root.step();
  CHECK(std::abs(root.gate_state().norms[16].item<double>() / std::sqrt(squares) - 1) < 1e-12);
}

TEST_CASE("gradients that are not usable are not in the norm", "[norm_gate][non_finite]") {
  const double bad = GENERATE(values<double>({kInf, kNaN}));
  const size_t culprit = GENERATE(range<size_t>(0, 5));
  const Tensors ours = list(), twins = list();
  Root root(ours, gated()), twin(twins, gated());
  for (int64_t t = 1; t <= 9; ++t) {
    set_gradients(ours, t, t == 8 ? 50 : 1);
    set_gradients(twins, t, t == 8 ? 50 : 1);
    if (t % 3 == 1) {
      ours[culprit].mutable_grad().view({-1})[2] = bad;
      twins[culprit].mutable_grad() = at::Tensor();
    }
    root.step();
    twin.step();
    check_same(root.gate_state(), twin.gate_state());
  }
  for (size_t i = 0; i < ours.size(); ++i) CHECK_THAT(ours[i], test::same_as(twins[i]));
  CHECK(root.gate_state().strikes.item<int64_t>() == 1);

  // A step in which nothing is usable, or everything is zero, is none.
  const GateState before = root.gate_state();
  set_gradients(ours, 10, bad);
  root.step();
  check_same(root.gate_state(), before);
  for (const at::Tensor& p : ours) p.mutable_grad().zero_();
  root.step();
  check_same(root.gate_state(), before);
  root.zero_grad();
  for (const at::Tensor& p : ours) p.mutable_grad() = at::Tensor();
  root.step();
  check_same(root.gate_state(), before);
}

TEST_CASE("a gate goes on where a checkpoint left it, bit by bit", "[norm_gate][checkpoint]") {
  const auto place = GENERATE(FilterPlace::Gradient, FilterPlace::AllGradients);
  const auto train = [](Root& optimizer, const Tensors& parameters, int64_t first, int64_t last) {
    for (int64_t t = first + 1; t <= last; ++t) {
      set_gradients(parameters, t, t == 7 || t == 8 || t == 11 ? 20 : 1);
      optimizer.step();
    }
  };
  const Tensors a = list(), b = list();
  Root through(a, gated().filter_place(place)), resumed(b);
  std::stringstream file;
  {
    Root first(b, gated().filter_place(place));
    train(first, b, 0, 7);  // right behind a strike
    save(first, file);
  }
  load(resumed, file);
  train(through, a, 0, 12);
  train(resumed, b, 7, 12);
  for (size_t i = 0; i < a.size(); ++i) CHECK_THAT(b[i], test::same_as(a[i]));
  check_same(resumed.gate_state(), through.gate_state());
  CHECK(through.gate_state().strikes.item<int64_t>() == 2);

  // One without a gate has none afterwards, either.
  Root plain(a);
  train(plain, a, 0, 1);
  std::stringstream other;
  save(plain, other);
  load(resumed, other);
  CHECK_FALSE(resumed.gate_state().norms.defined());
}

TEST_CASE("a gate that no step could have left is refused", "[norm_gate][checkpoint][errors]") {
  using root_optim::detail::restored_gate;
  const auto state = [] {
    GateState s = GateState::begin(at::kCPU);
    return GateState{s.norms.clone(), s.run.clone(), s.strikes.clone()};
  };
  CHECK_NOTHROW(restored_gate(state(), at::kCPU));
  GateState damaged = state();
  damaged.norms = at::zeros({3}, at::kDouble);
  CHECK_THROWS_WITH(restored_gate(damaged, at::kCPU),
                    test::contains("expected 17 norms of a gate in Double, got [3] in Double"));
  damaged = state();
  damaged.norms[3] = kNaN;
  CHECK_THROWS_WITH(restored_gate(damaged, at::kCPU), test::contains("expected finite norms >= 0"));
  damaged = state();
  damaged.strikes.fill_(-1);
  CHECK_THROWS_WITH(restored_gate(damaged, at::kCPU), test::contains("expected counts of a gate"));
  damaged = state();
  damaged.run.fill_(2);
  CHECK_THROWS_WITH(restored_gate(damaged, at::kCPU),
                    test::contains("expected at most 0 strikes of a gate in a row, got 2"));
}

TEST_CASE("a step that fails has not been one for the gate", "[norm_gate][exception_safety]") {
  using Optimizer = OrthogonalizedOptimizer<NoFilter, Failing>;
  bool fails = false;
  const Tensors parameters = list();
  Failing policy;
  policy.fails = &fails;
  Optimizer optimizer(parameters, Optimizer::Options(0.01).gate(2).orthogonalizer(policy));
  set_gradients(parameters, 1);
  optimizer.step();
  const GateState before = optimizer.gate_state();
  fails = true;
  set_gradients(parameters, 2);
  CHECK_THROWS_WITH(optimizer.step(), test::contains("as asked"));
  check_same(optimizer.gate_state(), before);
}

TEST_CASE("one gate for all groups, on one device", "[norm_gate][errors]") {
  const at::Tensor a = parameter({16, 24}, 1, at::kFloat), b = parameter({16, 24}, 2, at::kFloat);
  set_gradients({a, b}, 1);
  std::vector<torch::optim::OptimizerParamGroup> groups{
      {Tensors{a}, std::make_unique<RootOptions>(gated())},
      {Tensors{b}, std::make_unique<RootOptions>()}};
  Root root(groups);
  const at::Tensor before = a.detach().clone();
  CHECK_THROWS_WITH(root.step(),
                    test::contains("root_optim::step: expected one gate in all groups, got "
                                   "gate 0 and gate_run 1 in group 1, 1.4 and 1 in group 0"));
  CHECK_THAT(a, test::same_as(before));
  const at::Tensor elsewhere = at::empty({16, 24}, at::kMeta).requires_grad_(true);
  elsewhere.mutable_grad() = at::empty({16, 24}, at::kMeta);
  Root two(Tensors{a, elsewhere}, gated());
  CHECK_THROWS_WITH(two.step(),
                    test::contains("expected all parameters on one device with a gate, which "
                                   "needs the norm of the whole step, got cpu and meta"));
  CHECK_THAT(a, test::same_as(before));
}
