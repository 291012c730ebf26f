// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What the optimizer refuses, in which words, and that nothing has changed then.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include "support/groups.hpp"
#include "support/optimizer_state.hpp"
#include "support/tolerances.hpp"
#include "support/training.hpp"

using namespace root_optim;
using test::contains;
using test::group;
using test::parameter;
using test::set_gradient;
using test::state_of;

namespace {

using Group = torch::optim::OptimizerParamGroup;
using Tensors = std::vector<at::Tensor>;

at::Tensor matrix(uint64_t seed = 1) { return parameter({16, 24}, seed); }

}  // namespace

TEST_CASE("options out of range are refused by name and value", "[errors][options]") {
  const auto refused = [](const RootOptions& options, const std::string& message) {
    INFO(message);
    CHECK_THROWS_WITH(options.validate(), contains(message));
    CHECK_THROWS_WITH(Root({matrix()}, options), contains(message));
    CHECK_THROWS_WITH(Root({group({matrix()}, options)}), contains(message));
  };
  const double inf = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  refused(RootOptions(-1e-3), "expected lr to be finite in float32 and >= 0, got -0.001");
  refused(RootOptions(inf), "expected lr to be finite in float32 and >= 0, got inf");
  refused(RootOptions(nan), "expected lr to be finite in float32 and >= 0, got nan");
  refused(RootOptions().batch_bytes(-1), "expected batch_bytes >= 0, got -1");
  refused(RootOptions().weight_decay(-0.1),
          "expected weight_decay to be finite in float32 and >= 0, got -0.1");
  refused(RootOptions().weight_decay(nan),
          "expected weight_decay to be finite in float32 and >= 0, got nan");
  refused(RootOptions().eps(-1), "expected eps to be finite in float32 and >= 0, got -1");
  refused(RootOptions().momentum(1), "expected 0 <= momentum < 1, got 1");
  refused(RootOptions().momentum(-0.5), "expected 0 <= momentum < 1, got -0.5");
  refused(RootOptions().momentum(nan), "expected 0 <= momentum < 1, got nan");
  refused(RootOptions().betas(std::make_tuple(1.5, 0.9)), "expected 0 <= betas[0] < 1, got 1.5");
  refused(RootOptions().betas(std::make_tuple(0.9, -1.0)), "expected 0 <= betas[1] < 1, got -1");
  refused(RootOptions().filter(SoftThreshold().quantile(1.5)),
          "expected a quantile in [0, 1], got 1.5");
  refused(RootOptions().orthogonalizer(AdaNewton().steps(1)), "root_optim::AdaNewton: expected");
  refused(
      RootOptions().orthogonalizer(AdaNewton().compute_dtype(at::kHalf)),
      "root_optim::AdaNewton: expected compute_dtype to be float64, float32 or bfloat16, got Half");
}

TEST_CASE("parameters that cannot be optimized are refused by place", "[errors][parameters]") {
  const auto refused = [](const Tensors& parameters, const std::string& message,
                          const RootOptions& options = {}) {
    INFO(message);
    CHECK_THROWS_WITH(Root(parameters, options), contains(message));
    Root later({matrix()});
    CHECK_THROWS_WITH(later.add_param_group(group(parameters, options)), contains(message));
    CHECK(later.param_groups().size() == 1);
  };
  const at::Tensor ok = matrix();
  refused({ok, ok * 2}, "expected a leaf tensor, got parameter (group ");
  refused({at::Tensor()}, "expected a defined tensor, got none at parameter (group ");
  refused({at::ones({16, 24}, at::kLong)},
          "expected a real floating-point tensor (float64, float32, bfloat16, float16), got "
          "parameter ");
  refused({at::ones({16, 24}, at::kLong)}, "of dtype Long");
  refused({at::ones({16, 24}, at::kComplexFloat)}, "of dtype ComplexFloat");
  refused({at::eye(16).to_sparse()}, "of layout Sparse");
  refused({parameter({24}, 2)}, "expected rank >= 2 under Rule::Orthogonalized, got parameter",
          RootOptions().rule(Rule::Orthogonalized));
  refused({ok},
          "expected split_rows to divide the first dimension, got 5 blocks for shape [16, 24]",
          RootOptions().layout(MatrixLayout().split_rows(5)));
  refused({ok}, "got [8, 9] for shape [16, 24]",
          RootOptions().layout(MatrixLayout().split_rows({8, 9})));
  refused({ok}, "expected out_dim < rank, got out_dim 2 for shape [16, 24]",
          RootOptions().layout(MatrixLayout().out_dim(2)));
  refused({ok}, "expected no names or one per parameter, got 2 names for 1 parameters",
          RootOptions().names({"a", "b"}));
}

TEST_CASE("messages name the parameter", "[errors][parameters]") {
  CHECK_THROWS_WITH(
      Root({group({matrix(), parameter({24}, 2)},
                  RootOptions().rule(Rule::Orthogonalized).names({"w", "norm.bias"}))}),
      contains("'norm.bias' (group 0, index 1, shape [24])"));
}

TEST_CASE("a tensor in two groups is refused", "[errors][groups]") {
  const at::Tensor shared = matrix();
  CHECK_THROWS_WITH(Root({Group({shared}), Group({matrix(2), shared})}),
                    contains("expected every parameter in one group only, got parameter (group 1, "
                             "index 1, shape [16, 24]) in an earlier group too"));
  Root root({shared});
  CHECK_THROWS_AS(root.add_param_group(Group({shared})), c10::Error);
  CHECK(root.param_groups().size() == 1);
}

TEST_CASE("another optimizer's options are refused", "[errors][groups]") {
  const at::Tensor p = matrix();
  Group foreign({p}, std::make_unique<torch::optim::AdamWOptions>(1e-3));
  CHECK_THROWS_WITH(Root({foreign}), contains("expected the options of group 0 to be of this "
                                              "optimizer's own type, got another optimizer's"));
  Root root({p});
  root.param_groups()[0].set_options(std::make_unique<MuonOptions>());
  set_gradient(p, p);
  CHECK_THROWS_WITH(root.step(), contains("expected the options of group 0"));
}

TEST_CASE("options that became invalid are refused in step", "[errors][step]") {
  const at::Tensor p = matrix();
  const at::Tensor before = p.detach().clone();
  Root root({p});
  set_gradient(p, p.detach());
  root.param_groups()[0].options().set_lr(-1);
  CHECK_THROWS_WITH(root.step(), contains("expected lr to be finite in float32 and >= 0, got -1"));
  CHECK_THAT(p, test::same_as(before));
}

TEST_CASE("a bad gradient is refused before anything changes", "[errors][step]") {
  const at::Tensor good = matrix(1), bad = matrix(2);
  const at::Tensor good_before = good.detach().clone(), bad_before = bad.detach().clone();
  Root root({good, bad});
  set_gradient(good, good_before);

  SECTION("sparse") {
    bad.mutable_grad() = bad_before.to_sparse();
    CHECK_THROWS_WITH(root.step(),
                      contains("expected a strided gradient, got layout Sparse") &&
                          contains("sparse(false), or put parameter.grad().to_dense()"));
  }
  // Autograd and Tensor::mutable_grad do not make these, code that writes into a gradient may.
  const auto refused = [&](const at::Tensor& gradient, const std::string& message) {
    bad.mutable_grad() = gradient;
    CHECK_THROWS_WITH(root.step(), contains(message));
  };
  SECTION("of another shape") {
    refused(at::ones({16, 23}),
            "expected a gradient of the parameter's shape, got [16, 23] for parameter (group 0, "
            "index 1, shape [16, 24])");
  }
  SECTION("complex") {
    refused(
        at::ones({16, 24}, at::kComplexFloat),
        "expected a real floating-point gradient, got dtype ComplexFloat for parameter (group 0");
  }
  SECTION("of integers") {
    refused(at::ones({16, 24}, at::kLong),
            "expected a real floating-point gradient, got dtype Long");
  }
  SECTION("on another device") {
    refused(at::ones({16, 24}, at::kMeta), "expected a gradient on cpu, got meta for parameter");
  }
  SECTION("lazily negated: its memory holds other numbers") {
    refused(at::_neg_view(at::ones({16, 24})),
            "expected a gradient whose elements are in its memory, got a lazily negated");
  }
  SECTION("lazily zero: it has no memory") {
    refused(
        at::_efficientzerotensor({16, 24}, at::TensorOptions(at::kFloat)),
        "expected a gradient whose elements are in its memory, got a lazily negated or zero one");
  }
  SECTION("of another parameter group's parameter") {
    bad.unsafeGetTensorImpl();
    Root twin({parameter({24}, 3)});
    torch::optim::Optimizer& base = twin;
    base.param_groups()[0].params().push_back(twin.param_groups()[0].params()[0]);
    CHECK_THROWS_WITH(twin.step(), contains("expected every parameter once"));
  }
  CHECK_THAT(good, test::same_as(good_before));
  CHECK_THAT(bad, test::same_as(bad_before));
  CHECK(root.state().empty());
}

TEST_CASE("refused state leaves the state of the others, under another rule, too",
          "[errors][step]") {
  const at::Tensor good = matrix(1), bad = matrix(2);
  Root root({good, bad});
  test::train(root, {good, bad}, 0, 3);
  const ParamState& state = state_of(root, good);
  const at::Tensor buffer = state.momentum_buffer();
  state_of(root, bad).momentum_buffer() = at::zeros({3, 3});
  root.options(0).rule(Rule::AdamW);
  const at::Tensor before = good.detach().clone();
  CHECK_THROWS_WITH(root.step(), contains("expected state of the parameter's shape, got [3, 3]"));
  CHECK_THAT(good, test::same_as(before));
  CHECK(state.step() == 3);
  CHECK(state.momentum_buffer().is_same(buffer));
  CHECK_FALSE(state.exp_avg().defined());
}

TEST_CASE("a parameter whose rule changes begins anew", "[step]") {
  const at::Tensor p = matrix(1), twin = matrix(1);
  Root root({p}), fresh({twin});
  test::train(root, {p}, 0, 3);
  for (const Rule next : {Rule::AdamW, Rule::Orthogonalized, Rule::AdamW}) {
    {
      const at::NoGradGuard no_grad;
      twin.copy_(p);
    }
    fresh.state().clear();
    root.options(0).rule(next);
    fresh.options(0).rule(next);
    test::train(root, {p}, 3, 5);
    test::train(fresh, {twin}, 3, 5);
    CHECK_THAT(p, test::same_as(twin));
    const ParamState& state = state_of(root, p);
    CHECK(state == state_of(fresh, twin));
    CHECK(state.momentum_buffer().defined() == (next != Rule::AdamW));
  }
}

TEST_CASE("a step in inference mode leaves state that a step outside of it can write", "[step]") {
  const at::Tensor p = matrix(1), b = parameter({24}, 2), twin = matrix(1),
                   twin_b = parameter({24}, 2);
  Root root({p, b}), other({twin, twin_b});
  for (int64_t t = 1; t <= 3; ++t) {
    for (const auto& x : {p, b, twin, twin_b}) set_gradient(x, test::gradient_of(x.sizes(), t));
    {
      const c10::InferenceMode inference(t == 1);
      root.step();
    }
    other.step();
  }
  CHECK_THAT(p, test::same_as(twin));
  CHECK_THAT(b, test::same_as(twin_b));
}

TEST_CASE("a non-leaf that slipped in is refused in step", "[errors][step]") {
  const at::Tensor p = matrix();
  Root root({p});
  root.param_groups()[0].params()[0] = p * 2;
  CHECK_THROWS_WITH(root.step(), contains("expected a leaf tensor"));
}

TEST_CASE("an unsafe set is refused when it meets a matrix, and changes nothing",
          "[errors][step]") {
  const at::Tensor p = matrix();
  const at::Tensor before = p.detach().clone();
  const Quintic escaping = CoefficientSet::root_paper().quintics(2048, 2048, 1).front();
  Muon muon({p}, MuonOptions().orthogonalizer(
                     NewtonSchulz().coefficients(CoefficientSet::repeated(escaping, "mine"))));
  set_gradient(p, before);
  CHECK_THROWS_WITH(muon.step(), contains("fails at"));
  CHECK_THAT(p, test::same_as(before));
}

TEST_CASE("state of a replaced parameter: the error says how to erase it, and that helps",
          "[errors][step]") {
  const at::Tensor p = matrix(1), other = matrix(2), twin = parameter({24, 16}, 3),
                   next = parameter({24, 16}, 3);
  Root root({p, other}), fresh({twin});
  test::train(root, {p, other}, 0, 3);
  // The new parameter stands where the old one's address was.
  const auto old = root_optim::detail::state_key(p), now = root_optim::detail::state_key(next);
  root.param_groups()[0].params()[0] = next;
  auto stale = std::move(root.state()[old]);
  root.state().erase(old);
  root.state()[now] = std::move(stale);
  set_gradient(next, test::gradient_of({24, 16}, 1));
  CHECK_THROWS_WITH(root.step(),
                    contains("expected state of the parameter's shape, got [16, 24]") &&
                        contains("forget(parameter) erases it"));
  root.forget(next);
  root.forget(next);  // what has no state has none to erase
  CHECK(root.state().size() == 1);
  root.step();
  test::train(fresh, {twin}, 0, 1);
  CHECK_THAT(next, test::same_as(twin));

  struct Foreign : torch::optim::OptimizerCloneableParamState<Foreign> {};
  root.state()[now] = std::make_unique<Foreign>();
  CHECK_THROWS_WITH(root.step(), contains("got another optimizer's; forget(parameter) erases it"));
  root.forget(next);
  CHECK_NOTHROW(root.step());
}
