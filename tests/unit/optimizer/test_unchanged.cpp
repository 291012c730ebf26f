// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What is wrong is found before anything changes: a bias in front of the culprit keeps its value, an
// optimizer that refuses a checkpoint keeps its state and options.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <ATen/autocast_mode.h>

#include <fstream>
#include <sstream>

#include "support/saved.hpp"
#include "support/tolerances.hpp"
#include "support/training.hpp"

using namespace root_optim;
using test::contains;
using test::parameter;
using test::saved;
using test::set_gradient;

namespace {

using Tensors = std::vector<at::Tensor>;

/// Steps {bias, culprit} and expects the message, and the bias as it was.
template <class Optimizer>
void refused_untouched(Optimizer& optimizer, const at::Tensor& bias, const std::string& message) {
  const at::Tensor before = bias.detach().clone();
  CHECK_THROWS_WITH(optimizer.step(), contains(message));
  CHECK_THAT(bias, test::same_as(before));
}

at::Tensor with_gradient(at::Tensor p) {
  set_gradient(p, at::ones_like(p));
  return p;
}

}  // namespace

TEST_CASE("unsafe coefficients are found before a bias in front is stepped", "[unchanged]") {
  const at::Tensor bias = with_gradient(parameter({16}, 1)),
                   w = with_gradient(parameter({16, 24}, 2));
  Muon muon(Tensors{bias, w}, MuonOptions().orthogonalizer(NewtonSchulz().coefficients(
                                  CoefficientSet::repeated({5, 5, 5}, "mine"))));
  refused_untouched(muon, bias, "fails at");
}

TEST_CASE("an expanded parameter is refused by name", "[unchanged]") {
  const at::Tensor w = parameter({1, 16}, 1).detach().expand({16, 16}).detach();
  CHECK_THROWS_WITH(Root(Tensors{w}), contains("memory of their own, got parameter (group 0"));
}

TEST_CASE("a tensor of inference mode is refused", "[unchanged]") {
  const c10::InferenceMode inference;
  const at::Tensor w = at::ones({16, 16});
  CHECK_THROWS_WITH(Root(Tensors{w}), contains("outside of inference mode"));
}

TEST_CASE("numbers beyond float32 and values that are no enumerators are refused", "[unchanged]") {
  CHECK_THROWS_WITH(RootOptions(1e300).validate(), contains("expected lr to be finite"));
  CHECK_THROWS_WITH(SoftThreshold().absolute(1e39).validate(), contains("absolute threshold"));
  CHECK_THROWS_WITH(RootOptions().scale(static_cast<LrScale>(9)).validate(),
                    contains("expected scale to be an enumerator of its type, got 9"));
  CHECK_THROWS_WITH(RootOptions().rule(static_cast<Rule>(9)).validate(), contains("got 9"));
  CHECK_THROWS_WITH(NewtonSchulz().form(static_cast<Form>(9)).validate(), contains("got 9"));
  CHECK_THROWS_WITH(NewtonSchulz().steps(int64_t{1} << 60).validate(), contains("<= 64"));
}

TEST_CASE("braces hold sizes, a number counts", "[unchanged]") {
  CHECK(matrix_shapes({32, 8}, MatrixLayout().split_rows({32})).size() == 1);
  CHECK(matrix_shapes({32, 8}, MatrixLayout().split_rows(32)).size() == 32);
}

TEST_CASE("a layout's sizes cannot overflow", "[unchanged]") {
  const int64_t huge = std::numeric_limits<int64_t>::max();
  CHECK_THROWS_WITH(matrix_shapes({10, 8}, MatrixLayout().split_rows({huge, huge, 12})),
                    contains("to add up to the first dimension"));
  CHECK_THROWS_WITH(matrix_shapes({0, 8}, MatrixLayout().split_rows(int64_t{1} << 40)),
                    contains("at most as many blocks as rows"));
}

TEST_CASE("an option out of range in step names its group", "[unchanged]") {
  const at::Tensor a = with_gradient(parameter({16}, 1)), b = with_gradient(parameter({16}, 2));
  Root root(std::vector<torch::optim::OptimizerParamGroup>{{{a}}, {{b}}});
  root.param_groups()[1].options().set_lr(std::numeric_limits<double>::quiet_NaN());
  refused_untouched(root, a, "in group 1");
}

TEST_CASE("a parameter that changed its shape is refused under any rule", "[unchanged]") {
  at::Tensor w = with_gradient(parameter({16, 16}, 1));
  Root root(Tensors{w});
  root.step();
  w.mutable_grad() = at::Tensor();
  w.set_data(at::ones({4, 4}));  // too small for orthogonalization: AdamW
  set_gradient(w, at::ones({4, 4}));
  CHECK_THROWS_WITH(root.step(), contains("state of the parameter's shape, got [16, 16]"));
}

TEST_CASE("a parameter that changes to AdamW starts its corrections at one", "[unchanged]") {
  const at::Tensor w = with_gradient(parameter({16, 16}, 1));
  const at::Tensor twin = with_gradient(w.detach().clone().set_requires_grad(true));
  Root root(Tensors{w}), fresh(Tensors{twin}, RootOptions().rule(Rule::AdamW));
  for (int i = 0; i < 5; ++i) root.step();
  const at::Tensor gradient = w.grad().clone();
  for (int i = 0; i < 2; ++i) {  // steps that are skipped are none of AdamW's
    test::set_gradient(w, at::full(w.sizes(), std::numeric_limits<double>::quiet_NaN()));
    root.step();
  }
  test::set_gradient(w, gradient);
  {
    at::NoGradGuard no_grad;
    w.copy_(twin);
  }
  root.options(0).rule(Rule::AdamW);
  root.step();
  fresh.step();
  CHECK_THAT(w, test::same_as(twin));
}

TEST_CASE("a step runs in float32 although autocast was left on", "[unchanged]") {
  // Two of one shape and blocks of unequal sizes: matrices with gaps between them, which have operators of their own.
  const Iteration iteration = GENERATE(Iteration::Rational, Iteration::NewtonSchulz);
  const auto options = RootOptions()
                           .layout(MatrixLayout().split_rows({64, 16, 16}))
                           .orthogonalizer(AdaNewton().iteration(iteration));
  const auto list = [] {
    return Tensors{with_gradient(parameter({96, 24}, 1, at::kFloat)),
                   with_gradient(parameter({96, 24}, 2, at::kFloat))};
  };
  const Tensors w = list(), v = list();
  Root plain(w, options), autocast(v, options);
  plain.step();
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 4)
  at::autocast::set_autocast_enabled(at::kCPU, true);
  autocast.step();
  at::autocast::set_autocast_enabled(at::kCPU, false);
#else
  at::autocast::set_cpu_enabled(true);
  autocast.step();
  at::autocast::set_cpu_enabled(false);
#endif
  for (size_t i = 0; i < w.size(); ++i) CHECK_THAT(v[i], test::same_as(w[i]));
}

TEST_CASE("a norm beyond float32 does not erase the update", "[unchanged]") {
  const at::Tensor x = parameter({1, 24, 32}, 1, at::kFloat).detach();
  const at::Tensor expected = NewtonSchulz()(x), huge = NewtonSchulz()(x / x.abs().max() * 3e38);
  CHECK_THAT(huge,
             test::close_to(expected, test::tolerance(test::Quantity::Equivariance, at::kFloat)));
}

TEST_CASE("loading refuses names and layouts that do not fit, and keeps what there is",
          "[unchanged][checkpoint]") {
  const at::Tensor a = with_gradient(parameter({16, 24}, 1)),
                   b = with_gradient(parameter({16, 24}, 2));
  Root target(Tensors{a, b}, RootOptions(0.01).names({"a", "b"}));
  target.step();
  const std::string before = saved(target);
  const auto refuses = [&](const Root& other, const std::string& message) {
    CHECK_THROWS_WITH(test::load_from(target, saved(other)), contains(message));
    CHECK(saved(target) == before);
  };
  {
    Root other(Tensors{a, b});
    other.options(0).names({"a"});
    refuses(other, "expected no names or one per parameter in group 0, got 1 names for 2");
  }
  {
    Root other(Tensors{a, b}, RootOptions().names({"a", "c"}));
    refuses(other, "without 1 of them ('b') and with 1 others ('c')");
  }
  {
    Root other(Tensors{a, b});
    other.options(0).layout(MatrixLayout().split_rows(5));
    refuses(other, "5 blocks for shape [16, 24]");
  }
}

TEST_CASE("a checkpoint without names leaves the names, one is read by two optimizers apart",
          "[unchanged][checkpoint]") {
  const at::Tensor a = with_gradient(parameter({16}, 1)), b = with_gradient(parameter({16}, 2));
  Root source(Tensors{a});
  source.step();
  torch::serialize::InputArchive archive;
  std::istringstream in(saved(source));
  archive.load_from(in);
  Root first(Tensors{a}, RootOptions().names({"a"})), second(Tensors{b});
  first.load(archive);
  second.load(archive);
  CHECK(first.options(0).names() == std::vector<std::string>{"a"});
  const std::string before = saved(second);
  first.step();
  CHECK(saved(second) == before);
}

TEST_CASE("saving where nothing can be written is an error, not the end",
          "[unchanged][checkpoint]") {
  const Root root(Tensors{parameter({16, 16}, 1)});
  std::ofstream closed;
  CHECK_THROWS_WITH(root_optim::save(root, closed),
                    contains("root_optim::save: expected a stream"));
  CHECK_THROWS_WITH(root_optim::save(root, std::string("no such folder/optimizer.pt")),
                    contains("expected a path that can be written, got 'no such folder"));
}

TEST_CASE("a quantile of zero splits nothing, in both forms", "[unchanged]") {
  const at::Tensor u = at::zeros({1, 16, 16});
  u.select(2, 3).fill_(2.0);
  const SoftThreshold filter = SoftThreshold().quantile(0.9);
  CHECK(filter.threshold(u).item<float>() == 0);
  CHECK_THAT(filter(u), test::same_as(u));
  CHECK_THAT(split_outliers(u, filter.threshold(u)).second, test::same_as(u));
}
