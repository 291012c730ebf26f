// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What loading does with each option, as the list of options and docs/checkpoints.md say it; checkpoints of
// another model: what the errors list, and what a load by name takes and leaves.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/optimizer_state.hpp"
#include "support/saved.hpp"
#include "support/tolerances.hpp"
#include "support/training.hpp"

using namespace root_optim;
using test::contains;
using test::load_from;
using test::parameter;
using test::saved;
using test::train;

namespace {

using Names = std::vector<std::string>;

const LoadOptions kByName = LoadOptions().strict(false);

template <class T>
void change(T& value) {
  if constexpr (std::is_same_v<T, Rule>) {
    value = Rule::AdamW;  // the others resolve to one rule
  } else if constexpr (std::is_enum_v<T>) {
    value = static_cast<T>(static_cast<int>(value) == 0 ? 1 : 0);
  } else if constexpr (std::is_same_v<T, bool>) {
    value = !value;
  } else if constexpr (std::is_same_v<T, double>) {
    value = value / 2 + 0.125;
  } else if constexpr (std::is_same_v<T, int64_t>) {
    value += 7;
  } else if constexpr (std::is_same_v<T, std::optional<double>>) {
    value = value ? *value / 2 + 0.125 : 0.375;
  } else if constexpr (std::is_same_v<T, std::optional<int64_t>>) {
    value = value ? *value + 1 : 77;
  } else if constexpr (std::is_same_v<T, std::tuple<double, double>>) {
    value = {0.25, 0.5};
  } else if constexpr (std::is_same_v<T, MatrixLayout>) {
    value.split_rows(3);
  } else if constexpr (std::is_same_v<T, Names>) {
    value = {"other"};
  } else if constexpr (std::is_same_v<T, SoftThreshold>) {
    value.scaled(5, 2);
  } else {
    static_assert(std::is_same_v<T, AdaNewton>, "another value for this type of option, please");
    CoefficientTable table;
    table.set(16, 24, {{1.875, -1.25, 0.375}, {1.75, -1, 0.25}});
    value.table(table);
  }
}

const char* word(OnLoad on_load) {
  return on_load == OnLoad::Restored ? "restored" : on_load == OnLoad::Kept ? "kept" : "structure";
}

/// Matrices and vectors by name, each in its group.
struct Model {
  struct Layer {
    std::string name;
    std::vector<int64_t> shape;
    RootOptions options;
  };

  explicit Model(const std::vector<Layer>& layers) {
    std::vector<Root::Group> groups;
    for (const Layer& layer : layers) {
      parameters.push_back(parameter(layer.shape, parameters.size()));
      RootOptions options = layer.options;
      if (!layer.name.empty()) options.names({layer.name});
      groups.emplace_back(std::vector<at::Tensor>{parameters.back()},
                          std::make_unique<RootOptions>(options));
    }
    optimizer = std::make_unique<Root>(groups);
  }

  void steps(int64_t count) { train(*optimizer, parameters, 0, count); }

  /// The state of parameter `i`, or one without steps.
  ParamState state(size_t i) const {
    const auto found = optimizer->state().find(root_optim::detail::state_key(parameters[i]));
    return found == optimizer->state().end() ? ParamState()
                                             : static_cast<const ParamState&>(*found->second);
  }

  std::vector<at::Tensor> parameters;
  std::unique_ptr<Root> optimizer;
};

}  // namespace

TEST_CASE("loading does with every option what the list says", "[checkpoint][on_load]") {
  const RootOptions plain = RootOptions(0.05).names({"w"});
  RootOptions::each_option([&](const char* name, int64_t since, OnLoad on_load, auto member,
                               const auto& range) {
    INFO(name);
    CHECK((since == 0) == (on_load == OnLoad::Kept));
    RootOptions written = plain;
    change(written.*member);
    if (std::string(name) == "gate") written.gate(2);  // 0, or at least 1
    range(name, written.*member);
    REQUIRE_FALSE(root_optim::detail::stored_alike(plain.*member, written.*member));
    for (const bool forwards : {true, false}) {
      const RootOptions &in_file = forwards ? written : plain,
                        &in_code = forwards ? plain : written;
      const std::vector<at::Tensor> parameters{parameter({24, 16}, 1, at::kFloat)};
      Root first(parameters, in_file), second(parameters, in_code);
      train(first, parameters, 0, 1);
      const std::string content = saved(first);
      if (on_load == OnLoad::Structure || on_load == OnLoad::Parameters) {
        const std::string code_name = in_code.names()[0];
        CHECK_THROWS_WITH(load_from(second, content), contains(code_name));
        if (in_code.names() == in_file.names()) {
          CHECK_THROWS_WITH(
              load_from(second, content),
              contains(std::string("expected ") + name) &&
                  contains("for parameter 'w' (group 0, index 0, shape [24, 16]), got") &&
                  contains("in the checkpoint: build the optimizer with the"));
        }
        CHECK((second.options(0) == in_code));
        CHECK(second.state().empty());
        continue;
      }
      load_from(second, content);
      RootOptions expected = in_code;
      // A file without a base leaves that of the code.
      const bool from_file =
          on_load == OnLoad::Restored && !(std::string(name) == "base_lr" && !in_file.base_lr());
      if (from_file) expected.*member = in_file.*member;
      CHECK((second.options(0) == expected));
      CHECK(root_optim::detail::stored_alike(second.options(0).*member, expected.*member));
      CHECK(second.state().size() == 1);
    }
  });
}

TEST_CASE("docs/checkpoints.md lists every option as it is", "[checkpoint][on_load]") {
  std::ifstream file(std::filesystem::path(__FILE__).parent_path() /
                     "../../../docs/checkpoints.md");
  REQUIRE(file);
  std::vector<std::string> rows, expected;
  bool within = false;
  for (std::string line; std::getline(file, line);) {
    if (line.find("<!-- options: begin") == 0) within = true;
    if (line.find("<!-- options: end") == 0) within = false;
    if (!within || line.find("| `") != 0) continue;
    size_t end = 0;
    for (int bars = 0; bars < 4; ++bars) end = line.find('|', end) + 1;
    rows.push_back(line.substr(0, end));
  }
  RootOptions::each_option([&](const char* name, int64_t since, OnLoad on_load, auto, const auto&) {
    const std::string format = since == 0 ? "" : std::to_string(since) + " ";
    expected.push_back(std::string("| `") + name + "` | " + word(on_load) + " | " + format + "|");
  });
  CHECK(rows == expected);
}

TEST_CASE("calibrated tables come back, whatever the code's are", "[checkpoint][on_load]") {
  CoefficientTable calibrated, given;
  calibrated.set(16, 24, {{1.875, -1.25, 0.375}, {1.75, -1, 0.25}});
  given.set(16, 24, {{1.5, -0.5, 0}, {1.5, -0.5, 0}, {1.5, -0.5, 0}});
  Model first({{"w", {16, 24}, RootOptions(0.05)}}), second({{"w", {16, 24}, RootOptions(0.05)}});
  first.optimizer->options(0).orthogonalizer().table(calibrated);
  second.optimizer->options(0).orthogonalizer().table(given);
  first.steps(1);
  load_from(*second.optimizer, saved(*first.optimizer));
  REQUIRE(second.optimizer->options(0).orthogonalizer().table().find(16, 24) != nullptr);
  CHECK(second.optimizer->options(0).orthogonalizer().table().find(16, 24)->quintics.size() == 2);
  CHECK((second.optimizer->options(0) == first.optimizer->options(0)));
}

TEST_CASE("another model: the error lists missing and surplus names", "[checkpoint][errors]") {
  const RootOptions o(0.05);
  const Model::Layer a{"a", {16, 24}, o}, b{"b", {24}, o}, c{"c", {16, 24}, o}, d{"d", {24}, o};
  const auto refused = [&](const std::vector<Model::Layer>& written,
                           const std::vector<Model::Layer>& own, const std::string& message) {
    Model first(written), second(own);
    first.steps(1);
    CHECK_THROWS_WITH(load_from(*second.optimizer, saved(*first.optimizer)), contains(message));
    CHECK(second.optimizer->state().empty());
  };
  const std::string remedy = "; LoadOptions().strict(false) loads by name what both have";
  refused(
      {a, b}, {a, b, c, d},
      "expected the 4 parameters of the optimizer, got a checkpoint without 2 of them ('c', 'd')" +
          remedy);
  refused({a, b, c}, {a, b}, "got a checkpoint with 1 others ('c')" + remedy);
  refused({a, b}, {a, d},
          "got a checkpoint without 1 of them ('d') and with 1 others ('b')" + remedy);
  // The same names in other groups; a message cannot say more where one side has none.
  refused({a, b}, {b, a}, "expected the state of parameter 'b' (group 0, index 0, shape [24])");
  const Model::Layer unnamed{"", {16, 24}, o};
  refused({a, b}, {unnamed}, "expected 1 parameter groups, got 2; with names on both sides");
  refused({a, b}, {unnamed, unnamed}, "expected the shape of parameter 'b' (group 1, index 0");
  // Many names are not all shown.
  std::vector<Model::Layer> many;
  for (int i = 10; i < 31; ++i) many.push_back({"p" + std::to_string(i), {4}, o});
  refused(many, {a}, "'p29' and 1 more)");
  many.pop_back();
  refused(many, {a}, "'p28', 'p29');");
}

TEST_CASE("a rule or a layout that moves parameters to other groups is named",
          "[checkpoint][errors]") {
  const auto groups = [](const RoutingOverride& override) {
    torch::nn::Sequential model(torch::nn::Linear(16, 48), torch::nn::Linear(48, 16));
    return param_groups(*model, RootOptions(0.05), override);
  };
  const auto named = [](auto change) {
    return [change](RoutingEntry& entry) {
      if (entry.name == "0.weight") change(entry);
    };
  };
  Root plain(groups({}));
  Root split(groups(named([](RoutingEntry& e) { e.layout.split_rows(3); })));
  Root adamw(groups(named([](RoutingEntry& e) { e.rule = Rule::AdamW; })));
  REQUIRE(plain.param_groups().size() != split.param_groups().size());
  CHECK_THROWS_WITH(
      load_from(split, saved(plain)),
      contains("expected layout '3 row blocks' for parameter '0.weight' (group 1, index "
               "0, shape [48, 16]), got 'matrix' in the checkpoint"));
  CHECK_THROWS_WITH(load_from(plain, saved(split)),
                    contains("expected layout 'matrix' for parameter"));
  CHECK_THROWS_WITH(load_from(adamw, saved(plain)),
                    contains("expected rule adamw for parameter '0.weight' (group 1, index 0") &&
                        contains("got orthogonalized in the checkpoint"));
  CHECK_THROWS_WITH(load_from(plain, saved(adamw)),
                    contains("expected rule orthogonalized for parameter '0.weight'"));
}

TEST_CASE("a load by name takes what fits and says what it did", "[checkpoint][on_load]") {
  const auto rate = [](double lr) { return RootOptions(lr); };
  Model pretrained({{"body", {16, 24}, rate(0.5)},
                    {"bias", {24}, rate(0.5)},
                    {"old_head", {16, 24}, rate(0.5)},
                    {"table", {24, 16}, rate(0.5)},
                    {"fused", {24, 16}, rate(0.5)},
                    {"embedding", {16, 24}, rate(0.5)},
                    {"summed", {16, 24}, rate(0.5)}});
  pretrained.steps(3);
  const std::string content = saved(*pretrained.optimizer);
  Model tuned({{"head", {8, 16}, rate(0.1)},
               {"bias", {24}, rate(0.2)},
               {"table", {24, 17}, rate(0.3)},
               {"fused", {24, 16}, rate(0.3).layout(MatrixLayout().split_rows(3))},
               {"embedding", {16, 24}, rate(0.3).rule(Rule::AdamW)},
               {"summed", {16, 24}, rate(0.3).momentum_form(MomentumForm::Ema)},
               {"body", {16, 24}, rate(0.4).rule(Rule::Orthogonalized)}});
  tuned.steps(1);
  std::vector<ParamState> before;
  for (size_t i = 0; i < 7; ++i) before.push_back(tuned.state(i));
  const LoadReport report = load_from(*tuned.optimizer, content, kByName);
  CHECK(report.loaded == Names{"bias", "body"});
  CHECK(report.missing == Names{"head"});
  CHECK(report.surplus == Names{"old_head"});
  REQUIRE(report.unfit.size() == 4);
  CHECK_THAT(report.unfit.at("table"), contains("expected the shape of parameter 'table'"));
  CHECK_THAT(report.unfit.at("fused"), contains("expected layout '3 row blocks'"));
  CHECK_THAT(report.unfit.at("embedding"), contains("expected rule adamw"));
  CHECK_THAT(report.unfit.at("summed"), contains("expected momentum_form ema"));
  std::ostringstream text;
  text << report;
  CHECK_THAT(text.str(),
             contains("loaded 2 parameters; missing 'head'; surplus 'old_head'; "
                      "'embedding' does not fit: root_optim::load: expected rule adamw"));
  // What was loaded is the file's, everything else as before.
  CHECK((tuned.state(1) == pretrained.state(1)));
  CHECK((tuned.state(6) == pretrained.state(0)));
  CHECK(tuned.state(6).step() == 3);
  for (const size_t i : std::vector<size_t>{0, 2, 3, 4, 5}) CHECK((tuned.state(i) == before[i]));
  CHECK(tuned.optimizer->options(0).lr() == 0.1);
  CHECK(tuned.optimizer->options(6).lr() == 0.4);
  CHECK(tuned.optimizer->options(6).rule() == Rule::Orthogonalized);
  CHECK_NOTHROW(tuned.steps(2));
  // Its memory is its own.
  CHECK(pretrained.state(1).step() == 3);
}

TEST_CASE("a load by name of an equal model goes on bit by bit", "[checkpoint][on_load]") {
  const std::vector<Model::Layer> layers{{"a", {16, 24}, RootOptions(0.05)},
                                         {"b", {24}, RootOptions(0.05)}};
  const std::vector<Model::Layer> turned{layers[1], layers[0]};
  Model whole(layers), resumed(turned);
  whole.steps(4);
  const LoadReport report = load_from(*resumed.optimizer, saved(*whole.optimizer), kByName);
  CHECK(report.loaded == Names{"b", "a"});
  CHECK(report.missing.empty());
  CHECK(report.surplus.empty());
  CHECK(report.unfit.empty());
  {
    const at::NoGradGuard no_grad;
    resumed.parameters[0].copy_(whole.parameters[1]);
    resumed.parameters[1].copy_(whole.parameters[0]);
  }
  train(*whole.optimizer, whole.parameters, 4, 7);
  train(*resumed.optimizer, resumed.parameters, 4, 7);
  CHECK_THAT(resumed.parameters[1], test::same_as(whole.parameters[0]));
  CHECK_THAT(resumed.parameters[0], test::same_as(whole.parameters[1]));
  // A strict load reports as well; a checkpoint before the first step takes state away.
  Model fresh(layers);
  CHECK(load_from(*whole.optimizer, saved(*fresh.optimizer), LoadOptions()).loaded ==
        Names{"a", "b"});
  CHECK(whole.optimizer->state().empty());
  train(*whole.optimizer, whole.parameters, 0, 1);
  load_from(*whole.optimizer, saved(*fresh.optimizer), kByName);
  CHECK(whole.optimizer->state().empty());
}

TEST_CASE("a load by name needs names, each once, and refuses damage", "[checkpoint][errors]") {
  const RootOptions o(0.05);
  Model named({{"a", {16, 24}, o}, {"b", {24}, o}}), unnamed({{"", {16, 24}, o}, {"", {24}, o}}),
      twice({{"a", {16, 24}, o}, {"a", {24}, o}});
  for (Model* each : {&named, &unnamed, &twice}) each->steps(1);
  for (Model* other : {&unnamed, &twice}) {
    CHECK_THROWS_WITH(load_from(*named.optimizer, saved(*other->optimizer), kByName),
                      contains("expected a name of its own for every parameter") &&
                          contains("got none or one twice in the checkpoint"));
    CHECK_THROWS_WITH(load_from(*other->optimizer, saved(*named.optimizer), kByName),
                      contains("got none or one twice in the optimizer"));
    CHECK_NOTHROW(load_from(*other->optimizer, saved(*other->optimizer)));  // strict goes by place
  }
  Model changed({{"a", {16, 24}, o}, {"b", {24}, o}});
  changed.steps(2);
  test::state_of(*changed.optimizer, changed.parameters[0]).step(-5);
  const ParamState before = named.state(1);
  CHECK_THROWS_WITH(load_from(*named.optimizer, saved(*changed.optimizer), kByName),
                    contains("expected a momentum or two moments of parameter 'a'"));
  CHECK((named.state(1) == before));
}
