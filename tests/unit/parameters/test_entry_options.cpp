// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Options that a routing override sets for one entry: groups split by them, the table says so, and the
// recipe for no weight decay on norms and biases.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <string>
#include <utility>
#include <vector>

#include "support/groups.hpp"
#include "support/training.hpp"

namespace nn = torch::nn;
using namespace root_optim;
using test::contains;
using test::options_of;

namespace {

using Group = torch::optim::OptimizerParamGroup;
using Names = std::vector<std::string>;

struct NetImpl : nn::Module {
  NetImpl() {
    register_module("embed", nn::Embedding(64, 16));
    register_module("up", nn::Linear(16, 64));
    register_module("norm", nn::LayerNorm(nn::LayerNormOptions({64})));
    register_module("grid_norm", nn::LayerNorm(nn::LayerNormOptions({16, 16})));
    register_module("down", nn::Linear(64, 16));
    register_parameter("logit_scale", torch::ones({}));
    register_parameter("expert_bias", torch::ones({16, 16}));
    register_parameter("ffn_gamma", torch::ones({16, 16}));
  }
};
TORCH_MODULE(Net);

std::string reason_of(const std::vector<RoutingEntry>& entries, const std::string& name) {
  for (const RoutingEntry& entry : entries) {
    if (entry.name == name) return entry.reason;
  }
  return "no entry " + name;
}

}  // namespace

TEST_CASE("route: groups split by the options of their entries", "[routing][entry_options]") {
  const Net net;
  const RootOptions base = RootOptions(0.02).weight_decay(0.3);
  const auto table = route(*net, base, [](RoutingEntry& entry, RootOptions& options) {
    if (entry.name == "down.weight") options.weight_decay(0.5).batch_bytes(7);
    if (entry.name == "down.bias") options.adamw_lr_ratio(0.5);
    if (entry.name == "up.bias") options.adamw_lr_ratio(0.5);
    if (entry.name == "up.weight") entry.layout.split_rows(4);
  });
  CHECK(reason_of(table.entries(), "down.weight") ==
        "linear: 16x64; own weight_decay, batch_bytes");
  CHECK(reason_of(table.entries(), "down.bias") == "bias; own adamw_lr_ratio");
  CHECK(reason_of(table.entries(), "norm.weight") == "normalization");
  const auto groups = table.groups();
  REQUIRE(groups.size() == 4);
  CHECK(options_of(groups[0]).names() == Names{"down.weight"});
  CHECK(options_of(groups[0]).weight_decay() == 0.5);
  CHECK(options_of(groups[0]).batch_bytes() == 7);
  CHECK(options_of(groups[1]).names() == Names{"up.weight"});
  CHECK(options_of(groups[1]).layout() == MatrixLayout().split_rows(4));
  CHECK(options_of(groups[1]).weight_decay() == 0.3);
  // The table's own options come first, then those of entries.
  CHECK(options_of(groups[2]).names().size() == 8);
  CHECK_FALSE(options_of(groups[2]).adamw_lr_ratio().has_value());
  CHECK(options_of(groups[3]).names() == Names{"up.bias", "down.bias"});
  CHECK(options_of(groups[3]).adamw_lr_ratio() == 0.5);
  CHECK(options_of(groups[3]).weight_decay() == 0.3);
  Root root(groups);
  CHECK(root.param_groups().size() == 4);
}

TEST_CASE("route: options that an override leaves as they are split nothing",
          "[routing][entry_options]") {
  const Net net;
  const auto plain = route(*net, RootOptions()).groups();
  const auto same = route(*net, RootOptions(), [](RoutingEntry&, RootOptions& options) {
                      options.weight_decay(0.1);  // as it was
                    }).groups();
  REQUIRE(plain.size() == same.size());
  for (size_t g = 0; g < plain.size(); ++g) CHECK(options_of(plain[g]) == options_of(same[g]));
}

TEST_CASE("route: an override that changes state may take options, too",
          "[routing][entry_options]") {
  const Net net;
  int count = 0;
  const auto groups =
      param_groups(*net, RootOptions(), [count](RoutingEntry&, RootOptions& options) mutable {
        if (count++ == 0) options.lr(0.5);
      });
  CHECK(options_of(groups.back()).lr() == 0.5);
  CHECK(options_of(groups.back()).names().size() == 1);
}

TEST_CASE("route: what an override must not do with the options of an entry",
          "[routing][entry_options][errors]") {
  const Net net;
  const auto refused = [&](auto change, const std::string& message) {
    CHECK_THROWS_WITH(route(*net, RootOptions(),
                            [&](RoutingEntry& entry, RootOptions& options) {
                              if (entry.name == "up.weight") change(options);
                            }),
                      contains(message));
  };
  refused([](RootOptions& o) { o.rule(Rule::AdamW); },
          "expected the override to set rule and layout of the entry, not of its options, for "
          "parameter 'up.weight', got rule adamw");
  refused([](RootOptions& o) { o.layout(MatrixLayout().split_rows(4)); },
          "for parameter 'up.weight', got rule auto, layout '4 row blocks'");
  refused([](RootOptions& o) { o.names({"up"}); }, "1 names");
  refused([](RootOptions& o) { o.weight_decay(-1); }, "expected weight_decay");
  CHECK_THROWS_WITH(RoutingTable<RootOptions>(route(*net, RootOptions()).entries(), RootOptions(),
                                              {RootOptions()}),
                    contains("expected no own options or one an entry, got 1 for 12 entries"));
}

TEST_CASE("no weight decay on norms and biases, and on nothing else", "[routing][entry_options]") {
  const Net net;
  const RootOptions base = RootOptions().weight_decay(0.3).adamw_weight_decay(0.2);
  const auto groups = param_groups(*net, base, no_decay_on_norms_and_biases);
  REQUIRE(groups.size() == 3);
  CHECK(options_of(groups[0]).names() == Names{"up.weight", "down.weight"});
  CHECK(options_of(groups[0]).weight_decay() == 0.3);
  CHECK(options_of(groups[1]).names() == Names{"embed.weight"});
  CHECK(options_of(groups[1]).adamw_weight_decay() == 0.2);
  CHECK(options_of(groups[2]).names() == Names{"logit_scale", "expert_bias", "ffn_gamma", "up.bias",
                                               "norm.weight", "norm.bias", "grid_norm.weight",
                                               "grid_norm.bias", "down.bias"});
  CHECK(options_of(groups[2]).adamw_settings().weight_decay == 0);

  // With gradients of zero a step is the decay alone.
  Root root(groups);
  std::vector<at::Tensor> before;
  const auto parameters = net->named_parameters();
  for (const auto& item : parameters) {
    item.value().mutable_grad() = torch::zeros_like(item.value());
    before.push_back(item.value().detach().clone());
  }
  root.step();
  size_t i = 0;
  for (const auto& item : parameters) {
    const bool decays =
        item.key() == "up.weight" || item.key() == "down.weight" || item.key() == "embed.weight";
    INFO(item.key());
    CHECK(item.value().equal(before[i++]) == !decays);
  }
}

TEST_CASE("the recipe works for lists of names, and inside an override",
          "[routing][entry_options]") {
  const std::vector<std::pair<std::string, at::Tensor>> list{
      {"up.weight", torch::ones({16, 64})},
      {"up.bias", torch::ones({16})},
      {"embed.weight", torch::ones({64, 16})}};
  const auto by_name = param_groups(list, RootOptions(), no_decay_on_norms_and_biases);
  REQUIRE(by_name.size() == 3);
  CHECK(options_of(by_name[2]).names() == Names{"up.bias"});
  const auto all = param_groups(list, RootOptions(), [](RoutingEntry& entry, RootOptions& options) {
    no_decay_on_norms_and_biases(entry, options);
    if (entry.kind == "embedding") options.adamw_weight_decay(0);
  });
  REQUIRE(all.size() == 3);
  CHECK(options_of(all[1]).names() == Names{"up.bias"});
  CHECK(options_of(all[2]).names() == Names{"embed.weight"});
  CHECK(options_of(all[2]).weight_decay() == 0.1);
}

TEST_CASE("an entry says in a word what it is", "[routing][entry_options]") {
  const Net net;
  Names kinds;
  for (const RoutingEntry& entry : route(*net, RootOptions(), {}, {"down"}).entries()) {
    kinds.push_back(entry.name + ": " + entry.kind);
  }
  CHECK(kinds == Names{"logit_scale: rank 0", "expert_bias: bias", "ffn_gamma: gain",
                       "embed.weight: embedding", "up.weight: linear", "up.bias: bias",
                       "norm.weight: normalization", "norm.bias: normalization",
                       "grid_norm.weight: normalization", "grid_norm.bias: normalization",
                       "down.weight: output head", "down.bias: bias"});
}
