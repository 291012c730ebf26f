// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Learning-rate schedules: their factors by hand, and what a scheduler does to an optimizer's groups.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <cmath>
#include <sstream>
#include <vector>

#include "support/training.hpp"

using namespace root_optim;
using test::contains;

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
  CHECK_THROWS_WITH(LrSchedule::linear(5).warmup(-1), contains("got -1"));
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
  std::stringstream file;
  root_optim::save(root, file);

  Root resumed({p}, RootOptions(0.1));
  LrScheduler resumed_scheduler(resumed, schedule);
  root_optim::load(resumed, file);
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
