// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A step that fails half-way: every parameter and its state are together either as before the step or
// as after it, wherever memory runs out, of tensors or of the heap, and whatever a policy throws.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <stdexcept>
#include <type_traits>

#include "support/failing_allocator.hpp"
#include "support/failing_heap.hpp"
#include "support/tolerances.hpp"
#include "support/training.hpp"
#include "support/warnings.hpp"

using namespace root_optim;
using test::parameter;

namespace {

using Tensors = std::vector<at::Tensor>;

/// A parameter and all of its state, as copies.
struct Snapshot {
  at::Tensor parameter;
  ParamState state;

  friend bool operator==(const Snapshot& a, const Snapshot& b) {
    return a.parameter.equal(b.parameter) && a.state == b.state;
  }
};

/// Parameters that take every way through a step: a batch of two, a transposed one (whose copy needs
/// memory), one in bfloat16, blocks, a convolution, and several for AdamW, one of them in bfloat16.
template <class Optimizer>
struct Model {
  using Options = typename Optimizer::Options;

  explicit Model(Options options = {})
      : parameters{parameter({16, 24}, 1, at::kFloat),
                   parameter({16, 24}, 2, at::kFloat),
                   parameter(test::gaussian({96, 64}, 3).to(at::kFloat).t()),
                   parameter({16, 24}, 4, at::kBFloat16),
                   parameter({8, 4, 3, 3}, 5, at::kFloat),
                   parameter({24}, 6, at::kFloat),
                   parameter({2, 3}, 7, at::kBFloat16),
                   parameter({48, 16}, 8, at::kFloat)},
        optimizer(
            std::vector<torch::optim::OptimizerParamGroup>{
                {Tensors(parameters.begin(), parameters.end() - 1)},
                {Tensors{parameters.back()},
                 std::make_unique<Options>(Options(options).layout(MatrixLayout().split_rows(3)))}},
            options) {}

  std::vector<Snapshot> snapshots() {
    std::vector<Snapshot> result;
    for (const at::Tensor& p : parameters) {
      Snapshot snapshot{p.detach().clone(), {}};
      if (const ParamState* state = root_optim::detail::state_of(optimizer, p)) {
        // What a failed first step leaves behind, zeros, is the state of no step.
        if (state->step() > 0) {
          snapshot.state = static_cast<const ParamState&>(*state->clone());
        }
      }
      result.push_back(std::move(snapshot));
    }
    return result;
  }

  Tensors parameters;
  Optimizer optimizer;
};

/// Trains `steps` steps, spoils one gradient if asked to, and fails at each allocation of the next
/// step in turn, or at every `stride`-th. Memory is FailingAllocator, for tensors, or FailingHeap, for
/// everything else. Returns the number of allocations.
template <class Optimizer, class Memory = test::FailingAllocator>
int64_t fail_at_every_allocation(int64_t steps, bool spoiled, typename Optimizer::Options options,
                                 int64_t stride = 1) {
  // LibTorch's own handler ends the program where memory runs out while it writes.
  const test::Warnings silenced;
  const auto prepared = [&](Model<Optimizer>& model) {
    test::train(model.optimizer, model.parameters, 0, steps);
    model.optimizer.release_workspace();  // else there is little left to allocate
    for (const at::Tensor& p : model.parameters) {
      test::set_gradient(p, test::gradient_of(p.sizes(), steps + 1));
    }
    if (spoiled) model.parameters[1].mutable_grad().fill_(std::nan(""));
  };
  Model<Optimizer> whole(options);
  prepared(whole);
  const auto before = whole.snapshots();
  whole.optimizer.step();
  const auto after = whole.snapshots();

  for (int64_t n = 0;; n += stride) {
    INFO("allocation " << n);
    Model<Optimizer> model(options);
    prepared(model);
    bool failed = false;
    int64_t count = 0;
    {
      const Memory memory(n);
      try {
        model.optimizer.step();
      } catch (const std::exception&) {
        failed = true;
      }
      count = memory.count();
    }
    // LibTorch may do without some memory of the heap, but not without a tensor.
    const bool swallowed = !failed && count > n;
    if (swallowed) REQUIRE(std::is_same_v<Memory, test::FailingHeap>);
    const auto now = model.snapshots();
    if (!failed) {
      for (size_t i = 0; i < now.size(); ++i) REQUIRE(now[i] == after[i]);
      if (swallowed) continue;
      return n;
    }
    for (size_t i = 0; i < now.size(); ++i) {
      INFO("parameter " << i);
      REQUIRE((now[i] == before[i] || now[i] == after[i]));
    }
    model.optimizer.step();  // and it can go on
    for (const at::Tensor& p : model.parameters)
      REQUIRE(at::isfinite(p).all().template item<bool>());
  }
}

/// Throws at its call number `fails_at`, counted from 0 over all copies.
struct ThrowingFilter {
  static constexpr const char* name = "throwing_filter";
  static inline int64_t calls = 0, fails_at = 0;
  at::Tensor operator()(const at::Tensor& u) const {
    if (calls++ == fails_at) throw std::runtime_error("no more");
    return u;
  }
};

}  // namespace

TEST_CASE("memory that runs out leaves no parameter half-updated", "[exception_safety]") {
  // In an optimizer's first step, which also makes the state, and in a later one.
  const int64_t steps = GENERATE(0, 2);
  const bool spoiled = GENERATE(false, true);
  INFO(steps << " steps before, " << (spoiled ? "a NaN" : "no NaN"));
  CHECK(fail_at_every_allocation<Root>(steps, spoiled, RootOptions(0.05)) > 50);
}

TEST_CASE("memory that runs out: the other policies and forms", "[exception_safety]") {
  CHECK(fail_at_every_allocation<Root>(
            1, false, RootOptions(0.05).non_finite(NonFinite::Zero).nesterov(false)) > 50);
  CHECK(fail_at_every_allocation<Root>(1, false,
                                       RootOptions(0.05).non_finite(NonFinite::Propagate)) > 50);
  CHECK(fail_at_every_allocation<Root>(
            1, false, RootOptions(0.05).orthogonalizer(AdaNewton().form(Form::Gram))) > 50);
  CHECK(fail_at_every_allocation<Muon>(1, false, MuonOptions(0.05)) > 50);
}

TEST_CASE("a heap that runs out leaves no parameter half-updated", "[exception_safety]") {
  // Every eleventh call: the commits take none (test_commit.cpp).
  CHECK(fail_at_every_allocation<Root, test::FailingHeap>(2, true, RootOptions(0.05), 11) > 1000);
}

TEST_CASE("memory that runs out leaves a parameter, its master and its state together",
          "[exception_safety][master_weights]") {
  const int64_t steps = GENERATE(0, 2);
  const auto options = RootOptions(0.05).master_weights(true);
  CHECK(fail_at_every_allocation<Root>(steps, steps > 0, options) > 50);
  CHECK(fail_at_every_allocation<Root, test::FailingHeap>(steps, steps > 0, options, 97) > 1000);
}

TEST_CASE("a policy that throws leaves no parameter half-updated", "[exception_safety]") {
  using Throwing = OrthogonalizedOptimizer<ThrowingFilter, NewtonSchulz>;
  const auto prepared = [](Model<Throwing>& model) {
    ThrowingFilter::calls = 0;
    ThrowingFilter::fails_at = -1;
    test::train(model.optimizer, model.parameters, 0, 2);
    for (const at::Tensor& p : model.parameters) {
      test::set_gradient(p, test::gradient_of(p.sizes(), 3));
    }
    ThrowingFilter::calls = 0;
  };
  Model<Throwing> whole;
  prepared(whole);
  const auto before = whole.snapshots();
  whole.optimizer.step();
  const auto after = whole.snapshots();
  const int64_t calls = ThrowingFilter::calls;
  REQUIRE(calls > 4);
  for (int64_t n = 0; n < calls; ++n) {
    INFO("call " << n);
    Model<Throwing> model;
    prepared(model);
    ThrowingFilter::fails_at = n;
    REQUIRE_THROWS_AS(model.optimizer.step(), std::runtime_error);
    const auto now = model.snapshots();
    for (size_t i = 0; i < now.size(); ++i) {
      INFO("parameter " << i);
      REQUIRE((now[i] == before[i] || now[i] == after[i]));
    }
  }
}

TEST_CASE("a closure that throws has changed nothing", "[exception_safety]") {
  Model<Root> model;
  test::train(model.optimizer, model.parameters, 0, 2);
  const auto before = model.snapshots();
  REQUIRE_THROWS_AS(
      model.optimizer.step([]() -> at::Tensor { throw std::runtime_error("no loss"); }),
      std::runtime_error);
  const auto now = model.snapshots();
  for (size_t i = 0; i < now.size(); ++i) CHECK(now[i] == before[i]);
}
