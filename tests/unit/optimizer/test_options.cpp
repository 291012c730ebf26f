// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Options: their defaults, equality, plain form, archive and copies. What is out of range is in
// test_optimizer_errors.cpp.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <cmath>
#include <functional>

using namespace root_optim;

namespace {

RootOptions unusual() {
  return RootOptions(0.5)
      .base_lr(0.75)
      .momentum(0.25)
      .momentum_form(MomentumForm::Ema)
      .nesterov(false)
      .weight_decay(0.75)
      .scale(LrScale::Spectral)
      .filter(SoftThreshold().relative_to_rms(3))
      .orthogonalizer(AdaNewton().steps(7).compute_dtype(at::kDouble))
      .rule(Rule::AdamW)
      .layout(MatrixLayout().split_rows({8, 16}).out_dim(1))
      .betas(std::make_tuple(0.125, 0.375))
      .eps(1e-3)
      .adamw_lr_ratio(0.5)
      .adamw_weight_decay(0)
      .names({"a", "b.c"});
}

}  // namespace

TEST_CASE("Root's defaults are the paper's but for split and momentum", "[options]") {
  const RootOptions options;
  CHECK(options.lr() == 1e-3);
  CHECK_FALSE(options.base_lr().has_value());
  CHECK(options.momentum() == 0.85);
  CHECK(RootPaperOptions().momentum() == 0.95);
  CHECK(options.momentum_warmup() == 0);
  CHECK(options.momentum_form() == MomentumForm::Sum);
  CHECK(options.nesterov());
  CHECK(options.weight_decay() == 0.1);
  CHECK(options.scale() == LrScale::MatchRmsAdamW);
  CHECK(options.filter().mode() == SoftThreshold::Mode::Scaled);
  CHECK(options.filter().value() == 3);
  CHECK(options.filter().passes() == 3);
  CHECK(options.filter_place() == FilterPlace::Gradient);
  CHECK_FALSE(options.orthogonalizer().steps().has_value());  // as many as the budget affords
  CHECK_FALSE(options.orthogonalizer().budget().has_value());
  CHECK(options.orthogonalizer().form() == Form::Auto);
  CHECK_FALSE(options.orthogonalizer().compute_dtype().has_value());
  CHECK(options.rule() == Rule::Auto);
  CHECK(options.layout() == MatrixLayout());
  CHECK(options.betas() == std::make_tuple(0.9, 0.95));
  CHECK(options.eps() == 1e-8);
  CHECK_FALSE(options.batch_bytes().has_value());
  CHECK(options.adamw_settings().lr == 1e-3);  // one rate and one decay for both rules
  CHECK(options.adamw_settings().weight_decay == 0.1);
  CHECK(options.names().empty());
}

TEST_CASE("Muon's defaults are torch.optim.Muon's", "[options]") {
  const MuonOptions options;
  CHECK(options.lr() == 1e-3);
  CHECK(options.momentum() == 0.95);
  CHECK(options.momentum_form() == MomentumForm::Ema);
  CHECK(options.nesterov());
  CHECK(options.weight_decay() == 0.1);
  CHECK(options.scale() == LrScale::Original);
  // Muon's usual rate beside a usual one of AdamW
  CHECK(MuonOptions(0.02).adamw_settings().lr == 0.02 * unmatched_adamw_lr_ratio);
  CHECK(std::abs(MuonOptions(0.02).adamw_settings().lr - 1e-3) < 1e-18);
}

TEST_CASE("the learning rate is LibTorch's", "[options]") {
  RootOptions options(0.25);
  torch::optim::OptimizerOptions& base = options;
  CHECK(base.get_lr() == 0.25);
  base.set_lr(0.5);
  CHECK(options.lr() == 0.5);
}

TEST_CASE("the fields of a temporary outlive it in a loop", "[options]") {
  size_t count = 0;
  for (const auto& item : RootOptions().fields().values()) {
    CHECK_FALSE(item.first.empty());
    ++count;
  }
  CHECK(count == RootOptions().fields().values().size());
}

TEST_CASE("options are equal when every field is", "[options]") {
  CHECK(RootOptions() == RootOptions());
  CHECK(unusual() == unusual());
  const std::vector<std::function<void(RootOptions&)>> changes{
      [](auto& o) { o.lr(2); },
      [](auto& o) { o.base_lr(0.0); },
      [](auto& o) { o.momentum(0.5); },
      [](auto& o) { o.momentum_form(MomentumForm::Ema); },
      [](auto& o) { o.momentum_start(0.5); },
      [](auto& o) { o.momentum_warmup(100); },
      [](auto& o) { o.nesterov(false); },
      [](auto& o) { o.weight_decay(0.5); },
      [](auto& o) { o.scale(LrScale::Unscaled); },
      [](auto& o) { o.filter(SoftThreshold().quantile(0.5)); },
      [](auto& o) { o.filter(SoftThreshold().absolute(0.9)); },
      [](auto& o) { o.filter(SoftThreshold::published()); },
      [](auto& o) { o.filter(SoftThreshold().scaled(4)); },
      [](auto& o) { o.filter(SoftThreshold().scaled(3, 2)); },
      [](auto& o) { o.filter_place(FilterPlace::Momentum); },
      [](auto& o) { o.filter_place(FilterPlace::AllGradients); },
      [](auto& o) { o.orthogonalizer(AdaNewton().steps(6)); },
      [](auto& o) { o.orthogonalizer(AdaNewton().budget(2)); },
      [](auto& o) { o.orthogonalizer(AdaNewton().form(Form::Direct)); },
      [](auto& o) { o.orthogonalizer(AdaNewton().compute_dtype(at::kFloat)); },
      [](auto& o) { o.rule(Rule::AdamW); },
      [](auto& o) { o.layout(MatrixLayout().batch(true)); },
      [](auto& o) { o.betas(std::make_tuple(0.9, 0.9)); },
      [](auto& o) { o.eps(1e-7); },
      [](auto& o) { o.names({"a"}); }};
  for (size_t i = 0; i < changes.size(); ++i) {
    INFO("change " << i);
    RootOptions changed;
    changes[i](changed);
    CHECK(changed != RootOptions());
    CHECK(RootOptions::from_fields(changed.fields()) == changed);
  }
}

TEST_CASE("options survive their fields, an archive and a clone", "[options]") {
  const RootOptions options = unusual();
  const RootOptions from_fields = RootOptions::from_fields(options.fields());
  CHECK(from_fields == options);
  CHECK(from_fields.names() == options.names());
  CHECK(from_fields.layout() == options.layout());
  CHECK(from_fields.filter().value() == 3);
  CHECK(from_fields.orthogonalizer().compute_dtype() == at::kDouble);

  std::stringstream stream;
  torch::serialize::OutputArchive out;
  options.serialize(out);
  out.save_to(stream);
  torch::serialize::InputArchive in;
  in.load_from(stream);
  RootOptions from_archive;
  from_archive.serialize(in);
  CHECK(from_archive == options);

  const torch::optim::OptimizerOptions& base = options;
  CHECK(static_cast<const RootOptions&>(*base.clone()) == options);
}

TEST_CASE("fields of other policies or with holes are refused", "[options][errors]") {
  CHECK_THROWS_WITH(MuonOptions::from_fields(RootOptions().fields()),
                    test::contains("expected filter 'no_filter', got 'soft_threshold'"));
  CHECK_THROWS_WITH(RootOptions::from_fields(Fields()), test::contains("expected a field named"));
  Fields fields = RootOptions().fields();
  fields.set("lr", std::string("fast"));
  CHECK_THROWS_WITH(RootOptions::from_fields(fields), test::contains("expected field 'lr'"));
  fields = RootOptions().fields();
  fields.set("lr", -1.0);
  CHECK_THROWS_WITH(RootOptions::from_fields(fields), test::contains("expected lr to be finite"));
  for (const std::string key : {"rule", "scale", "momentum_form"}) {
    fields = RootOptions().fields();
    fields.set(key, int64_t{17});
    INFO(key);
    CHECK_THROWS_AS(RootOptions::from_fields(fields), c10::Error);
    fields.set(key, int64_t{-1});
    CHECK_THROWS_AS(RootOptions::from_fields(fields), c10::Error);
  }
  fields = RootOptions().fields();
  fields.set("betas", std::vector<double>{0.9});
  CHECK_THROWS_WITH(RootOptions::from_fields(fields), test::contains("expected two betas, got 1"));
}

TEST_CASE("Fields store values under their exact type", "[options][fields]") {
  Fields fields;
  fields.set("flag", true);
  fields.set("count", int64_t{3});
  fields.set("names", std::vector<std::string>{"a", "b"});
  CHECK(fields.get<bool>("flag"));
  CHECK(fields.get<int64_t>("count") == 3);
  CHECK(fields.get<std::vector<std::string>>("names")[1] == "b");
  CHECK(fields.contains("flag"));
  CHECK_FALSE(fields.contains("flags"));
  fields.set("flag", 0.5);
  CHECK(fields.get<double>("flag") == 0.5);
  CHECK_THROWS_WITH(fields.get<bool>("flag"),
                    test::contains("expected field 'flag' to be of the requested type"));
  CHECK_THROWS_WITH(fields.get<bool>("flags"),
                    test::contains("expected a field named 'flags', got none"));
  Fields same = fields;
  CHECK(same == fields);
  same.set("count", int64_t{4});
  CHECK(same != fields);
}

TEST_CASE("an optimizer gives a group's options in their own type", "[options]") {
  const at::Tensor p = at::ones({8, 8}).requires_grad_(true);
  Root root({p}, RootOptions(0.5));
  root.options(0).weight_decay(0.25);
  CHECK(&root.options(0) == &root.param_groups()[0].options());
  const Root& constant = root;
  CHECK(constant.options(0).weight_decay() == 0.25);
  CHECK_THROWS_WITH(root.options(1), test::contains("expected a group below 1, got 1"));
  root.param_groups()[0].set_options(std::make_unique<torch::optim::AdamWOptions>(0.1));
  CHECK_THROWS_WITH(
      root.options(0),
      test::contains("expected the options of group 0 to be of this optimizer's own"));
}
