// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Gradients with Inf and NaN: what each policy does to the parameters that have them and to those
// that do not, what is counted, and that a skipped step is as if it had never been.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <limits>
#include <sstream>

#include "support/devices.hpp"
#include "support/tolerances.hpp"
#include "support/training.hpp"

using namespace root_optim;
using test::contains;
using test::on;
using test::parameter;
using test::set_gradient;

namespace {

using Tensors = std::vector<at::Tensor>;
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// Two matrices of one shape (one batch), one of another, and three for AdamW.
Tensors parameters(at::TensorOptions where) {
  return {parameter({16, 24}, 1, where),   parameter({16, 24}, 2, where),
          parameter({24, 8, 3}, 3, where), parameter({24}, 4, where),
          parameter({2, 2}, 5, where),     parameter({}, 6, where)};
}

void set_gradients(const Tensors& parameters, int64_t t) {
  for (const at::Tensor& p : parameters) set_gradient(p, test::gradient_of(p.sizes(), t));
}

/// Writes one entry of a gradient.
void spoil(const at::Tensor& parameter, double value) {
  parameter.mutable_grad().view({-1})[parameter.numel() / 2] = value;
}

const ParamState& state_of(Root& root, const at::Tensor& parameter) {
  return *root_optim::detail::state_of(root, parameter);
}

void check_same(Root& a, const at::Tensor& pa, Root& b, const at::Tensor& pb) {
  CHECK_THAT(pa, test::same_as(pb));
  const ParamState &x = state_of(a, pa), &y = state_of(b, pb);
  for (const auto& [s, t] :
       {std::pair{x.momentum_buffer(), y.momentum_buffer()}, std::pair{x.exp_avg(), y.exp_avg()},
        std::pair{x.exp_avg_sq(), y.exp_avg_sq()}}) {
    REQUIRE(s.defined() == t.defined());
    if (s.defined()) CHECK_THAT(s, test::same_as(t));
  }
}

}  // namespace

TEST_CASE("skip: a step with a bad gradient is as if it had never been", "[non_finite]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kFloat, at::kDouble, at::kBFloat16, at::kHalf);
  const double bad = GENERATE(values<double>({kInf, -kInf, kNaN}));
  const size_t culprit = GENERATE(range<size_t>(0, 6));
  INFO(dtype << ", " << bad << " in parameter " << culprit);

  const Tensors ours = parameters(on(device, dtype)), twins = parameters(on(device, dtype));
  Root root(ours), twin(twins);
  for (int64_t t = 1; t <= 4; ++t) {
    set_gradients(ours, t);
    set_gradients(twins, t);
    if (t % 2 == 1) {  // the first step, too, in which there is no state yet
      spoil(ours[culprit], bad);
      // The twin never sees it: no gradient where the step must be skipped.
      for (size_t i = 0; i < twins.size(); ++i) {
        if (culprit >= 3 ? i >= 3 : i == culprit) twins[i].mutable_grad() = at::Tensor();
      }
    }
    root.step();
    twin.step();
    for (size_t i = 0; i < ours.size(); ++i) {
      INFO("step " << t << ", parameter " << i);
      const bool stepped = root_optim::detail::state_of(twin, twins[i]) != nullptr;
      if (stepped)
        check_same(root, ours[i], twin, twins[i]);
      else
        CHECK_THAT(ours[i], test::same_as(twins[i]));
    }
  }
  for (size_t i = 0; i < ours.size(); ++i) {
    INFO("parameter " << i);
    const bool skipped = culprit >= 3 ? i >= 3 : i == culprit;
    CHECK(state_of(root, ours[i]).step() == 4);
    CHECK(state_of(root, ours[i]).skipped().item<int64_t>() == (skipped ? 2 : 0));
    CHECK(state_of(root, ours[i]).non_finite().item<int64_t>() == (i == culprit ? 2 : 0));
  }
  CHECK(gradient_faults(root).size() == (culprit >= 3 ? 3 : 1));
  CHECK(gradient_faults(twin).empty());
}

TEST_CASE("skip: a bad gradient in one group leaves the others alone", "[non_finite]") {
  const at::Tensor a = parameter({24}, 1), b = parameter({24}, 2);
  const at::Tensor before = a.detach().clone(), other = b.detach().clone();
  Root root(std::vector<torch::optim::OptimizerParamGroup>{{{a}}, {{b}}});
  set_gradients({a, b}, 1);
  spoil(a, kNaN);
  root.step();
  CHECK_THAT(a, test::same_as(before));
  CHECK_FALSE(b.equal(other));
  const auto faults = gradient_faults(root);
  REQUIRE(faults.size() == 1);
  CHECK(faults[0].name == "group 0, index 0");
  CHECK(faults[0].steps == 1);
  CHECK(faults[0].non_finite == 1);
  CHECK(faults[0].skipped == 1);
}

TEST_CASE("skip: what would overflow the state is skipped, too", "[non_finite]") {
  const at::Tensor w = parameter({16, 24}, 1, at::kFloat), b = parameter({24}, 2, at::kFloat);
  const at::Tensor w0 = w.detach().clone(), b0 = b.detach().clone();
  Root root({w, b});
  const auto step = [&](double gradient) {
    set_gradient(w, at::full_like(w, gradient));
    set_gradient(b, at::full_like(b, gradient));
    root.step();
  };
  step(3e38);  // finite, but U = G + μM and G² are not
  CHECK_THAT(w, test::same_as(w0));
  CHECK_THAT(b, test::same_as(b0));
  for (const at::Tensor& p : {w, b}) {
    CHECK(state_of(root, p).skipped().item<int64_t>() == 1);
    CHECK(state_of(root, p).non_finite().item<int64_t>() == 1);  // its own gradient was too large
  }
  step(1e18);
  CHECK_FALSE(w.equal(w0));
  CHECK_FALSE(b.equal(b0));
  for (const at::Tensor& p : {w, b}) CHECK(at::isfinite(p).all().item<bool>());
}

TEST_CASE("zero: bad entries count as 0", "[non_finite]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kFloat, at::kBFloat16);
  const Tensors ours = parameters(on(device, dtype)), twins = parameters(on(device, dtype));
  const RootOptions options = RootOptions().non_finite(NonFinite::Zero);
  Root root(ours, options), twin(twins, options);
  for (int64_t t = 1; t <= 3; ++t) {
    set_gradients(ours, t);
    set_gradients(twins, t);
    if (t == 2) {
      for (const double bad : {kInf, -kInf, kNaN}) {
        for (const at::Tensor& p : ours) spoil(p, bad);
      }
      for (const at::Tensor& p : twins) spoil(p, 0);
    }
    root.step();
    twin.step();
    for (size_t i = 0; i < ours.size(); ++i) check_same(root, ours[i], twin, twins[i]);
  }
  for (const at::Tensor& p : ours) {
    CHECK(state_of(root, p).non_finite().item<int64_t>() == 1);
    CHECK(state_of(root, p).skipped().item<int64_t>() == 0);
  }
}

TEST_CASE("propagate: Inf and NaN stay in the matrix that has them", "[non_finite]") {
  const double bad = GENERATE(values<double>({kInf, kNaN}));
  const size_t culprit = GENERATE(range<size_t>(0, 6));
  const Tensors ours = parameters(at::kFloat), twins = parameters(at::kFloat);
  const RootOptions options = RootOptions().non_finite(NonFinite::Propagate);
  Root root(ours, options), twin(twins, options);
  for (int64_t t = 1; t <= 3; ++t) {
    set_gradients(ours, t);
    set_gradients(twins, t);
    if (t == 2) spoil(ours[culprit], bad);
    root.step();
    twin.step();
  }
  for (size_t i = 0; i < ours.size(); ++i) {
    INFO("parameter " << i);
    if (i == culprit) {
      const ParamState& state = state_of(root, ours[i]);
      const at::Tensor& seen = i < 3 ? state.momentum_buffer() : state.exp_avg();
      CHECK_FALSE(at::isfinite(seen).all().item<bool>());
    } else {
      check_same(root, ours[i], twin, twins[i]);
    }
  }
  CHECK(gradient_faults(root).empty());
}

TEST_CASE("raise: step() names the parameter and has changed nothing", "[non_finite]") {
  const double bad = GENERATE(values<double>({kInf, kNaN}));
  const Tensors ours = parameters(at::kFloat);
  Root root(ours, RootOptions().non_finite(NonFinite::Raise));
  set_gradients(ours, 1);
  CHECK_NOTHROW(root.step());
  Tensors before;
  for (const at::Tensor& p : ours) before.push_back(p.detach().clone());
  spoil(ours[5], bad);
  CHECK_THROWS_WITH(root.step(),
                    contains("root_optim::step: expected a finite gradient, got Inf or NaN for "
                             "parameter (group 0, index 5, shape [])"));
  for (size_t i = 0; i < ours.size(); ++i) CHECK_THAT(ours[i], test::same_as(before[i]));
  CHECK(state_of(root, ours[0]).step() == 1);
}

TEST_CASE("the policy and the counters are saved and loaded", "[non_finite][checkpoint]") {
  const Tensors ours = parameters(at::kFloat), copies = parameters(at::kFloat);
  Root root(ours, RootOptions().non_finite(NonFinite::Zero)), copy(copies);
  set_gradients(ours, 1);
  spoil(ours[3], kNaN);
  root.step();
  std::stringstream file;
  root_optim::save(root, file);
  root_optim::load(copy, file);
  CHECK(static_cast<const RootOptions&>(copy.param_groups()[0].options()).non_finite() ==
        NonFinite::Zero);
  REQUIRE(gradient_faults(copy).size() == 1);
  CHECK(gradient_faults(copy)[0].non_finite == 1);
}
