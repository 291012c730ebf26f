// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Trajectories of other programs on fixed inputs (generate.py): PyTorch's torch.optim.Muon and the
// published ROOT step in NumPy.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <cmath>

#include "support/devices.hpp"
#include "support/golden.hpp"
#include "support/tolerances.hpp"
#include "support/training.hpp"

using namespace root_optim;
using test::on;
using test::Quantity;
using test::tolerance;

namespace {

/// Steps an optimizer along the inputs of a trajectory and hands each sampled parameter to `check`.
/// Returns the momentum buffer.
template <class Optimizer, class Check>
at::Tensor replay(const test::GoldenInputs& inputs, const test::Trajectory& trajectory,
                  const typename Optimizer::Options& options, at::TensorOptions where,
                  Check check) {
  const at::Tensor p = test::parameter(inputs.parameter.to(where));
  Optimizer optimizer({p}, options);
  int64_t t = 0;
  for (const at::Tensor& gradient : inputs.gradients) {
    test::set_gradient(p, gradient);
    optimizer.step();
    const auto sample = trajectory.samples.find(++t);
    if (sample == trajectory.samples.end()) continue;
    INFO(trajectory.name << ", step " << t);
    check(t, p, sample->second);
  }
  REQUIRE(t == trajectory.samples.rbegin()->first);
  return static_cast<const ParamState&>(*optimizer.state().begin()->second).momentum_buffer();
}

MuonOptions muon_options(const test::Trajectory& trajectory) {
  return MuonOptions(trajectory.number("lr"))
      .nesterov(trajectory.number("nesterov") != 0)
      .weight_decay(trajectory.number("weight_decay"))
      .scale(trajectory.options.at("scale") == "original" ? LrScale::Original
                                                          : LrScale::MatchRmsAdamW);
}

void compare_muon(at::ScalarType recorded, at::ScalarType ours) {
  const at::Device device = GENERATE(from_range(test::devices()));
  const test::GoldenFile file("muon.txt");
  int compared = 0;
  for (const test::Trajectory& trajectory : file.trajectories) {
    const bool in_bfloat16 = trajectory.options.at("compute") == "bfloat16";
    if (in_bfloat16 != (recorded == at::kBFloat16)) continue;
    ++compared;
    const test::GoldenInputs& inputs = file.inputs.at(trajectory.inputs);
    const MuonOptions options =
        muon_options(trajectory).orthogonalizer(NewtonSchulz().compute_dtype(ours));
    const double step_length = options.lr() * lr_scale(options.scale(), inputs.parameter.size(0),
                                                       inputs.parameter.size(1));
    const at::Tensor momentum = replay<Muon>(
        inputs, trajectory, options, on(device, at::kFloat),
        [&](int64_t t, const at::Tensor& p, const at::Tensor& expected) {
          const double scale = step_length * std::sqrt(static_cast<double>(t));
          CHECK_THAT(p, test::close_to(expected, tolerance(Quantity::GoldenMuon, recorded), scale));
        });
    CHECK_THAT(momentum, test::close_to(trajectory.momentum,
                                        tolerance(Quantity::GoldenMuonMomentum, at::kFloat)));
  }
  REQUIRE(compared == 12);  // 3 shapes x 4 variants
}

RootPaperOptions root_options(const test::Trajectory& trajectory) {
  RootPaperOptions options = root_paper(trajectory.number("lr"));
  options.nesterov(trajectory.number("nesterov") != 0)
      .weight_decay(trajectory.number("weight_decay"))
      .filter(SoftThreshold::published().quantile(trajectory.number("quantile")));
  if (trajectory.options.at("coefficients") == "2048") {
    const Quintic published = CoefficientSet::root_paper().quintics(2048, 2048, 1).front();
    auto policy = options.orthogonalizer();
    options.orthogonalizer(policy.coefficients(CoefficientSet::repeated(published)));
  }
  return options;
}

}  // namespace

TEST_CASE("Muon stays within bfloat16 of torch.optim.Muon as shipped", "[golden][muon]") {
  if (!test::bfloat16_products_hold(at::kCPU)) return;
  compare_muon(at::kBFloat16, at::kBFloat16);
}

TEST_CASE("Muon in float32 stays within bfloat16 of torch.optim.Muon as shipped",
          "[golden][muon]") {
  compare_muon(at::kBFloat16, at::kFloat);
}

TEST_CASE("Muon stays within float32 of torch.optim.Muon's algorithm in float32",
          "[golden][muon]") {
  compare_muon(at::kFloat, at::kFloat);
}

TEST_CASE("RootPaper reproduces the published step to float64 rounding", "[golden][root]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const test::GoldenFile file("root.txt");
  REQUIRE(file.trajectories.size() == 15);  // 3 shapes x 5 variants
  for (const test::Trajectory& trajectory : file.trajectories) {
    const at::Tensor momentum = replay<RootPaper>(
        file.inputs.at(trajectory.inputs), trajectory, root_options(trajectory),
        on(device, at::kDouble), [](int64_t, const at::Tensor& p, const at::Tensor& expected) {
          CHECK_THAT(p, test::close_to(expected, tolerance(Quantity::GoldenRoot, at::kDouble)));
        });
    CHECK_THAT(momentum,
               test::close_to(trajectory.momentum, tolerance(Quantity::GoldenRoot, at::kDouble)));
  }
}

TEST_CASE("root_paper is the published configuration", "[golden][root]") {
  const RootPaperOptions options = root_paper();
  CHECK(options.lr() == 1e-3);
  CHECK(options.momentum() == 0.95);
  CHECK(options.momentum_form() == MomentumForm::Sum);
  CHECK(options.nesterov());
  CHECK(options.weight_decay() == 0.1);
  CHECK(options.scale() == LrScale::MatchRmsAdamW);
  CHECK(options.orthogonalizer().coefficients() == CoefficientSet::root_paper());
  CHECK(options.orthogonalizer().steps() == 5);
  CHECK(options.orthogonalizer().normalization() == Normalization::FrobeniusPlus);
  CHECK(options.orthogonalizer().eps() == 1e-7);
}

TEST_CASE("golden files say what wrote them", "[golden]") {
  for (const std::string name : {"muon.txt", "root.txt"}) {
    const test::GoldenFile file(name);
    CHECK_THAT(file.generator, test::contains("torch 2.13.0"));
    CHECK_THAT(file.generator, test::contains("numpy 2."));
  }
}
