// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The AdamW rule's own learning rate, a ratio of the group's, and its own weight decay.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <limits>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "support/tolerances.hpp"
#include "support/training.hpp"

using namespace root_optim;
using test::contains;
using test::parameter;
using test::train;

namespace {

using Tensors = std::vector<at::Tensor>;

}  // namespace

TEST_CASE("lr times the ratio, and a decay of its own, is what torch::optim::AdamW takes",
          "[adamw_options]") {
  struct Case {
    LrScale scale;
    std::optional<double> ratio, decay;
    double lr, weight_decay;  // what AdamW must take
  };
  const std::vector<Case> cases{
      {LrScale::MatchRmsAdamW, std::nullopt, std::nullopt, 0.02, 0.3},
      {LrScale::Original, std::nullopt, std::nullopt, 0.02 * 0.05, 0.3},
      {LrScale::Spectral, std::nullopt, std::nullopt, 0.02 * 0.05, 0.3},
      {LrScale::Unscaled, std::nullopt, std::nullopt, 0.02 * 0.05, 0.3},
      {LrScale::Original, 1.0, 0.0, 0.02, 0.0},
      {LrScale::MatchRmsAdamW, 0.25, 0.7, 0.02 * 0.25, 0.7},
      {LrScale::MatchRmsAdamW, 3.0, std::nullopt, 0.02 * 3, 0.3},
      {LrScale::Original, 0.0, 0.5, 0.0, 0.5},
  };
  for (const Case& c : cases) {
    for (const bool strided : {false, true}) {  // by the fused kernel, and by the plain form
      CAPTURE(static_cast<int>(c.scale), c.ratio.value_or(-1), c.decay.value_or(-1), strided);
      at::Tensor ours = parameter({24}, 1);
      if (strided) {
        ours = at::zeros({24, 2}, at::kDouble).select(1, 0).copy_(ours.detach());
        ours.requires_grad_(true);
      }
      const at::Tensor theirs = ours.detach().clone().requires_grad_(true);
      Root root({ours}, RootOptions(0.02)
                            .weight_decay(0.3)
                            .scale(c.scale)
                            .adamw_lr_ratio(c.ratio)
                            .adamw_weight_decay(c.decay));
      torch::optim::AdamW adamw({theirs}, torch::optim::AdamWOptions(c.lr)
                                              .weight_decay(c.weight_decay)
                                              .betas(std::make_tuple(0.9, 0.95)));
      train(root, {ours}, 0, 20);
      train(adamw, {theirs}, 0, 20);
      CHECK_THAT(ours, test::close_to(theirs,
                                      test::tolerance(test::Quantity::AdamWStep, at::kDouble), 20));
    }
  }
}

TEST_CASE("the ratio and the decay of AdamW leave matrices alone", "[adamw_options]") {
  const at::Tensor a = parameter({16, 24}, 1), b = parameter({16, 24}, 1);
  Root plain({a}, RootOptions(0.02));
  Root with({b}, RootOptions(0.02).adamw_lr_ratio(0.1).adamw_weight_decay(0.9));
  train(plain, {a}, 0, 3);
  train(with, {b}, 0, 3);
  CHECK_THAT(a, test::same_as(b));
}

TEST_CASE("a scheduler moves the rate of both rules", "[adamw_options]") {
  // One step from zero moments is lr·ρ in size, whatever the gradient.
  for (const double ratio : {0.05, 1.0, 4.0}) {
    const at::Tensor p = at::zeros({3}, at::kDouble).requires_grad_(true);
    Muon muon({p}, MuonOptions(0.02).adamw_lr_ratio(ratio).weight_decay(0).eps(0));
    torch::optim::StepLR scheduler(muon, 1, 0.5);
    scheduler.step();  // LibTorch counts the first call as step 0
    scheduler.step();
    p.mutable_grad() = at::ones_like(p);
    muon.step();
    CHECK_THAT(p, test::close_to(at::full({3}, -0.01 * ratio, at::kDouble),
                                 test::tolerance(test::Quantity::AdamWStep, at::kDouble), 1));
  }
}

TEST_CASE("the AdamW options are checked, saved and loaded", "[adamw_options][checkpoint]") {
  const at::Tensor p = parameter({24}, 1);
  CHECK_THROWS_WITH(Root({p}, RootOptions().adamw_lr_ratio(-0.5)),
                    contains("expected adamw_lr_ratio to be finite in float32 and >= 0, got -0.5"));
  CHECK_THROWS_WITH(Root({p}, RootOptions().adamw_weight_decay(-1)),
                    contains("expected adamw_weight_decay to be finite in float32 and >= 0"));
  CHECK_THROWS_WITH(
      Root({p}, RootOptions().adamw_lr_ratio(std::numeric_limits<double>::infinity())),
      contains("expected adamw_lr_ratio"));
  for (const std::optional<double> value : {std::optional<double>(), std::optional<double>(0.25)}) {
    const RootOptions options = RootOptions().adamw_lr_ratio(value).adamw_weight_decay(value);
    Root saved({p}, options), loaded({p}, RootOptions().adamw_lr_ratio(7).adamw_weight_decay(8));
    std::stringstream file;
    root_optim::save(saved, file);
    root_optim::load(loaded, file);
    CHECK((static_cast<const RootOptions&>(loaded.param_groups()[0].options()) == options));
  }
}

TEST_CASE("before format 5 both rules shared rate and decay", "[adamw_options][checkpoint]") {
  CheckpointGroup group;
  group.options = MuonOptions(0.02).fields();
  Checkpoint checkpoint{group};
  root_optim::detail::upgrade(checkpoint, 4);
  const MuonOptions old = MuonOptions::from_fields(checkpoint[0].options);
  CHECK(old.adamw_settings().lr == 0.02);
  CHECK(old.adamw_settings().weight_decay == 0.1);
  CHECK(old.non_finite() == NonFinite::SkipGroup);
  root_optim::detail::upgrade(checkpoint, 5);
  CHECK((MuonOptions::from_fields(checkpoint[0].options) == old));
}

TEST_CASE("two options name what differs, whether or not checkpoints keep it", "[adamw_options]") {
  const RootOptions options;
  CHECK(options.differing(options).empty());
  CHECK(options.differing(RootOptions().weight_decay(0).batch_bytes(7)) ==
        std::vector<std::string>{"weight_decay", "batch_bytes"});
  CHECK(options.differing(RootOptions().filter(SoftThreshold().quantile(0.5))) ==
        std::vector<std::string>{"filter"});
}

TEST_CASE("rates that a step reads from the device are AdamW's own, too", "[adamw_options]") {
  for (const std::optional<double> decay : {std::optional<double>(), std::optional<double>(0.25)}) {
    const at::Tensor a = parameter({24}, 1), b = parameter({24}, 1);
    const MuonOptions options = MuonOptions(0.02).adamw_lr_ratio(0.5).adamw_weight_decay(decay);
    Muon host({a}, options), device({b}, MuonOptions(options).capturable(true));
    train(host, {a}, 0, 3);
    train(device, {b}, 0, 3);
    CHECK_THAT(a, test::close_to(b, test::tolerance(test::Quantity::AdamWStep, at::kDouble), 3));
  }
}
