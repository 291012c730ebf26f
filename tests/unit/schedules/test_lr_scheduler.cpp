// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Learning-rate schedules: their factors by hand, and what a scheduler does to an optimizer's groups.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "support/saved.hpp"
#include "support/training.hpp"

using namespace root_optim;
using test::contains;
using test::load_from;
using test::saved;

namespace {

std::vector<double> factors(const LrSchedule& schedule, int64_t steps) {
  std::vector<double> values;
  for (int64_t t = 0; t < steps; ++t) values.push_back(schedule.factor(t));
  return values;
}

bool close(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::abs(a[i] - b[i]) > 1e-15) return false;
  }
  return true;
}

double lr_of(torch::optim::Optimizer& optimizer, size_t group = 0) {
  return optimizer.param_groups()[group].options().get_lr();
}

}  // namespace

TEST_CASE("the factors of schedules, by hand", "[lr_scheduler]") {
  CHECK(close(factors(LrSchedule::constant(), 3), {1, 1, 1}));
  CHECK(close(factors(LrSchedule::constant().warmup(4), 6), {0.25, 0.5, 0.75, 1, 1, 1}));
  CHECK(close(factors(LrSchedule::linear(4), 6), {1, 0.75, 0.5, 0.25, 0, 0}));
  CHECK(close(factors(LrSchedule::linear(6).warmup(2).final_factor(0.5), 8),
              {0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.5}));
  const double half = std::sqrt(0.5);
  CHECK(
      close(factors(LrSchedule::cosine(4), 6), {1, 0.5 * (1 + half), 0.5, 0.5 * (1 - half), 0, 0}));
  CHECK(
      close(factors(LrSchedule::cosine(4).warmup(2).final_factor(0.2), 5), {0.5, 1, 1, 0.6, 0.2}));
  CHECK(close(factors(LrSchedule::warmup_stable_decay(8, 4).warmup(2), 9),
              {0.5, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0}));
  CHECK(close(factors(LrSchedule::warmup_stable_decay(3, 0).final_factor(0.1), 4), {1, 1, 1, 0.1}));
  CHECK(close(factors(LrSchedule::cosine(2).warmup(2), 3), {0.5, 1, 0}));
}

TEST_CASE("a schedule refuses what is out of range", "[lr_scheduler][errors]") {
  CHECK_THROWS_WITH(LrSchedule::cosine(0), contains("expected a total of at least 1 step, got 0"));
  CHECK_THROWS_WITH(LrSchedule::warmup_stable_decay(5, 6),
                    contains("expected a decay of 0 to 5 steps, got 6"));
  CHECK_THROWS_WITH(LrSchedule::warmup_stable_decay(5, 2).warmup(4),
                    contains("expected a warm-up of 0 to 3 steps, got 4"));
  CHECK_THROWS_WITH(LrSchedule::linear(5).warmup(-1),
                    contains("expected a warm-up of 0 to 5 steps, got -1"));
  CHECK_THROWS_WITH(LrSchedule::constant().warmup(-1),
                    contains("expected a warm-up of 0 to 9223372036854775807 steps, got -1"));
  CHECK_THROWS_WITH(LrSchedule::linear(5).final_factor(1.5),
                    contains("expected a final factor from 0 to 1, got 1.5"));
  CHECK_THROWS_WITH(LrSchedule::linear(5).factor(-1), contains("expected a step >= 0, got -1"));
}

TEST_CASE("a scheduler multiplies the learning rate of each group", "[lr_scheduler]") {
  const at::Tensor a = test::parameter({8, 8}, 1), b = test::parameter({8}, 2);
  using Group = Root::Group;
  Root root(std::vector<Group>{{{a}, std::make_unique<RootOptions>(0.4)},
                               {{b}, std::make_unique<RootOptions>(0.2)}});
  LrScheduler scheduler(root, LrSchedule::linear(4).warmup(2));
  const std::vector<double> expected{0.5, 1, 1, 0.5, 0, 0};
  for (int64_t t = 0; t < 6; ++t) {
    INFO("step " << t);
    CHECK(scheduler.current_step() == t);
    CHECK(lr_of(root, 0) == 0.4 * expected[static_cast<size_t>(t)]);
    CHECK(lr_of(root, 1) == 0.2 * expected[static_cast<size_t>(t)]);
    scheduler.step();
  }
}

TEST_CASE("a scheduler works with LibTorch's optimizers, by their base class", "[lr_scheduler]") {
  const at::Tensor p = test::parameter({4}, 1);
  torch::optim::SGD sgd({p}, torch::optim::SGDOptions(0.5));
  torch::optim::AdamW adamw({p}, torch::optim::AdamWOptions(0.5));
  for (torch::optim::Optimizer* optimizer : std::vector<torch::optim::Optimizer*>{&sgd, &adamw}) {
    LrScheduler own(*optimizer, LrSchedule::linear(2));
    torch::optim::LRScheduler& scheduler = own;
    CHECK(lr_of(*optimizer) == 0.5);
    scheduler.step();
    CHECK(lr_of(*optimizer) == 0.25);
    scheduler.step();
    CHECK(lr_of(*optimizer) == 0);
  }
}

TEST_CASE("training that is resumed goes on with the same learning rates", "[lr_scheduler]") {
  const auto schedule = LrSchedule::cosine(10).warmup(3).final_factor(0.1);
  const at::Tensor p = test::parameter({8, 8}, 1);
  Root root({p}, RootOptions(0.1));
  LrScheduler scheduler(root, schedule);
  for (int t = 0; t < 5; ++t) scheduler.step();
  const std::string content = saved(root);

  Root resumed({p}, RootOptions(0.1));
  LrScheduler resumed_scheduler(resumed, schedule);
  load_from(resumed, content);
  resumed_scheduler.set_step(5);
  for (int t = 5; t < 12; ++t) {
    CHECK(lr_of(resumed) == lr_of(root));
    scheduler.step();
    resumed_scheduler.step();
  }
  CHECK_THROWS_WITH(scheduler.set_step(-1), contains("expected a step >= 0, got -1"));
  CHECK(scheduler.current_step() == 12);
}

TEST_CASE("groups added behind a scheduler's back keep their learning rates", "[lr_scheduler]") {
  Root root({test::parameter({8, 8}, 1)}, RootOptions(0.1));
  LrScheduler scheduler(root, LrSchedule::linear(2));
  root.add_param_group({{test::parameter({8, 4}, 2)}, std::make_unique<RootOptions>(0.3)});
  scheduler.step();
  CHECK(lr_of(root, 0) == 0.05);
  CHECK(lr_of(root, 1) == 0.3);
}

namespace {

/// An optimizer over one matrix and one vector, in two groups.
struct Training {
  std::vector<at::Tensor> parameters{test::parameter({8, 8}, 1), test::parameter({8}, 2)};
  Root optimizer{{{{parameters[0]}, std::make_unique<RootOptions>(0.01)},
                  {{parameters[1]}, std::make_unique<RootOptions>(0.04)}}};

  void steps(LrScheduler& scheduler, int64_t count) {
    for (int64_t t = 0; t < count; ++t) {
      test::train(optimizer, parameters, t, t + 1);
      scheduler.step();
    }
  }
  const RootOptions& options(size_t group) const { return optimizer.options(group); }
};

}  // namespace

TEST_CASE("loading before or after a scheduler is made gives the same rates", "[lr_scheduler]") {
  const auto schedule = LrSchedule::linear(100).warmup(10);
  Training whole;
  LrScheduler uninterrupted(whole.optimizer, schedule);
  whole.steps(uninterrupted, 50);
  const std::string content = saved(whole.optimizer);
  CHECK(whole.options(0).base_lr() == 0.01);
  CHECK(whole.options(1).base_lr() == 0.04);
  whole.steps(uninterrupted, 1);

  for (const bool load_first : {true, false}) {
    for (const double own : {0.01, 0.7}) {  // the file's base wins, as its rate does
      INFO((load_first ? "loaded first, " : "scheduler first, ") << own);
      Training resumed;
      for (auto& group : resumed.optimizer.param_groups()) group.options().set_lr(own);
      if (load_first) load_from(resumed.optimizer, content);
      LrScheduler scheduler(resumed.optimizer, schedule);
      if (!load_first) load_from(resumed.optimizer, content);
      scheduler.set_step(50);
      scheduler.step();
      CHECK(lr_of(resumed.optimizer, 0) == lr_of(whole.optimizer, 0));
      CHECK(lr_of(resumed.optimizer, 1) == lr_of(whole.optimizer, 1));
      CHECK(scheduler.base_lrs() == std::vector<double>{0.01, 0.04});
    }
  }
}

TEST_CASE("a scheduler that is made again starts from the base, not from the rate",
          "[lr_scheduler]") {
  Training training;
  Root& root = training.optimizer;
  LrScheduler(root, LrSchedule::constant().warmup(100));
  CHECK(lr_of(root) == 0.01 / 100);
  LrScheduler again(root, LrSchedule::constant().warmup(100));
  again.set_step(99);
  CHECK(lr_of(root) == 0.01);

  LrScheduler ended(root, LrSchedule::linear(5));
  training.steps(ended, 5);
  CHECK(lr_of(root) == 0);
  LrScheduler second(root, LrSchedule::linear(4));
  CHECK(lr_of(root, 0) == 0.01);
  CHECK(lr_of(root, 1) == 0.04);
  // The rate is the user's until the scheduler's next step; the base is not.
  root.param_groups()[0].options().set_lr(0.5);
  CHECK(second.base_lrs()[0] == 0.01);
  second.step();
  CHECK(lr_of(root) == 0.01 * 0.75);
}

TEST_CASE("a phase with another base says so, and its checkpoints know", "[lr_scheduler]") {
  const auto schedule = LrSchedule::linear(4);
  Training training;
  LrScheduler first(training.optimizer, schedule);
  training.steps(first, 4);
  const std::string of_first = saved(training.optimizer);
  LrScheduler second(training.optimizer, schedule, {0.002, 0.003});
  CHECK(lr_of(training.optimizer, 0) == 0.002);
  CHECK(lr_of(training.optimizer, 1) == 0.003);
  training.steps(second, 2);
  const std::string content = saved(training.optimizer);

  Training resumed;
  load_from(resumed.optimizer, content);
  LrScheduler unsaid(resumed.optimizer, schedule);
  unsaid.set_step(2);
  CHECK(lr_of(resumed.optimizer, 0) == lr_of(training.optimizer, 0));
  CHECK(lr_of(resumed.optimizer, 1) == lr_of(training.optimizer, 1));

  // What the code gives stays, whenever a file with another base is loaded; one for all groups.
  for (const bool load_first : {true, false}) {
    Training other;
    if (load_first) load_from(other.optimizer, of_first);
    LrScheduler said(other.optimizer, schedule, {0.5});
    if (!load_first) load_from(other.optimizer, of_first);
    said.set_step(1);
    CHECK(lr_of(other.optimizer, 0) == 0.5 * 0.75);
    CHECK(lr_of(other.optimizer, 1) == 0.5 * 0.75);
    CHECK(other.options(1).base_lr() == 0.5);
  }
}

TEST_CASE("a rate of 0 without a base, behind steps, is refused", "[lr_scheduler][errors]") {
  const auto schedule = LrSchedule::linear(4);
  Training training;
  Root& root = training.optimizer;
  // Before the first step 0 is a frozen group, and stays one.
  root.param_groups()[0].options().set_lr(0);
  LrScheduler frozen(root, schedule);
  training.steps(frozen, 4);
  CHECK_NOTHROW(LrScheduler(root, schedule));
  CHECK(lr_of(root, 0) == 0);
  CHECK(lr_of(root, 1) == 0.04);
  // Behind a step it may be the end of a schedule that nobody knows.
  Training unknown;
  test::train(unknown.optimizer, unknown.parameters, 0, 1);
  unknown.optimizer.param_groups()[1].options().set_lr(0);
  CHECK_THROWS_WITH(LrScheduler(unknown.optimizer, schedule),
                    contains("expected a learning rate above 0, or a base, of group 1") &&
                        contains("LrScheduler(optimizer, schedule, {1e-3})"));
  CHECK(lr_of(unknown.optimizer, 0) == 0.01);
  CHECK_FALSE(unknown.options(0).base_lr().has_value());
  unknown.optimizer.param_groups()[1].options().set_lr(1e-30);  // the other side of the boundary
  CHECK_NOTHROW(LrScheduler(unknown.optimizer, schedule));
  CHECK(unknown.options(1).base_lr() == 1e-30);
  // Without state, a group has taken no steps, whatever the others have.
  Training half;
  half.optimizer.param_groups()[1].options().set_lr(0);
  test::train(half.optimizer, {half.parameters[0]}, 0, 1);
  CHECK_NOTHROW(LrScheduler(half.optimizer, schedule));
  CHECK(half.options(1).base_lr() == 0);

  const at::Tensor p = test::parameter({4}, 1);
  torch::optim::AdamW adamw({p}, torch::optim::AdamWOptions(0.5));
  LrScheduler(adamw, LrSchedule::linear(1)).step();
  CHECK(lr_of(adamw) == 0);
  CHECK_NOTHROW(LrScheduler(adamw, schedule));  // no step yet
  test::train(adamw, {p}, 0, 1);
  CHECK_THROWS_WITH(LrScheduler(adamw, schedule), contains("of group 0, which has taken steps"));
  LrScheduler given(adamw, schedule, {0.5});
  CHECK(lr_of(adamw) == 0.5);
  CHECK_NOTHROW(LrScheduler(adamw, schedule, {0}));
}

TEST_CASE("bases are checked", "[lr_scheduler][errors]") {
  Training training;
  Root& root = training.optimizer;
  for (const double bad : {-1e-3, double{INFINITY}, std::nan("")}) {
    CHECK_THROWS_WITH(LrScheduler(root, LrSchedule::constant(), {bad}),
                      contains("expected base learning rates that are finite and >= 0, got"));
  }
  CHECK_THROWS_WITH(
      LrScheduler(root, LrSchedule::constant(), {1, 2, 3}),
      contains("expected one base learning rate or one for each of the 2 groups, got 3"));
  CHECK(lr_of(root, 0) == 0.01);
  root.options(0).base_lr(-1);
  test::set_gradient(training.parameters[0], at::ones({8, 8}));
  CHECK_THROWS_WITH(root.step(),
                    contains("expected base_lr to be finite in float32 and >= 0, got -1"));
}

TEST_CASE("a checkpoint keeps a scheduler's step", "[lr_scheduler][checkpoint]") {
  const auto schedule = LrSchedule::cosine(20).warmup(5);
  Training whole;
  LrScheduler scheduler(whole.optimizer, schedule);
  whole.steps(scheduler, 7);
  const std::string content = saved(whole.optimizer, scheduler);

  Training resumed;
  for (auto& group : resumed.optimizer.param_groups()) group.options().set_lr(0.7);
  LrScheduler goes_on(resumed.optimizer, schedule);
  load_from(resumed.optimizer, goes_on, content);
  for (int64_t t = 7; t < 22; ++t) {
    REQUIRE(goes_on.current_step() == t);
    REQUIRE(lr_of(resumed.optimizer, 0) == lr_of(whole.optimizer, 0));
    REQUIRE(lr_of(resumed.optimizer, 1) == lr_of(whole.optimizer, 1));
    scheduler.step();
    goes_on.step();
  }
  // The optimizer alone, and by path.
  Training alone;
  load_from(alone.optimizer, content);
  CHECK(alone.options(0).base_lr() == 0.01);
  const std::string path = "root_optim_test_scheduler.pt";
  root_optim::save(whole.optimizer, scheduler, path);
  root_optim::load(resumed.optimizer, goes_on, path);
  std::remove(path.c_str());
  CHECK(goes_on.current_step() == 22);
  // Bases that the code gives stay.
  Training other;
  LrScheduler given(other.optimizer, schedule, {0.5});
  load_from(other.optimizer, given, content);
  CHECK(given.current_step() == 7);
  CHECK(lr_of(other.optimizer, 1) == 0.5 * schedule.factor(7));
}

TEST_CASE("LibTorch's optimizers keep their scheduler's bases in such a checkpoint",
          "[lr_scheduler][checkpoint]") {
  const auto schedule = LrSchedule::linear(10);
  const at::Tensor p = test::parameter({4}, 1), q = test::parameter({4}, 1);
  torch::optim::AdamW adamw({p}, torch::optim::AdamWOptions(0.5));
  LrScheduler scheduler(adamw, schedule);
  test::train(adamw, {p}, 0, 3);
  for (int t = 0; t < 3; ++t) scheduler.step();
  const std::string content = saved(adamw, scheduler);
  torch::optim::AdamW resumed({q}, torch::optim::AdamWOptions(0.25));
  LrScheduler goes_on(resumed, schedule);
  load_from(resumed, goes_on, content);
  CHECK(goes_on.current_step() == 3);
  CHECK(lr_of(resumed) == lr_of(adamw));
  goes_on.step();
  CHECK(lr_of(resumed) == 0.5 * schedule.factor(4));
}

TEST_CASE("a checkpoint without a scheduler, or with another, changes nothing",
          "[lr_scheduler][checkpoint][errors]") {
  Training training, other;
  LrScheduler scheduler(training.optimizer, LrSchedule::linear(10));
  training.steps(scheduler, 3);
  LrScheduler target(other.optimizer, LrSchedule::linear(10));
  const auto unchanged = [&] {
    CHECK(target.current_step() == 0);
    CHECK(other.optimizer.state().empty());
    CHECK(lr_of(other.optimizer, 0) == 0.01);
  };
  CHECK_THROWS_WITH(
      load_from(other.optimizer, target, saved(training.optimizer)),
      contains("expected the step and the base learning rates of a scheduler, got none"));
  unchanged();
  Root one({test::parameter({8, 8}, 1)}, RootOptions(0.3));
  LrScheduler of_one(one, LrSchedule::linear(10));
  CHECK_THROWS_WITH(load_from(other.optimizer, target, saved(one, of_one)),
                    contains("expected a base learning rate for each of 2 groups, got 1"));
  unchanged();
  CHECK_THROWS_WITH(target.restore({-1, {1, 1}}), contains("expected a step >= 0, got -1"));
  CHECK_THROWS_WITH(target.restore({2, {1, -1}}), contains("finite and >= 0, got -1"));
  unchanged();
  CHECK(target.base_lrs() == std::vector<double>{0.01, 0.04});
}

TEST_CASE("a file of before there were bases takes none away", "[lr_scheduler][checkpoint]") {
  Training training;
  test::train(training.optimizer, training.parameters, 0, 1);
  training.optimizer.param_groups()[0].options().set_lr(0.005);
  const std::string content = saved(training.optimizer);  // no base: as formats up to 4
  Training resumed;
  LrScheduler scheduler(resumed.optimizer, LrSchedule::linear(10));
  load_from(resumed.optimizer, content);
  CHECK(lr_of(resumed.optimizer, 0) == 0.005);
  scheduler.set_step(5);
  CHECK(lr_of(resumed.optimizer, 0) == 0.01 * 0.5);
}
