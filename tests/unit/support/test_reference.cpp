// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The whole step, over many steps, against the float64 transcription in
// tests/support/reference.hpp.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <algorithm>

#include "support/convert.hpp"
#include "support/devices.hpp"
#include "support/reference.hpp"
#include "support/tolerances.hpp"
#include "support/training.hpp"

using namespace root_optim;  // a test of everything
using test::on;
using test::Quantity;
using test::tolerance;
using test::reference::MatrixRule;

namespace {

constexpr int64_t kSteps = 30;

struct Shape {
  int64_t rows, cols;
};
const std::vector<Shape> kShapes{{12, 20}, {20, 12}, {16, 16}};

/// Settings of both programs, and a name for messages.
template <class Options>
struct Case {
  std::string name;
  Options options;
  MatrixRule rule;
};

MatrixRule root_rule(int64_t rows, int64_t cols) {
  MatrixRule rule;
  rule.momentum = RootOptions().momentum();
  rule.update_beta = RootOptions().update_beta();
  rule.start = test::reference::Start::Schatten8;
  rule.schedule = test::triples(AdaNewton().quintics(rows, cols, Precision::Float64));
  rule.split = test::reference::Split::Scaled;
  rule.split_value = 3;
  rule.split_passes = 3;
  rule.split_gradient = true;
  return rule;
}

MatrixRule muon_rule() {
  MatrixRule rule;
  rule.ema = true;
  rule.split = test::reference::Split::None;
  rule.start = test::reference::Start::FrobeniusFloor;
  rule.scale = test::reference::Scale::Original;
  return rule;
}

template <class Options, class Change, class ChangeRule>
Case<Options> changed(std::string name, Options options, MatrixRule rule, Change change,
                      ChangeRule change_rule) {
  change(options);
  change_rule(rule);
  return {std::move(name), std::move(options), std::move(rule)};
}

std::vector<Case<RootOptions>> root_cases(Shape shape, Iteration iteration) {
  const RootOptions base = RootOptions(2e-2).orthogonalizer(AdaNewton().iteration(iteration));
  MatrixRule rule = root_rule(shape.rows, shape.cols);
  if (iteration == Iteration::Rational) {
    rule.stages = test::stages(AdaNewton().stages(shape.rows, shape.cols));
  }
  rule.lr = 2e-2;
  using Split = test::reference::Split;
  using Scale = test::reference::Scale;
  return {
      {"defaults", base, rule},
      changed(
          "plain momentum", base, rule, [](auto& o) { o.nesterov(false); },
          [](auto& r) { r.nesterov = false; }),
      changed(
          "no weight decay", base, rule, [](auto& o) { o.weight_decay(0); },
          [](auto& r) { r.weight_decay = 0; }),
      changed(
          "strong weight decay, plain momentum", base, rule,
          [](auto& o) { o.weight_decay(5).nesterov(false).momentum(0.8); },
          [](auto& r) { r.weight_decay = 5, r.nesterov = false, r.momentum = 0.8; }),
      changed(
          "EMA", base, rule, [](auto& o) { o.momentum_form(MomentumForm::Ema); },
          [](auto& r) { r.ema = true; }),
      changed(
          "no momentum", base, rule, [](auto& o) { o.momentum(0); },
          [](auto& r) { r.momentum = 0; }),
      changed(
          "quantile .6", base, rule, [](auto& o) { o.filter(SoftThreshold().quantile(0.6)); },
          [](auto& r) { r.split = Split::Quantile, r.split_value = 0.6; }),
      changed(
          "the quantile of the momentum", base, rule,
          [](auto& o) {
            o.filter(SoftThreshold().quantile(0.9)).filter_place(FilterPlace::Momentum);
          },
          [](auto& r) {
            r.split = Split::Quantile, r.split_value = 0.9, r.split_gradient = false;
          }),
      changed(
          "one pass, of the momentum", base, rule,
          [](auto& o) {
            o.filter(SoftThreshold().scaled(2, 1)).filter_place(FilterPlace::Momentum);
          },
          [](auto& r) { r.split_value = 2, r.split_passes = 1, r.split_gradient = false; }),
      changed(
          "absolute threshold", base, rule,
          [](auto& o) { o.filter(SoftThreshold().absolute(2.5)); },
          [](auto& r) { r.split = Split::Absolute, r.split_value = 2.5; }),
      changed(
          "absolute threshold on EMA", base, rule,
          [](auto& o) { o.filter(SoftThreshold().absolute(0.4)).momentum_form(MomentumForm::Ema); },
          [](auto& r) { r.split = Split::Absolute, r.split_value = 0.4, r.ema = true; }),
      changed(
          "threshold relative to the RMS", base, rule,
          [](auto& o) { o.filter(SoftThreshold().relative_to_rms(1.2)); },
          [](auto& r) { r.split = Split::RelativeToRms, r.split_value = 1.2; }),
      changed(
          "scale original", base, rule, [](auto& o) { o.scale(LrScale::Original); },
          [](auto& r) { r.scale = Scale::Original; }),
      changed(
          "scale spectral", base, rule, [](auto& o) { o.scale(LrScale::Spectral); },
          [](auto& r) { r.scale = Scale::Spectral; }),
      changed(
          "not balanced", base, rule, [](auto& o) { o.update_beta(0); },
          [](auto& r) { r.update_beta = 0; }),
      changed(
          "no scale", base, rule, [](auto& o) { o.scale(LrScale::Unscaled); },
          [](auto& r) { r.scale = Scale::None; }),
  };
}

std::vector<Case<MuonOptions>> muon_cases(Shape shape) {
  const MuonOptions base(2e-2);
  MatrixRule rule = muon_rule();
  rule.lr = 2e-2;
  using Start = test::reference::Start;
  const auto polar = CoefficientSet::polar_express(1.05);
  return {
      {"defaults", base, rule},
      changed(
          "plain momentum, no decay", base, rule,
          [](auto& o) { o.nesterov(false).weight_decay(0); },
          [](auto& r) { r.nesterov = false, r.weight_decay = 0; }),
      changed(
          "match_rms_adamw", base, rule, [](auto& o) { o.scale(LrScale::MatchRmsAdamW); },
          [](auto& r) { r.scale = test::reference::Scale::MatchRmsAdamW; }),
      changed(
          "polar_express x 8, Schatten8", base, rule,
          [&](auto& o) {
            o.orthogonalizer(NewtonSchulz().coefficients(polar).steps(8).normalization(
                Normalization::Schatten8));
          },
          [&](auto& r) {
            r.schedule = test::triples(polar.quintics(shape.rows, shape.cols, 8));
            r.start = Start::Schatten8;
          }),
      changed(
          "you, FrobeniusPlus with eps .1", base, rule,
          [](auto& o) {
            o.orthogonalizer(NewtonSchulz()
                                 .coefficients(CoefficientSet::you())
                                 .normalization(Normalization::FrobeniusPlus)
                                 .eps(0.1));
          },
          [](auto& r) {
            r.schedule = test::triples(CoefficientSet::you().quintics(16, 16, 5));
            r.start = Start::FrobeniusPlus;
            r.eps = 0.1;
          }),
  };
}

std::vector<Case<RootPaperOptions>> paper_cases(Shape) {
  MatrixRule rule;  // its defaults are the published step
  rule.lr = 2e-2;
  rule.split_offset = 1e-9;
  return {{"published", root_paper(2e-2), rule},
          changed(
              "published, no decay, plain momentum", root_paper(2e-2), rule,
              [](auto& o) { o.weight_decay(0).nesterov(false); },
              [](auto& r) { r.weight_decay = 0, r.nesterov = false; })};
}

template <class Optimizer>
void follow(const Case<typename Optimizer::Options>& test_case, Shape shape, at::Device device,
            at::ScalarType dtype, Quantity quantity = Quantity::StepVsReference) {
  INFO(test_case.name << ", " << shape.rows << " x " << shape.cols << ", " << dtype << " on "
                      << device);
  const at::Tensor start = test::gaussian({shape.rows, shape.cols}, 51);
  const at::Tensor p = test::parameter(start.to(on(device, dtype)));
  Optimizer optimizer({p}, test_case.options);
  test::reference::Matrix reference{start.to(dtype).to(at::kDouble)};
  for (int64_t t = 1; t <= kSteps; ++t) {
    const at::Tensor gradient = test::gradient_of(p.sizes(), t).to(dtype);
    test::set_gradient(p, gradient);
    optimizer.step();
    reference.step(gradient.to(at::kDouble), test_case.rule);
  }
  // Errors of directions come with steps, whose size is as at the start when a strong decay has left little of it:
  // then, with LibTorch 1.13.1 on an Intel Xeon, they are 1.7e-6, 1.01e-5 of what is left.
  const double scale = (std::max)(test::scale_of(start), test::scale_of(reference.parameter));
  CHECK_THAT(p, test::close_to(reference.parameter, tolerance(quantity, dtype), scale));
  const auto& state = static_cast<const ParamState&>(*optimizer.state().begin()->second);
  CHECK(state.step() == kSteps);
  CHECK_THAT(state.momentum_buffer(),
             test::close_to(reference.momentum, tolerance(Quantity::Momentum, dtype)));
  CHECK(state.row_moment().defined() == (test_case.rule.update_beta > 0));
  if (test_case.rule.update_beta > 0) {  // their roots are sizes of rows and columns of a direction
    CHECK_THAT(state.row_moment().sqrt(),
               test::close_to(reference.row_moment.sqrt(), tolerance(quantity, dtype)));
    CHECK_THAT(state.column_moment().sqrt(),
               test::close_to(reference.column_moment.sqrt(), tolerance(quantity, dtype)));
  }
}

}  // namespace

TEST_CASE("Root follows the reference", "[reference]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const Iteration iteration = GENERATE(Iteration::NewtonSchulz, Iteration::Rational);
  for (const Shape shape : kShapes) {
    for (auto test_case : root_cases(shape, iteration)) {
      follow<Root>(test_case, shape, device, at::kDouble);
      // On every device in the same dtype: CUDA's default would be bfloat16.
      test_case.options.orthogonalizer(AdaNewton().iteration(iteration).compute_dtype(at::kFloat));
      follow<Root>(test_case, shape, device, at::kFloat,
                   iteration == Iteration::Rational ? Quantity::StepVsReferenceSteep
                                                    : Quantity::StepVsReference);
    }
  }
}

TEST_CASE("Root with more steps follows the reference", "[reference]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const int64_t steps = GENERATE(range<int64_t>(min_default_steps, max_default_steps + 1));
  for (const Shape shape : kShapes) {
    Case<RootOptions> test_case{"steps " + std::to_string(steps), RootOptions(2e-2),
                                root_rule(shape.rows, shape.cols)};
    const auto policy = AdaNewton().steps(steps);
    test_case.options.orthogonalizer(policy);
    test_case.rule.lr = 2e-2;
    test_case.rule.schedule =
        test::triples(policy.quintics(shape.rows, shape.cols, Precision::Float64));
    follow<Root>(test_case, shape, device, at::kDouble,
                 steps < 9 ? Quantity::StepVsReference : Quantity::StepVsReferenceSteep);
  }
}

TEST_CASE("Muon follows the reference", "[reference]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  for (const Shape shape : kShapes) {
    for (auto test_case : muon_cases(shape)) {
      follow<Muon>(test_case, shape, device, at::kDouble);
      auto policy = test_case.options.orthogonalizer();
      test_case.options.orthogonalizer(policy.compute_dtype(at::kFloat));
      follow<Muon>(test_case, shape, device, at::kFloat);
    }
  }
}

TEST_CASE("RootPaper follows the reference", "[reference]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  for (const Shape shape : kShapes) {
    for (const auto& test_case : paper_cases(shape)) {
      follow<RootPaper>(test_case, shape, device, at::kDouble);
    }
  }
}

TEST_CASE("one step by hand", "[reference]") {
  // Every stage has a value that can be checked by eye: a multiple of an orthogonal matrix, no
  // outliers, and a polynomial that leaves singular values as they are.
  const auto matrix = [](std::vector<double> entries) {
    return at::tensor(entries, at::kDouble).reshape({2, 2});
  };
  const at::Tensor p = test::parameter(matrix({1, 2, 3, 4}));
  Muon muon({p},
            MuonOptions(0.5)
                .rule(Rule::Orthogonalized)  // a side of 2 is below what Auto takes
                .momentum(0)
                .weight_decay(0.1)
                .scale(LrScale::Unscaled)
                .orthogonalizer(
                    NewtonSchulz().coefficients(CoefficientSet::repeated({1, 0, 0})).steps(1)));
  test::set_gradient(p, matrix({0, 3, 4, 0}));  // norm 5
  muon.step();
  // (1 - .5 * .1) p - .5 * g / 5
  const at::Tensor expected = matrix({0.95, 1.9 - 0.3, 2.85 - 0.4, 3.8});
  CHECK_THAT(p, test::close_to(expected, tolerance(Quantity::OneRounding, at::kDouble)));
}

TEST_CASE("numeric tests run on every device present", "[devices]") {
  REQUIRE(test::devices().front() == at::kCPU);
  if (test::devices().size() == 1) WARN("CUDA: skipped, LibTorch sees no CUDA device here");
}
