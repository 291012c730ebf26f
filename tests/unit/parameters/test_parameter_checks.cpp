// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The rule that a parameter of a group follows, layouts that would come to nothing, and complex
// parameters.
#include "support/catch_torch.hpp"

#include <root_optim/muon.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/root.hpp>

#include <string>
#include <vector>

#include "support/tolerances.hpp"
#include "support/training.hpp"

using root_optim::MatrixLayout;
using root_optim::Muon;
using root_optim::MuonOptions;
using root_optim::Root;
using root_optim::RootOptions;
using root_optim::Rule;
using root_optim::detail::resolve_rule;
using test::contains;
using test::parameter;

TEST_CASE("a group's rule, or the shape under its layout, decides", "[parameters]") {
  const auto rule_of = [](std::vector<int64_t> shape, Rule rule, const MatrixLayout& layout = {}) {
    return resolve_rule(rule, layout, at::empty(shape), "there");
  };
  CHECK(rule_of({16, 24}, Rule::Auto) == Rule::Orthogonalized);
  CHECK(rule_of({8, 8}, Rule::Auto) == Rule::Orthogonalized);
  CHECK(rule_of({7, 8}, Rule::Auto) == Rule::AdamW);
  CHECK(rule_of({7, 8}, Rule::Orthogonalized) == Rule::Orthogonalized);
  CHECK(rule_of({24}, Rule::Auto) == Rule::AdamW);
  CHECK(rule_of({16, 24}, Rule::AdamW) == Rule::AdamW);
  CHECK(rule_of({8, 64, 64}, Rule::Auto) == Rule::AdamW);
  CHECK(rule_of({8, 64, 64}, Rule::Auto, MatrixLayout().batch(true)) == Rule::Orthogonalized);
  CHECK(rule_of({16, 1, 8, 8}, Rule::Auto, MatrixLayout().batch(true)) == Rule::Orthogonalized);
  CHECK(rule_of({4096, 8}, Rule::Auto, MatrixLayout().split_rows(64)) == Rule::Orthogonalized);
  CHECK_THROWS_WITH(rule_of({24}, Rule::Orthogonalized), contains("rank >= 2"));
}

TEST_CASE("a layout that would come to nothing is refused", "[parameters][errors]") {
  const auto refused = [](std::vector<int64_t> shape, Rule rule, const MatrixLayout& layout,
                          const std::string& message) {
    CAPTURE(shape, to_string(layout));
    CHECK_THROWS_WITH(resolve_rule(rule, layout, at::empty(shape), "there"),
                      contains(message) && contains("there"));
    const at::Tensor p = parameter(at::ones(shape));
    CHECK_THROWS_WITH(Root({p}, RootOptions().rule(rule).layout(layout)), contains(message));
    // Options that change later are found by the next step, before anything is written.
    Root later({p});
    static_cast<RootOptions&>(later.param_groups()[0].options()).rule(rule).layout(layout);
    test::set_gradient(p, at::ones(shape));
    CHECK_THROWS_WITH(later.step(), contains(message));
    CHECK_THAT(p, test::same_as(at::ones(shape)));
  };
  const std::string adamw = "expected no layout under Rule::AdamW, got '";
  refused({16, 24}, Rule::AdamW, MatrixLayout().split_rows(2), adamw + "2 row blocks' for ");
  refused({8, 64, 64}, Rule::AdamW, MatrixLayout().batch(true), adamw + "batched' for ");
  refused({24}, Rule::AdamW, MatrixLayout().out_dim(1), adamw + "out dim 1' for ");
  const std::string insist = "Rule::Orthogonalized to insist on it, got '";
  refused({32, 24}, Rule::Auto, MatrixLayout().split_rows(8),
          insist + "8 row blocks', which makes 4x24");
  refused({4098, 8}, Rule::Auto, MatrixLayout().split_rows(2),
          insist + "2 row blocks', which makes 2049x8");
  refused({4, 64, 7}, Rule::Auto, MatrixLayout().batch(true),
          insist + "batched', which makes 64x7");
  refused({16, 7, 3}, Rule::Auto, MatrixLayout().out_dim(1),
          insist + "out dim 1', which makes 7x48");

  // On the other side of each boundary it holds, and with Orthogonalized anyway.
  Root({parameter(at::ones({32, 24}))}, RootOptions().layout(MatrixLayout().split_rows(4)));
  Root({parameter(at::ones({4096, 8}))}, RootOptions().layout(MatrixLayout().split_rows(2)));
  Root({parameter(at::ones({4, 64, 8}))}, RootOptions().layout(MatrixLayout().batch(true)));
  Root({parameter(at::ones({32, 24}))},
       RootOptions().rule(Rule::Orthogonalized).layout(MatrixLayout().split_rows(8)));
}

TEST_CASE("below rank 2, a group's layout does not apply", "[parameters]") {
  // A fused weight and its bias in one group: the bias follows AdamW.
  const at::Tensor weight = parameter({48, 16}, 1), bias = parameter({48}, 2);
  Root root({weight, bias}, RootOptions().layout(MatrixLayout().split_rows(3)));
  test::train(root, {weight, bias}, 0, 2);
  const at::Tensor alone = parameter({48}, 2);
  Root reference({alone}, RootOptions());
  test::train(reference, {alone}, 0, 2);
  CHECK_THAT(bias, test::same_as(alone));
}

TEST_CASE("complex parameters are refused by name of the remedy, and the remedy trains",
          "[parameters][errors]") {
  const at::Tensor z = at::randn({16, 16}, at::kComplexDouble);
  for (const Rule rule : {Rule::Auto, Rule::AdamW, Rule::Orthogonalized}) {
    CHECK_THROWS_WITH(Root({z.clone().requires_grad_(true)}, RootOptions().rule(rule)),
                      contains("of dtype ComplexDouble") && contains("torch::view_as_real(z)") &&
                          contains("torch::view_as_complex(parameter)"));
  }
  CHECK_THROWS_WITH(Muon({z}, MuonOptions()), contains("view_as_real"));
  CHECK_THROWS_WITH(Root({at::ones({16, 24}, at::kLong)}),
                    contains("of dtype Long") && !contains("view_as_real"));

  // As the message says: AdamW of the real and imaginary parts, as torch.optim.AdamW treats complex
  // tensors.
  const at::Tensor p = at::view_as_real(z).detach().clone().requires_grad_(true);
  const at::Tensor real = at::real(z).clone().requires_grad_(true),
                   imaginary = at::imag(z).clone().requires_grad_(true);
  Root root({p}, RootOptions(0.1).rule(Rule::AdamW));
  Root parts({real, imaginary}, RootOptions(0.1).rule(Rule::AdamW));
  const at::Tensor target = at::randn({16, 16}, at::kComplexDouble);
  for (int step = 0; step < 3; ++step) {
    root.zero_grad();
    parts.zero_grad();
    (at::view_as_complex(p) - target).abs().square().sum().backward();
    (at::complex(real, imaginary) - target).abs().square().sum().backward();
    root.step();
    parts.step();
  }
  const auto tolerance = test::tolerance(test::Quantity::AdamWStep, at::kDouble);
  CHECK_THAT(p.select(2, 0), test::close_to(real, tolerance));
  CHECK_THAT(p.select(2, 1), test::close_to(imaginary, tolerance));
}
