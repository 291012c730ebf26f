// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Checkpoints that earlier formats and other versions of LibTorch wrote: each loads with the linked
// LibTorch, holds the options and the state that the recurrences give, and goes on as the reference
// does. The files are tests/fixtures/checkpoints/formatF/NAME-libtorch-VERSION.pt.
#include "fixtures/checkpoint_models.hpp"

#include <algorithm>
#include <filesystem>
#include <set>
#include <string>

#include "support/optimizer_state.hpp"
#include "support/tolerances.hpp"
#include "support/training.hpp"

using namespace root_optim;
using test::fixtures::Built;
using test::fixtures::kSteps;
using test::fixtures::Model;
using test::fixtures::Param;

namespace {

namespace fs = std::filesystem;

/// Format and LibTorch of the files that must be there, three of each.
struct Writer {
  int64_t format;
  const char* libtorch;

  std::string file(const std::string& name) const {
    return "format" + std::to_string(format) + "/" + name + "-libtorch-" + libtorch + ".pt";
  }
};
constexpr Writer kWriters[] = {
    {1, "1.13.1"}, {1, "2.13.0"},                                                              //
    {2, "1.13.1"}, {2, "2.2.2"},  {2, "2.6.0"},  {2, "2.10.0"}, {2, "2.13.0"}, {2, "2.14.1"},  //
    {3, "1.13.1"}, {3, "2.2.2"},  {3, "2.6.0"},  {3, "2.10.0"}, {3, "2.13.0"}, {3, "2.14.1"},  //
    {4, "1.13.1"}, {4, "2.13.0"}, {4, "2.14.1"},                                               //
    {5, "1.13.1"}, {5, "2.13.0"}, {5, "2.14.1"}};

fs::path folder() { return fs::path(__FILE__).parent_path() / "../../fixtures/checkpoints"; }

at::ScalarType state_dtype(const Param& param) {
  return param.dtype == at::kDouble ? at::kDouble : at::kFloat;
}

/// What a parameter's state must be after step `last`, by the recurrences, in float64.
struct Expected {
  int64_t step = 0, skipped = 0, non_finite = 0;
  at::Tensor momentum, exp_avg, exp_avg_sq;
};

/// Whether step `t` of a parameter is skipped: for its own gradient, or under NonFinite::SkipGroup for
/// that of another one of the group's that follow AdamW.
template <class Optimizer>
bool skips(const Built<Optimizer>& built, size_t g, size_t i, int64_t t) {
  const auto& group = built.model[g];
  const NonFinite policy = group.options.non_finite();
  if (policy != NonFinite::Skip && policy != NonFinite::SkipGroup) return false;
  if (policy == NonFinite::Skip || group.params[i].matrix) return group.params[i].fault_step == t;
  return std::any_of(group.params.begin(), group.params.end(),
                     [&](const Param& other) { return !other.matrix && other.fault_step == t; });
}

template <class Optimizer>
Expected expected_state(const Built<Optimizer>& built, size_t g, size_t i, int64_t last) {
  const auto& options = built.model[g].options;
  const Param& param = built.model[g].params[i];
  Expected expected;
  const at::Tensor zero = at::zeros(param.shape, at::kDouble);
  (param.matrix ? expected.momentum : expected.exp_avg) = zero;
  if (!param.matrix) expected.exp_avg_sq = zero;
  const double mu = options.momentum();
  const auto [beta1, beta2] = options.betas();
  for (int64_t t = 1; t <= last; ++t) {
    const at::Tensor gradient = built.gradient(g, i, t);
    if (!gradient.defined()) continue;
    ++expected.step;
    const bool faulty = t == param.fault_step;
    if (faulty) ++expected.non_finite;
    if (skips(built, g, i, t)) {
      ++expected.skipped;
      continue;
    }
    if (faulty) gradient.flatten()[0] = 0;  // NonFinite::Zero
    if (param.matrix) {
      const double weight = options.momentum_form() == MomentumForm::Ema ? 1 - mu : 1;
      const auto& rule = built.model[g].rule;
      const at::Tensor part =
          rule.split_gradient ? test::reference::split_off_outliers(gradient, rule) : gradient;
      expected.momentum = mu * expected.momentum + weight * part;
    } else {
      expected.exp_avg = beta1 * expected.exp_avg + (1 - beta1) * gradient;
      expected.exp_avg_sq = beta2 * expected.exp_avg_sq + (1 - beta2) * gradient * gradient;
    }
  }
  return expected;
}

/// All states, bit by bit: the sums have few enough bits for that.
template <class Optimizer>
void check_state(Built<Optimizer>& built, int64_t format, int64_t last) {
  for (size_t g = 0; g < built.model.size(); ++g) {
    for (size_t i = 0; i < built.model[g].params.size(); ++i) {
      INFO("after step " << last << ", parameter " << i << " of group " << g);
      const Param& param = built.model[g].params[i];
      const Expected expected = expected_state(built, g, i, last);
      const auto& states = built.optimizer->state();
      const auto found = states.find(root_optim::detail::state_key(built.parameters[g][i]));
      REQUIRE((found != states.end()) == (expected.step > 0));
      if (expected.step == 0) continue;
      const auto& state = static_cast<const ParamState&>(*found->second);
      CHECK(state.step() == expected.step);
      const auto check = [&](const at::Tensor& actual, const at::Tensor& wanted) {
        REQUIRE(actual.defined() == wanted.defined());
        if (wanted.defined()) CHECK_THAT(actual, test::same_as(wanted.to(state_dtype(param))));
      };
      check(state.momentum_buffer(), expected.momentum);
      check(state.exp_avg(), expected.exp_avg);
      check(state.exp_avg_sq(), expected.exp_avg_sq);
      const auto check_counter = [&](const at::Tensor& counter, int64_t wanted) {
        REQUIRE(counter.defined() ==
                (format >= 2 || last > kSteps));  // a step makes what is missing
        if (counter.defined()) CHECK(counter.item<int64_t>() == wanted);
      };
      check_counter(state.skipped(), expected.skipped);
      check_counter(state.non_finite(), expected.non_finite);
    }
  }
}

/// Where the reference takes a parameter in the step after the checkpoint, in float64.
template <class Optimizer>
at::Tensor reference_step(const Built<Optimizer>& built, size_t g, size_t i) {
  const auto& options = built.model[g].options;
  const Param& param = built.model[g].params[i];
  const at::Tensor start = built.parameters[g][i].detach().to(at::kDouble);
  const at::Tensor gradient = built.gradient(g, i, kSteps + 1);
  const Expected before = expected_state(built, g, i, kSteps);
  if (!param.matrix) {
    const auto [beta1, beta2] = options.betas();
    test::reference::AdamW adamw{start, before.exp_avg, before.exp_avg_sq,
                                 before.step - before.skipped};
    const AdamWSettings settings = options.adamw_settings();
    adamw.step(gradient, settings.lr, beta1, beta2, settings.eps, settings.weight_decay);
    return adamw.parameter;
  }
  test::reference::MatrixRule rule = built.model[g].rule;
  rule.lr = options.lr();
  rule.weight_decay = options.weight_decay();
  rule.momentum = options.momentum();
  at::Tensor result = start.clone();
  int64_t row = 0;
  for (const MatrixShape block : matrix_shapes(param.shape, options.layout())) {
    const auto rows = [&](const at::Tensor& t) { return t.narrow(0, row, block.rows); };
    test::reference::Matrix matrix{rows(start), rows(before.momentum)};
    matrix.step(rows(gradient), rule);
    rows(result).copy_(matrix.parameter);
    row += block.rows;
  }
  REQUIRE(row == param.shape[0]);
  return result;
}

template <class Optimizer>
void check_fixture(const Model<typename Optimizer::Options>& model, const Writer& writer,
                   const char* name, bool with_torch_load) {
  const fs::path path = folder() / writer.file(name);
  INFO(path.string() << (with_torch_load ? ", torch::load" : ", root_optim::load"));
  Built<Optimizer> built(model, /*with_options=*/false);  // all else must come from the file
  if (with_torch_load) {
    torch::load(*built.optimizer, path.string());
  } else {
    root_optim::load(*built.optimizer, path.string());
  }
  for (size_t g = 0; g < model.size(); ++g) {
    INFO("group " << g);
    CHECK((built.optimizer->options(g) == model[g].options));
  }
  check_state(built, writer.format, kSteps);

  std::vector<std::vector<at::Tensor>> expected(model.size());
  for (size_t g = 0; g < model.size(); ++g) {
    for (size_t i = 0; i < model[g].params.size(); ++i) {
      expected[g].push_back(reference_step(built, g, i));
    }
  }
  built.step(kSteps + 1);
  for (size_t g = 0; g < model.size(); ++g) {
    for (size_t i = 0; i < model[g].params.size(); ++i) {
      INFO("parameter " << i << " of group " << g);
      const Param& param = model[g].params[i];
      const auto quantity = param.dtype == at::kBFloat16 ? test::Quantity::OneRounding
                            : param.matrix               ? test::Quantity::StepVsReference
                                                         : test::Quantity::AdamWStep;
      CHECK_THAT(built.parameters[g][i],
                 test::close_to(expected[g][i], test::tolerance(quantity, param.dtype)));
    }
  }
  check_state(built, writer.format, kSteps + 1);
}

}  // namespace

TEST_CASE("checkpoints of every format and of other versions of LibTorch load", "[checkpoint]") {
  using namespace test::fixtures;
  for (const Writer& writer : kWriters) {
    for (const bool with_torch_load : {false, true}) {
      check_fixture<Root>(root_model(writer.format), writer, "root", with_torch_load);
      check_fixture<Muon>(muon_model(writer.format), writer, "muon", with_torch_load);
      check_fixture<RootPaper>(paper_model(writer.format), writer, "paper", with_torch_load);
      if (writer.format >= 5) {
        check_fixture<Root>(rational_model(), writer, "rational", with_torch_load);
      }
    }
  }
}

TEST_CASE("coefficients that format 3 designed on first use are refused unless a table has them",
          "[checkpoint][errors]") {
  for (const char* libtorch : {"1.13.1", "2.13.0"}) {
    const Writer writer{3, libtorch};
    const at::Tensor p = test::parameter({8, 12}, 1, at::kFloat);
    Root optimizer(std::vector<at::Tensor>{p});
    CHECK_THROWS_WITH(root_optim::load(optimizer, (folder() / writer.file("designed")).string()),
                      test::contains("expected coefficients for 8x12 in the table, got none") &&
                          test::contains("root_optim::design_coefficients"));
    CHECK(optimizer.state().empty());
    root_optim::load(optimizer, (folder() / writer.file("designed_with_table")).string());
    CHECK(optimizer.options(0).orthogonalizer().table().find(8, 12) != nullptr);
    test::set_gradient(p, at::ones({8, 12}));
    CHECK_NOTHROW(optimizer.step());
  }
}

TEST_CASE("moments of updates come back", "[checkpoint]") {
  for (const Writer& writer : kWriters) {
    if (writer.format < 4) continue;
    INFO(writer.file("balanced"));
    const auto model = test::fixtures::balanced_model(writer.format);
    Built<Root> here(model, /*with_options=*/true);
    for (int64_t t = 1; t <= kSteps; ++t) here.step(t);
    Built<Root> loaded(model, /*with_options=*/false);
    root_optim::load(*loaded.optimizer, (folder() / writer.file("balanced")).string());
    const auto state_of = [](Built<Root>& built) -> ParamState& {
      return test::state_of(*built.optimizer, built.parameters[0][0]);
    };
    for (const char* slot : {"row_moment", "column_moment"}) {
      // Means of squares of an orthogonalized matrix, made by another machine's products.
      CHECK(relative_error(state_of(loaded).slot(slot), state_of(here).slot(slot)) < 1e-4);
    }
  }
}

TEST_CASE("masters come back, and older files begin them", "[checkpoint]") {
  for (const Writer& writer : kWriters) {
    const bool has_masters = writer.format >= 5;
    INFO(writer.file(has_masters ? "masters" : "root"));
    if (!has_masters) {
      auto model = test::fixtures::root_model(writer.format);
      Built<Root> loaded(model, /*with_options=*/false);
      root_optim::load(*loaded.optimizer, (folder() / writer.file("root")).string());
      for (size_t g = 0; g < model.size(); ++g) loaded.optimizer->options(g).master_weights(true);
      loaded.step(kSteps + 1);
      const at::Tensor& half = loaded.parameters[0][2];
      const at::Tensor& master = test::state_of(*loaded.optimizer, half).master();
      CHECK_THAT(half.detach(), test::same_as(master.to(at::kBFloat16)));
      continue;
    }
    const auto model = test::fixtures::masters_model();
    Built<Root> here(model, /*with_options=*/true), loaded(model, /*with_options=*/true);
    for (int64_t t = 1; t <= kSteps; ++t) here.step(t);
    root_optim::load(*loaded.optimizer, (folder() / writer.file("masters")).string());
    const auto master = [](Built<Root>& built, size_t i) {
      return test::state_of(*built.optimizer, built.parameters[0][i]).master();
    };
    for (size_t i = 0; i < 2; ++i) {
      REQUIRE(master(loaded, i).scalar_type() == at::kFloat);
      // Orthogonalized and divided on another machine.
      CHECK(relative_error(master(loaded, i), master(here, i)) < 1e-4);
      const at::NoGradGuard no_grad;
      loaded.parameters[0][i].copy_(master(loaded, i));
    }
    here.step(kSteps + 1);
    loaded.step(kSteps + 1);
    for (size_t i = 0; i < 2; ++i) {
      CHECK(relative_error(master(loaded, i), master(here, i)) < 1e-4);
      CHECK_THAT(loaded.parameters[0][i].detach(),
                 test::same_as(master(loaded, i).to(at::kBFloat16)));
    }
  }
}

TEST_CASE("every kept checkpoint is tested, and the present format is among them", "[checkpoint]") {
  std::set<std::string> listed, present;
  std::set<int64_t> formats;
  for (const Writer& writer : kWriters) {
    formats.insert(writer.format);
    for (const char* name : {"root", "muon", "paper"}) listed.insert(writer.file(name));
    if (writer.format >= 4) listed.insert(writer.file("balanced"));
    if (writer.format >= 5) {
      for (const char* name : {"rational", "masters"}) listed.insert(writer.file(name));
    }
  }
  for (const char* libtorch : {"1.13.1", "2.13.0"}) {
    for (const char* name : {"designed", "designed_with_table"}) {
      listed.insert(Writer{3, libtorch}.file(name));
    }
  }
  CHECK(formats.count(root_optim::detail::checkpoint_format) == 1);
  for (const auto& entry : fs::recursive_directory_iterator(folder())) {
    if (!entry.is_regular_file()) continue;
    present.insert(entry.path().parent_path().filename().string() + "/" +
                   entry.path().filename().string());
  }
  CHECK(listed == present);
}
