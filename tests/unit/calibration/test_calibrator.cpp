// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Calibration during training: what it measures, when, what it leaves alone, and that a resumed run
// goes on as an uninterrupted one.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <sstream>

#include "support/spectra.hpp"
#include "support/tolerances.hpp"
#include "support/training.hpp"

using namespace root_optim;
using test::contains;
using test::parameter;

namespace {

/// Two layers of one shape, one of another, a bias; in two groups.
struct Model {
  std::vector<at::Tensor> parameters{
      parameter({24, 40}, 1, at::kFloat), parameter({40, 24}, 2, at::kFloat),
      parameter({16, 16}, 3, at::kFloat), parameter({16}, 4, at::kFloat)};
  Root optimizer;

  explicit Model(const RootOptions& options = RootOptions(1e-2))
      : optimizer(
            {Root::Group({parameters[0], parameters[1]}, std::make_unique<RootOptions>(options)),
             Root::Group({parameters[2], parameters[3]}, std::make_unique<RootOptions>(options))}) {
  }

  AdaNewton& policy(size_t group) {
    return static_cast<RootOptions&>(optimizer.param_groups()[group].options()).orthogonalizer();
  }
};

using RootCalibrator = Calibrator<SoftThreshold>;

/// Steps first + 1 … last with the gradients of test::train.
void train(Model& model, RootCalibrator* calibrator, int64_t first, int64_t last) {
  for (int64_t t = first + 1; t <= last; ++t) {
    for (const at::Tensor& p : model.parameters) {
      test::set_gradient(p, test::gradient_of(p.sizes(), t));
    }
    if (calibrator != nullptr) calibrator->step();
    model.optimizer.step();
  }
}

CalibratorOptions every(int64_t steps) {
  CalibratorOptions options;
  options.every = steps;
  return options;
}

}  // namespace

TEST_CASE("gram_singular_values: those of the SVD, whatever the scale", "[calibrator]") {
  for (const auto& [name, matrix] : test::hard_spectra()) {
    if (matrix.numel() == 0 || name == "zero") continue;
    INFO(name);
    const std::vector<double> values = gram_singular_values(matrix);
    at::Tensor sigma = at::linalg_svdvals(matrix);
    sigma = (sigma / sigma[0]).flip(0).contiguous();
    REQUIRE(values.size() == static_cast<size_t>(sigma.numel()));
    for (size_t i = 0; i < values.size(); ++i) {
      // ε of float64 under the root: 1.5e-8, times a modest function of the size.
      CHECK(values[i] / values.back() ==
            Approx(sigma[static_cast<int64_t>(i)].item<double>()).margin(2e-7));
    }
  }
  CHECK(gram_singular_values(at::zeros({3, 4})).empty());
  CHECK(gram_singular_values(at::full({3, 4}, std::nan(""))).empty());
  CHECK(gram_singular_values(at::full({3, 4}, INFINITY)).empty());
  CHECK(gram_singular_values(at::empty({0, 4})).empty());
}

TEST_CASE("calibrated_entry: nearer on what was seen, valid, and usable elsewhere",
          "[calibrator]") {
  const Spectrum seen = condensed(heavy_tailed_spectrum(64, Normalization::Schatten8, {0.05, 1e5}));
  const TableEntry entry = calibrated_entry(96, 64, seen, 5);
  CHECK(expected_mse(entry.quintics, seen) <
        expected_mse(shipped_quintics(5, Precision::Float32), seen));
  const Spectrum gaussian = gaussian_spectrum(64, 96, Normalization::Schatten8);
  CHECK(expected_mse(entry.quintics, gaussian) < 0.05);
  CHECK(entry.origin == "calibrated");
  CoefficientTable table;
  CHECK_NOTHROW(table.set(entry));
  CHECK_THROWS_WITH(calibrated_entry(4, 4, seen, 5, Precision::Float32, 1.0),
                    contains("gaussian_weight < 1"));
}

TEST_CASE("Calibrator: entries at every k-th step, for the shapes of each group", "[calibrator]") {
  Model model;
  RootCalibrator calibrator(model.optimizer, every(3));
  train(model, &calibrator, 0, 3);
  CHECK(calibrator.designs() == 0);  // due before the fourth step
  CHECK(model.policy(0).table().empty());
  train(model, &calibrator, 3, 4);
  CHECK(calibrator.designs() == 2);
  CHECK(calibrator.failures() == 0);
  REQUIRE(model.policy(0).table().size() == 1);
  REQUIRE(model.policy(1).table().size() == 1);
  const CoefficientTable table = model.policy(0).table();
  const TableEntry* entry = table.find(24, 40);
  REQUIRE(entry != nullptr);
  CHECK(entry->origin == "calibrated");
  REQUIRE(entry->stages.size() == AdaNewton().stages(24, 40).size());
  CHECK(entry->stages[0].poles.size() == AdaNewton().stages(24, 40)[0].poles.size());
  const Spectrum seen = schatten4_spectrum(entry->spectrum, 24);
  CHECK(expected_mse(entry->stages, seen) < expected_mse(AdaNewton().stages(24, 40), seen));
  train(model, &calibrator, 4, 6);
  CHECK(calibrator.designs() == 2);
  train(model, &calibrator, 6, 7);
  CHECK(calibrator.designs() == 4);
}

TEST_CASE("Calibrator: converges to the spectrum it is fed", "[calibrator]") {
  // Gradients with known singular values, no momentum, no split: B is the gradient.
  const at::Tensor p = parameter({32, 48}, 5, at::kFloat);
  const bool rational = GENERATE(false, true);
  auto options = RootOptions(1e-3).momentum(0).filter(SoftThreshold().quantile(1));
  if (!rational) options.orthogonalizer(AdaNewton().iteration(Iteration::NewtonSchulz));
  Root optimizer({p}, options);
  Calibrator<SoftThreshold> calibrator(optimizer, every(1));
  const at::Tensor sigma = at::pow(10.0, at::linspace(0, -3, 32, at::kDouble));
  const Spectrum truth = measured_spectrum(
      {sigma.data_ptr<double>(), sigma.data_ptr<double>() + 32}, Normalization::Schatten8);
  const auto entry = [&] {
    return *static_cast<RootOptions&>(optimizer.param_groups()[0].options())
                .orthogonalizer()
                .table()
                .find(32, 48);
  };
  const auto error = [&](const TableEntry& found) {
    return rational ? expected_mse(found.stages, schatten4_spectrum(truth, 32))
                    : expected_mse(found.quintics, truth);
  };
  double first = 0;
  for (uint64_t t = 0; t < 16; ++t) {
    // The first steps are of another kind, which must fade.
    test::set_gradient(p, t < 3 ? test::gaussian({32, 48}, 50 + t)
                                : test::with_singular_values(32, 48, sigma, 60 + 2 * t));
    calibrator.step();
    optimizer.step();
    if (t == 2) first = error(entry());
  }
  double best = 0;
  if (rational) {
    RationalDesignOptions design;
    design.poles.clear();
    for (const RationalStage& f : entry().stages) {
      design.poles.push_back(static_cast<int64_t>(f.poles.size()));
    }
    best = expected_mse(design_rational({{1.0, schatten4_spectrum(truth, 32)}}, design).schedule,
                        schatten4_spectrum(truth, 32));
  } else {
    DesignOptions design;
    design.steps = static_cast<int64_t>(entry().quintics.size());
    design.validation =
        ValidationOptions::for_precision(Precision::Float32, Normalization::Schatten8);
    best = expected_mse(design_quintics(truth, design).quintics, truth);
  }
  const double reached = error(entry());
  INFO("first " << first << ", reached " << reached << ", best " << best);
  CHECK(reached < 0.5 * first);
  CHECK(reached < 1.3 * best);  // a tenth of the weight is the Gaussian part's
}

TEST_CASE("Calibrator: save, load, continue equals uninterrupted", "[calibrator][checkpoint]") {
  const bool with_torch_save = GENERATE(false, true);
  Model uninterrupted, first, second;
  RootCalibrator all(uninterrupted.optimizer, every(2)), before(first.optimizer, every(2));
  train(uninterrupted, &all, 0, 9);
  train(first, &before, 0, 5);
  std::stringstream file;
  if (with_torch_save) {
    torch::save(first.optimizer, file);
    torch::load(second.optimizer, file);
  } else {
    root_optim::save(first.optimizer, file);
    root_optim::load(second.optimizer, file);
  }
  CHECK(second.policy(0).table().to_text() == first.policy(0).table().to_text());
  const torch::NoGradGuard no_grad;
  for (size_t i = 0; i < first.parameters.size(); ++i) {
    second.parameters[i].copy_(first.parameters[i]);
  }
  RootCalibrator after(second.optimizer, every(2));
  train(second, &after, 5, 9);
  for (size_t i = 0; i < first.parameters.size(); ++i) {
    CHECK_THAT(second.parameters[i], test::same_as(uninterrupted.parameters[i]));
  }
  for (size_t g = 0; g < 2; ++g) {
    CHECK(second.policy(g).table().to_text() == uninterrupted.policy(g).table().to_text());
  }
  CHECK(before.designs() + after.designs() == all.designs());
}

TEST_CASE("Calibrator: without one, or before it is due, nothing is different", "[calibrator]") {
  Model without, with;
  RootCalibrator calibrator(with.optimizer, every(100));
  train(without, nullptr, 0, 4);
  train(with, &calibrator, 0, 4);
  for (size_t i = 0; i < without.parameters.size(); ++i) {
    CHECK_THAT(with.parameters[i], test::same_as(without.parameters[i]));
  }
  CHECK(with.policy(0).table().empty());
  // A report looks on without touching a table.
  Model calibrated;
  RootCalibrator often(calibrated.optimizer, every(1));
  train(calibrated, &often, 0, 3);
  const std::string before = calibrated.policy(0).table().to_text();
  step_report(calibrated.optimizer);
  CHECK(calibrated.policy(0).table().to_text() == before);
}

TEST_CASE("Calibrator: leaves a user's entry alone", "[calibrator]") {
  CoefficientTable table;
  table.set(24, 40, CoefficientSet::you().quintics(1, 1, 5));
  Model model(RootOptions(1e-2).orthogonalizer(AdaNewton().table(table)));
  RootCalibrator calibrator(model.optimizer, every(1));
  train(model, &calibrator, 0, 3);
  CHECK(model.policy(0).table().to_text() == table.to_text());
  CHECK(model.policy(1).table().size() == 2);
  CHECK(calibrator.designs() == 2);
}

TEST_CASE("Calibrator: what cannot be measured keeps its coefficients and is counted",
          "[calibrator]") {
  Model model;
  RootCalibrator calibrator(model.optimizer, every(1));
  train(model, &calibrator, 0, 2);
  const std::string before = model.policy(0).table().to_text();
  const int64_t designs = calibrator.designs();
  for (const at::Tensor& p : model.parameters) {
    test::set_gradient(p, at::full(p.sizes(), std::nan("")));
  }
  calibrator.step();
  CHECK(calibrator.failures() == 2);
  CHECK(calibrator.designs() == designs);
  CHECK(model.policy(0).table().to_text() == before);

  model.parameters[0].mutable_grad() = at::Tensor();
  model.parameters[1].mutable_grad() = at::Tensor();
  calibrator.step();  // a group without gradients is not due
  CHECK(calibrator.failures() == 3);

  model.parameters[0].mutable_grad() = at::zeros({24, 40});
  calibrator.step();
  CHECK(calibrator.designs() + calibrator.failures() == designs + 5);
}

TEST_CASE("Calibrator: names what is out of range", "[calibrator][errors]") {
  Model model;
  const auto with = [&](auto change) {
    CalibratorOptions options;
    change(options);
    return [&model, options] { RootCalibrator(model.optimizer, options); };
  };
  CHECK_THROWS_WITH(with([](auto& o) { o.every = 0; })(), contains("every, samples >= 1, got 0"));
  CHECK_THROWS_WITH(with([](auto& o) { o.samples = 0; })(), contains(">= 1, got 200, 0"));
  CHECK_THROWS_WITH(with([](auto& o) { o.memory = 1; })(), contains("in [0, 1), got 1"));
  CHECK_THROWS_WITH(with([](auto& o) { o.gaussian_weight = -1; })(), contains("got 0.7, -1"));
}
