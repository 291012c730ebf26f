// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Policies that a user writes: an outlier filter with a setting, an orthogonalizer without any, and
// what the optimizer does with policies that misbehave.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <sstream>

#include "support/devices.hpp"
#include "support/reference.hpp"
#include "support/tolerances.hpp"
#include "support/training.hpp"

using namespace root_optim;
using test::Quantity;
using test::tolerance;

namespace {

/// A filter with a setting.
struct HuberClip {
  static constexpr const char* name = "huber_clip";
  double delta = 1.0;
  void validate() const { TORCH_CHECK(delta > 0, "HuberClip: expected delta > 0, got ", delta); }
  void serialize(Fields& out) const { out.set("delta", delta); }
  void deserialize(const Fields& in) { delta = in.get<double>("delta"); }
  at::Tensor operator()(const at::Tensor& u) const { return u.clamp(-delta, delta); }
};

/// An orthogonalizer without settings: only the row norms are made equal.
struct NormalizeRows {
  static constexpr const char* name = "normalize_rows";
  at::Tensor operator()(const at::Tensor& x) const {
    return x / x.norm(2, {2}, /*keepdim=*/true).clamp_min(1e-12);
  }
};

struct DropRows {
  static constexpr const char* name = "drop_rows";
  at::Tensor operator()(const at::Tensor& x) const { return x.slice(1, 1); }
};

struct ReturnNothing {
  static constexpr const char* name = "return_nothing";
  at::Tensor operator()(const at::Tensor&) const { return {}; }
};

/// An orthogonalizer that cannot treat matrices whose first entry is negative.
struct GivesUp {
  static constexpr const char* name = "gives_up";
  at::Tensor operator()(const at::Tensor& x) const { return (*this)(x, Scratch()); }
  at::Tensor operator()(const at::Tensor& x, Scratch scratch) const {
    const at::Tensor failed = x.select(2, 0).select(1, 0).lt(0);
    if (scratch.failed != nullptr) *scratch.failed = failed;
    return x.masked_fill(failed.view({-1, 1, 1}), 0);
  }
};

using Custom = OrthogonalizedOptimizer<HuberClip, NormalizeRows>;

Custom::Options clipped_at(double delta) {
  HuberClip filter;
  filter.delta = delta;
  return Custom::Options(1e-2).filter(filter);
}

}  // namespace

TEST_CASE("a user's policies take the place of ours", "[custom_policy]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::Tensor start = test::gaussian({12, 16}, 61);
  const at::Tensor p = test::parameter(start.to(device));
  Custom optimizer({p}, clipped_at(0.25).momentum(0).weight_decay(0.5).scale(LrScale::Unscaled));
  const at::Tensor gradient = test::gradient_of(p.sizes(), 1);
  test::set_gradient(p, gradient);
  optimizer.step();
  const at::Tensor body = gradient.clamp(-0.25, 0.25);
  const at::Tensor expected =
      (1 - 1e-2 * 0.5) * start - 1e-2 * body / body.norm(2, {1}, /*keepdim=*/true);
  CHECK_THAT(p, test::close_to(expected, tolerance(Quantity::StepVsReference, at::kDouble)));
}

TEST_CASE("every group has its own copy of a user's policy", "[custom_policy]") {
  const at::Tensor a = test::parameter({12, 16}, 62), b = test::parameter({12, 16}, 62);
  std::vector<Custom::Group> groups;
  groups.emplace_back(std::vector<at::Tensor>{a},
                      std::make_unique<Custom::Options>(clipped_at(0.1)));
  groups.emplace_back(std::vector<at::Tensor>{b},
                      std::make_unique<Custom::Options>(clipped_at(9.0)));
  Custom together(groups);
  const at::Tensor alone = test::parameter({12, 16}, 62);
  Custom single({alone}, clipped_at(0.1));
  test::train(together, {a, b}, 0, 3);
  test::train(single, {alone}, 0, 3);
  CHECK_THAT(a, test::same_as(alone));
  CHECK_FALSE(at::equal(a, b));
}

TEST_CASE("a user's policy is written to checkpoints and compared", "[custom_policy]") {
  CHECK(clipped_at(0.5) == clipped_at(0.5));
  CHECK(clipped_at(0.5) != clipped_at(0.25));
  const at::Tensor p = test::parameter({12, 16}, 63);
  Custom saved({p}, clipped_at(0.5));
  test::train(saved, {p}, 0, 2);
  std::stringstream file;
  root_optim::save(saved, file);

  Custom loaded({p}, clipped_at(7));
  root_optim::load(loaded, file);
  const auto& options = static_cast<const Custom::Options&>(loaded.param_groups()[0].options());
  CHECK(options.filter().delta == 0.5);

  file.seekg(0);
  Root other({p});
  CHECK_THROWS_WITH(root_optim::load(other, file),
                    test::contains("expected filter 'soft_threshold', got 'huber_clip'"));
}

TEST_CASE("a user's policy is validated with the options", "[custom_policy][errors]") {
  const at::Tensor p = test::parameter({12, 16}, 64);
  CHECK_THROWS_WITH(Custom({p}, clipped_at(-1)),
                    test::contains("HuberClip: expected delta > 0, got -1"));
}

TEST_CASE("a policy that changes the shape is refused, and nothing has changed",
          "[custom_policy][errors]") {
  const at::Tensor p = test::parameter({12, 16}, 65);
  const at::Tensor before = p.detach().clone();
  test::set_gradient(p, test::gaussian({12, 16}, 66));
  using Dropping = OrthogonalizedOptimizer<NoFilter, DropRows>;
  Dropping dropping({p}, Dropping::Options());
  CHECK_THROWS_WITH(
      dropping.step(),
      test::contains("expected policies 'no_filter' and 'drop_rows' to keep the shape "
                     "[1, 12, 16] and a real dtype, got [1, 11, 16] of Double"));
  using Empty = OrthogonalizedOptimizer<NoFilter, ReturnNothing>;
  Empty empty({p}, Empty::Options());
  CHECK_THROWS_WITH(empty.step(), test::contains("got no tensor"));
  CHECK_THAT(p, test::same_as(before));
}

TEST_CASE("a setting is kept under any key that an archive can hold, other keys are refused",
          "[custom_policy][errors]") {
  for (const char* key : {"a\"b", "a\\b", "a\nb", "a\x7f"}) {
    Fields fields;
    CHECK_THROWS_WITH(fields.set(key, 1.0),
                      test::contains("root_optim::Fields::set: expected a key without double "
                                     "quotes, backslashes and control characters, got 'a"));
    CHECK(fields.values().empty());
  }
  Fields fields;
  for (const char* key : {"a'b", "a b", "\u00fc", "a.b"}) fields.set(key, 1.0);
  std::stringstream file;
  torch::serialize::OutputArchive out;
  root_optim::detail::write_fields(out, fields);
  out.save_to(file);
  torch::serialize::InputArchive in;
  in.load_from(file);
  CHECK(root_optim::detail::read_fields(in) == fields);
}

TEST_CASE("the exact polar factor as orthogonalizer", "[custom_policy][exact_polar]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  using Exact = OrthogonalizedOptimizer<NoFilter, ExactPolar>;
  for (const auto& [name, gradient] : test::hard_spectra()) {
    if (gradient.numel() == 0) continue;
    INFO(name);
    const at::Tensor p = test::parameter(gradient.sizes(), 67, test::on(device, at::kDouble));
    const at::Tensor start = p.detach().to(at::kCPU).clone();
    Exact exact({p}, Exact::Options(0.5)
                         .rule(Rule::Orthogonalized)
                         .momentum(0)
                         .weight_decay(0)
                         .scale(LrScale::Unscaled)
                         .orthogonalizer(ExactPolar().tolerance(1e-12)));
    test::set_gradient(p, gradient);
    exact.step();
    const at::Tensor polar = test::reference::polar_factor(gradient, 1e-12);
    CHECK_THAT(p,
               test::close_to(start - 0.5 * polar, tolerance(Quantity::ExactPolar, at::kDouble)));
  }
}

TEST_CASE("a matrix that a policy gives up is a step that is skipped, with all its parameter has",
          "[custom_policy]") {
  using Optimizer = OrthogonalizedOptimizer<NoFilter, GivesUp>;
  const at::Device device = GENERATE(from_range(test::devices()));
  const auto where = at::TensorOptions(device).dtype(at::kFloat);
  // Two of one shape step together; the third has two matrices, of which one is given up.
  std::vector<at::Tensor> good{at::ones({4, 6}, where)},
      bad{at::ones({4, 6}, where), at::ones({8, 6}, where)};
  const auto options = [] {
    return Optimizer::Options(0.1).rule(Rule::Orthogonalized).nesterov(false).weight_decay(0.1);
  };
  std::vector<Optimizer::Group> groups;
  groups.emplace_back(std::vector<at::Tensor>{good[0].requires_grad_(), bad[0].requires_grad_()},
                      std::make_unique<Optimizer::Options>(options()));
  groups.emplace_back(
      std::vector<at::Tensor>{bad[1].requires_grad_()},
      std::make_unique<Optimizer::Options>(options().layout(MatrixLayout().split_rows(2))));
  Optimizer optimizer(groups);
  good[0].mutable_grad() = at::ones({4, 6}, where);
  bad[0].mutable_grad() = at::full({4, 6}, -1, where);
  bad[1].mutable_grad() = at::cat({at::ones({4, 6}, where), at::full({4, 6}, -1, where)});
  optimizer.step();
  CHECK_FALSE(at::equal(good[0], at::ones({4, 6}, where)));
  for (const at::Tensor& p : bad) {
    CHECK(at::equal(p, at::ones_like(p)));
    const ParamState& state = *root_optim::detail::state_of(optimizer, p);
    CHECK(state.skipped().item<double>() == 1);
    CHECK(state.non_finite().item<double>() == 0);  // the gradient is not at fault
    CHECK(at::equal(state.momentum_buffer(), at::zeros_like(p)));
  }
  CHECK(root_optim::detail::state_of(optimizer, good[0])->skipped().item<double>() == 0);
}
