// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Gradients with Inf and NaN: what each policy does to the parameters that have them and to those
// that do not, what is counted, and that a skipped step is as if it had never been.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "support/devices.hpp"
#include "support/optimizer_state.hpp"
#include "support/saved.hpp"
#include "support/tolerances.hpp"
#include "support/training.hpp"
#include "support/warnings.hpp"

using namespace root_optim;
using test::contains;
using test::on;
using test::parameter;
using test::set_gradient;
using test::state_of;
using test::Warnings;

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
  const NonFinite policy = GENERATE(NonFinite::Skip, NonFinite::SkipGroup);
  INFO(dtype << ", " << bad << " in parameter " << culprit << ", policy "
             << static_cast<int>(policy));
  const auto skips = [&](size_t i) {
    return i == culprit || (policy == NonFinite::SkipGroup && culprit >= 3 && i >= 3);
  };

  const Tensors ours = parameters(on(device, dtype)), twins = parameters(on(device, dtype));
  const Warnings quiet;
  Root root(ours, RootOptions().non_finite(policy)), twin(twins);
  for (int64_t t = 1; t <= 4; ++t) {
    set_gradients(ours, t);
    set_gradients(twins, t);
    if (t % 2 == 1) {  // the first step, too, in which there is no state yet
      spoil(ours[culprit], bad);
      // The twin never sees it: no gradient where the step must be skipped.
      for (size_t i = 0; i < twins.size(); ++i) {
        if (skips(i)) twins[i].mutable_grad() = at::Tensor();
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
  size_t faults = 0;
  for (size_t i = 0; i < ours.size(); ++i) {
    INFO("parameter " << i);
    if (skips(i)) ++faults;
    CHECK(state_of(root, ours[i]).step() == 4);
    CHECK(state_of(root, ours[i]).skipped().item<int64_t>() == (skips(i) ? 2 : 0));
    CHECK(state_of(root, ours[i]).non_finite().item<int64_t>() == (i == culprit ? 2 : 0));
  }
  CHECK(gradient_faults(root).size() == faults);
  CHECK(gradient_faults(twin).empty());
}

TEST_CASE("skip: one scalar that is bad in every step stalls nothing but itself", "[non_finite]") {
  const Warnings quiet;
  for (const bool strided : {false, true}) {  // by the fused kernel, and by the plain form
    Tensors ours{parameter({}, 1), parameter({24}, 2), parameter({2, 2}, 3)};
    if (strided) ours[1] = at::randn({24, 2}).select(1, 0).detach().requires_grad_(true);
    Tensors before;
    for (const at::Tensor& p : ours) before.push_back(p.detach().clone());
    Root root(ours);
    for (int64_t t = 1; t <= 50; ++t) {
      set_gradients(ours, t);
      spoil(ours[0], kNaN);
      root.step();
    }
    CHECK_THAT(ours[0], test::same_as(before[0]));
    for (const size_t i : std::vector<size_t>{1, 2}) {
      CHECK_FALSE(ours[i].ne(before[i]).logical_not().any().item<bool>());
      CHECK(state_of(root, ours[i]).skipped().item<int64_t>() == 0);
    }
    const auto faults = gradient_faults(root);
    REQUIRE(faults.size() == 1);
    CHECK(faults[0].name == "group 0, index 0");
    CHECK(faults[0].skipped == 50);
  }
}

TEST_CASE("zero: what overflows all the same is skipped alone", "[non_finite]") {
  const Warnings quiet;
  const Tensors ours{parameter({24}, 1, at::kFloat), parameter({24}, 2, at::kFloat)};
  const at::Tensor before = ours[0].detach().clone(), other = ours[1].detach().clone();
  Root root(ours, RootOptions().non_finite(NonFinite::Zero));
  set_gradient(ours[0], at::full({24}, 3e38));
  set_gradient(ours[1], at::full({24}, 1.0));
  root.step();
  CHECK_THAT(ours[0], test::same_as(before));
  CHECK_FALSE(ours[1].equal(other));
}

TEST_CASE("an optimizer warns once of a parameter that it skips", "[non_finite]") {
  const size_t culprit = GENERATE(range<size_t>(0, 6));
  const NonFinite policy = GENERATE(NonFinite::Skip, NonFinite::SkipGroup);
  const Tensors ours = parameters(at::kFloat);
  std::vector<std::string> names;
  for (size_t i = 0; i < ours.size(); ++i) names.push_back("p" + std::to_string(i));
  Warnings warnings;
  for (int optimizers = 1; optimizers <= 2; ++optimizers) {
    Root root(ours, RootOptions().non_finite(policy).names(names));
    set_gradients(ours, 1);
    root.step();
    CHECK(warnings.seen.size() == static_cast<size_t>(optimizers - 1));
    for (int64_t t = 2; t <= 4; ++t) {
      set_gradients(ours, t);
      spoil(ours[culprit], kNaN);
      root.step();
      REQUIRE(warnings.seen.size() == static_cast<size_t>(optimizers));
    }
    CHECK_THAT(warnings.seen.back(),
               contains("root_optim::step: skipped parameter 'p" + std::to_string(culprit) +
                        "' (group 0, index " + std::to_string(culprit)) &&
                   contains("gradient_faults(optimizer)"));
  }
}

TEST_CASE("an optimizer does not warn of what it does not skip", "[non_finite]") {
  const NonFinite policy = GENERATE(NonFinite::Zero, NonFinite::Propagate);
  const Tensors ours = parameters(at::kFloat);
  const Warnings warnings;
  Root root(ours, RootOptions().non_finite(policy));
  set_gradients(ours, 1);
  for (const at::Tensor& p : ours) spoil(p, kNaN);
  root.step();
  CHECK(warnings.seen.empty());
}

TEST_CASE("a warning handler that throws meets a step that is complete", "[non_finite]") {
  const Tensors ours = parameters(at::kFloat), twins = parameters(at::kFloat);
  Root root(ours), twin(twins);
  for (const Tensors& tensors : {ours, twins}) {
    set_gradients(tensors, 1);
    spoil(tensors[0], kNaN);
  }
  {
    const Warnings warnings(/*throws=*/true);
    CHECK_THROWS_WITH(root.step(), contains("skipped"));
    CHECK_NOTHROW(root.step());
  }
  const Warnings quiet;
  twin.step();
  twin.step();
  for (size_t i = 0; i < ours.size(); ++i) check_same(root, ours[i], twin, twins[i]);
}

TEST_CASE("skip group: a bad gradient in one group leaves the others alone", "[non_finite]") {
  const at::Tensor a = parameter({24}, 1), b = parameter({24}, 2);
  const at::Tensor before = a.detach().clone(), other = b.detach().clone();
  const Warnings quiet;
  Root root(std::vector<torch::optim::OptimizerParamGroup>{{{a}}, {{b}}},
            RootOptions().non_finite(NonFinite::SkipGroup));
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
  const Warnings quiet;
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
  test::load_from(copy, test::saved(root));
  CHECK(copy.options(0).non_finite() == NonFinite::Zero);
  REQUIRE(gradient_faults(copy).size() == 1);
  CHECK(gradient_faults(copy)[0].non_finite == 1);
}

TEST_CASE(
    "the fused kernel is called once where one flag decides or the host may look, else for each",
    "[non_finite]") {
  using namespace root_optim::detail;
  if (ROOT_OPTIM_HAS_FUSED_ADAMW == 0) return;
  std::vector<ParamState> states(3);
  const auto calls = [&](NonFinite policy, at::Device device, std::optional<size_t> bad) {
    AdamWPart part(policy);
    for (size_t i = 0; i < states.size(); ++i) {
      const at::Tensor zero = at::zeros({4}, on(device, at::kFloat));
      states[i] = ParamState();
      states[i].exp_avg(zero).exp_avg_sq(zero).skipped(at::zeros({}, on(device, at::kLong)));
      part.parameters.push_back(zero);
      part.gradients.push_back(at::full_like(zero, bad == i ? kNaN : 1.0));
      part.states.push_back(&states[i]);
    }
    if (policy != NonFinite::Propagate) guard_gradients(part);
    if (policy == NonFinite::SkipGroup) part.guard.decide(part.guard.all_usable());
    return fused_calls(part);
  };
  CHECK(calls(NonFinite::Propagate, at::kCPU, 1)[0].parameters.size() == 3);
  const auto one_of_group = calls(NonFinite::SkipGroup, at::kCPU, 1);
  REQUIRE(one_of_group.size() == 1);
  CHECK(one_of_group[0].parameters.size() == 3);
  CHECK(one_of_group[0].skip.item<float>() == 1);
  for (const auto& [bad, taken] :
       {std::pair<std::optional<size_t>, size_t>{std::nullopt, 3}, {1, 2}}) {
    const auto seen = calls(NonFinite::Skip, at::kCPU, bad);
    REQUIRE(seen.size() == 1);
    CHECK(seen[0].parameters.size() == taken);
    CHECK_FALSE(seen[0].skip.defined());
  }
  // Meta stands for a device at which the host cannot look.
  const auto unseen = calls(NonFinite::Skip, at::kMeta, std::nullopt);
  REQUIRE(unseen.size() == 3);
  for (const FusedAdamWCall& call : unseen) {
    CHECK(call.parameters.size() == 1);
    CHECK(call.skip.dim() == 0);
  }
  CHECK(calls(NonFinite::SkipGroup, at::kMeta, std::nullopt).size() == 1);
}
