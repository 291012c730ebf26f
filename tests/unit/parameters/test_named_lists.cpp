// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Routing of lists of names and tensors, as TorchScript modules have them: the same names as a
// module's, no types.
#include "support/catch_torch.hpp"

#include <root_optim/parameters/routing_table.hpp>
#include <root_optim/root.hpp>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "support/training.hpp"

using root_optim::MatrixLayout;
using root_optim::param_groups;
using root_optim::Root;
using root_optim::RootOptions;
using root_optim::route;
using root_optim::RoutingEntry;
using root_optim::RoutingOptions;
using root_optim::Rule;
using test::contains;

namespace nn = torch::nn;

namespace {

using Pairs = std::vector<std::pair<std::string, at::Tensor>>;

std::vector<std::string> lines(const std::vector<RoutingEntry>& entries) {
  std::vector<std::string> result;
  for (const RoutingEntry& entry : entries) {
    result.push_back(entry.name + " | " + to_string(entry.rule) + " | " + to_string(entry.layout) +
                     " | " + entry.reason);
  }
  return result;
}

at::Tensor leaf(std::vector<int64_t> shape) { return at::randn(shape).requires_grad_(true); }

/// A language model's parameters, as `named_parameters()` lists them.
Pairs language_model() {
  return {{"wte.weight", leaf({100, 16})},
          {"layers.0.qkv.weight", leaf({48, 16})},
          {"layers.0.qkv.bias", leaf({48})},
          {"layers.0.norm.weight", leaf({16})},
          {"layers.0.conv.weight", leaf({16, 1, 3})},
          {"layers.0.up.weight", leaf({32, 16})},
          {"lm_head.weight", leaf({100, 16})}};
}

/// The same as a TorchScript module.
torch::jit::Module scripted(const Pairs& parameters) {
  torch::jit::Module root("Model");
  for (const auto& [name, tensor] : parameters) {
    torch::jit::Module at = root;
    size_t start = 0;
    for (size_t dot = name.find('.'); dot != std::string::npos; dot = name.find('.', start)) {
      const std::string child = name.substr(start, dot - start);
      if (!at.hasattr(child)) at.register_module(child, torch::jit::Module("Part_" + name));
      at = at.attr(child).toModule();
      start = dot + 1;
    }
    at.register_parameter(name.substr(start), tensor, /*is_buffer=*/false);
  }
  return root;
}

}  // namespace

TEST_CASE("route: a list of names and tensors goes by name and shape", "[routing]") {
  const Pairs pairs = language_model();
  const std::vector<std::string> expected{
      "wte.weight | adamw | matrix | embedding by the name \"wte\"",
      "layers.0.qkv.weight | orthogonalized | matrix | weight by the name \"qkv\": 48x16",
      "layers.0.qkv.bias | adamw | matrix | bias",
      "layers.0.norm.weight | adamw | matrix | rank 1",
      "layers.0.conv.weight | adamw | matrix | weight by the name \"conv\": flattened to 16x3 "
      "(side < 8)",
      "layers.0.up.weight | orthogonalized | matrix | weight by the name \"weight\": 32x16",
      "lm_head.weight | adamw | matrix | output head by the name \"lm_head\""};
  REQUIRE(lines(route(pairs, RootOptions()).entries()) == expected);

  // Every kind of list gives the same table, of the same tensors.
  torch::OrderedDict<std::string, at::Tensor> dictionary;
  for (const auto& [name, tensor] : pairs) dictionary.insert(name, tensor);
  REQUIRE(lines(route(dictionary, RootOptions()).entries()) == expected);
  const torch::jit::Module module = scripted(pairs);
  const auto by_script = route(module.named_parameters(), RootOptions()).entries();
  REQUIRE(by_script.size() == pairs.size());
  for (const RoutingEntry& entry : by_script) {
    const auto found = std::find_if(pairs.begin(), pairs.end(),
                                    [&](const auto& pair) { return pair.first == entry.name; });
    REQUIRE(found != pairs.end());
    REQUIRE(entry.parameter.is_same(found->second));
    REQUIRE(lines({entry})[0] == expected[static_cast<size_t>(found - pairs.begin())]);
  }
  const std::map<std::string, at::Tensor> map(pairs.begin(), pairs.end());
  REQUIRE(route(map, RootOptions()).entries().size() == pairs.size());
  REQUIRE(route(Pairs{}, RootOptions()).entries().empty());
}

TEST_CASE("route: overrides, heads and options serve lists as they serve modules", "[routing]") {
  const Pairs pairs = language_model();
  const auto groups = param_groups(pairs, RootOptions(0.25),
                                   [](RoutingEntry& entry) {
                                     if (entry.name == "layers.0.qkv.weight")
                                       entry.layout.split_rows(3);
                                   },
                                   {"layers.0.up"});
  REQUIRE(groups.size() == 3);
  const auto names = [&](size_t g) {
    return static_cast<const RootOptions&>(groups[g].options()).names();
  };
  REQUIRE(names(0) == std::vector<std::string>{"lm_head.weight"});  // other heads were named
  REQUIRE(names(1) == std::vector<std::string>{"layers.0.qkv.weight"});
  REQUIRE(names(2).size() == 5);
  REQUIRE_THROWS_WITH(param_groups(pairs, RootOptions(), {}, {"missing"}), contains("'missing'"));
  REQUIRE_THROWS_WITH(route(pairs, RootOptions().rule(Rule::AdamW)), contains("got rule adamw"));

  const Pairs unknown{{"mystery", leaf({16, 16})}, {"net.0.weight", leaf({16, 16})}};
  const auto entries =
      route(unknown, RootOptions(), {}, RoutingOptions().unknown(Rule::AdamW)).entries();
  REQUIRE(entries[0].rule == Rule::AdamW);
  REQUIRE(entries[1].rule == Rule::Orthogonalized);
}

TEST_CASE("route: a list counts a tied tensor once, and takes every name once", "[routing]") {
  const at::Tensor tied = leaf({100, 16});
  const Pairs pairs{{"out.weight", tied}, {"wte.weight", tied}, {"absent", at::Tensor()}};
  REQUIRE(lines(route(pairs, RootOptions()).entries()) ==
          std::vector<std::string>{
              "out.weight | adamw | matrix | embedding by the name \"wte\"; tied to wte.weight"});
  REQUIRE_THROWS_WITH(route(Pairs{{"a", leaf({8, 8})}, {"a", leaf({8, 8})}}, RootOptions()),
                      contains("expected every name once, got 'a' twice"));
  REQUIRE_THROWS_WITH(
      route(Pairs{{"z", at::zeros({8, 8}, at::kComplexFloat).requires_grad_(true)}}, RootOptions()),
      contains("got dtype ComplexFloat for 'z'") && contains("view_as_real"));
}

TEST_CASE("route: a module that is a range of modules is a module", "[routing]") {
  nn::Sequential layers(nn::Linear(nn::LinearOptions(16, 32).bias(false)), nn::ReLU());
  REQUIRE(route(*layers, RootOptions()).entries()[0].reason == "linear: 32x16");
  nn::ModuleList list(nn::Linear(nn::LinearOptions(16, 32).bias(false)));
  REQUIRE(param_groups(*list, RootOptions()).size() == 1);
}

TEST_CASE("a TorchScript module trains", "[routing]") {
  torch::manual_seed(1);
  torch::jit::Module module("Net");
  module.register_parameter("w1", leaf({32, 16}), false);
  module.register_parameter("bias", leaf({32}), false);
  module.register_parameter("w2", leaf({8, 32}), false);
  module.define(
      "def forward(self, x):\n  return torch.relu(x @ self.w1.t() + self.bias) @ self.w2.t()\n");
  const auto groups = param_groups(module.named_parameters(), RootOptions(0.02));
  REQUIRE(groups.size() == 2);
  Root optimizer(groups);
  const at::Tensor x = at::randn({64, 16}), y = x.narrow(1, 0, 8).clone();
  const auto loss = [&] { return (module.forward({x}).toTensor() - y).square().mean(); };
  const double before = loss().item<double>();
  for (int step = 0; step < 50; ++step) {
    optimizer.zero_grad();
    loss().backward();
    optimizer.step();
  }
  REQUIRE(loss().item<double>() < 0.2 * before);
}
