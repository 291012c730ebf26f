// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
#include "support/catch_torch.hpp"

#include <root_optim/calibration/design_coefficients.hpp>
#include <root_optim/root.hpp>

#include <sstream>

#include "support/tolerances.hpp"
#include "support/training.hpp"

using namespace root_optim;
using test::parameter;

namespace {

const AdaNewton& policy_of(const Root& optimizer, size_t group = 0) {
  return static_cast<const RootOptions&>(optimizer.param_groups()[group].options())
      .orthogonalizer();
}

}  // namespace

TEST_CASE("coefficients are designed for every shape of a model", "[design_coefficients]") {
  ShapeModel gaussian;
  gaussian.gaussian_weight = 1;
  CoefficientTable mine;
  mine.set(16, 16, shipped_quintics(4));
  const at::Tensor own = parameter({16, 16}, 1, at::kFloat),
                   wide = parameter({16, 48}, 2, at::kFloat), tall = parameter({48, 16}, 3),
                   bias = parameter({48}, 4);
  Root optimizer(
      std::vector<at::Tensor>{own, wide, tall, bias},
      RootOptions(0.05).orthogonalizer(AdaNewton().iteration(Iteration::NewtonSchulz).table(mine)));
  CHECK(design_coefficients(optimizer, gaussian) == 1);  // tall is wide, and 16x16 has an entry
  const AdaNewton& policy = policy_of(optimizer);
  CHECK(policy.table().size() == 2);
  CHECK(policy.table().find(16, 16)->origin == "user");
  CHECK(policy.table().find(16, 48)->origin == "designed");
  CHECK(policy.quintics(48, 16, Precision::Float32) ==
        design_for_shape(16, 48, AdaNewton().steps_for(16, 48, Precision::Float32),
                         Precision::Float32, gaussian)
            .quintics);
  CHECK(design_coefficients(optimizer, gaussian) == 0);
  test::train(optimizer, {own, wide, tall, bias}, 0, 2);

  // A checkpoint has them.
  std::stringstream file;
  save(optimizer, file);
  Root other(std::vector<at::Tensor>{parameter({16, 16}, 1, at::kFloat),
                                     parameter({16, 48}, 2, at::kFloat), parameter({48, 16}, 3),
                                     parameter({48}, 4)});
  load(other, file);
  CHECK(policy_of(other).table().to_text() == policy.table().to_text());
}

TEST_CASE("stages are designed where AdaNewton takes inverses", "[design_coefficients]") {
  ShapeModel gaussian;
  gaussian.gaussian_weight = 1;
  const at::Tensor wide = parameter({16, 48}, 2, at::kFloat), tall = parameter({48, 16}, 3);
  Root optimizer(std::vector<at::Tensor>{wide, tall},
                 RootOptions(0.05).orthogonalizer(AdaNewton().budget(0.7)));
  const auto shipped = policy_of(optimizer).stages(16, 48);
  CHECK(design_coefficients(optimizer, gaussian) == 1);
  const TableEntry entry = *policy_of(optimizer).table().find(16, 48);
  CHECK(entry.origin == "designed");
  REQUIRE(entry.stages.size() == shipped.size());
  for (size_t t = 0; t < shipped.size(); ++t) {
    CHECK(entry.stages[t].poles.size() == shipped[t].poles.size());
  }
  const Spectrum spectrum =
      schatten4_spectrum(gaussian_spectrum(16, 48, Normalization::Schatten8), 16);
  CHECK(expected_mse(entry.stages, spectrum) < expected_mse(shipped, spectrum));
  CHECK(policy_of(optimizer).stages(48, 16) == entry.stages);
  test::train(optimizer, {wide, tall}, 0, 2);
}

TEST_CASE("each group's settings and precision count, blocks are shapes of their own",
          "[design_coefficients]") {
  std::vector<Root::Group> groups;
  groups.emplace_back(std::vector<at::Tensor>{parameter({96, 32}, 1, at::kFloat)},
                      std::make_unique<RootOptions>(RootOptions(0.05)
                                                        .layout(MatrixLayout().split_rows(3))
                                                        .orthogonalizer(AdaNewton().steps(3))));
  groups.emplace_back(std::vector<at::Tensor>{parameter({96, 32}, 2, at::kFloat)},
                      std::make_unique<RootOptions>(RootOptions(0.05).orthogonalizer(
                          AdaNewton().compute_dtype(at::kBFloat16))));
  Root optimizer(groups);
  CHECK(design_coefficients(optimizer) == 2);
  CHECK(policy_of(optimizer, 0).table().find(32, 32)->quintics.size() == 3);
  CHECK(policy_of(optimizer, 1).table().find(32, 96) == nullptr);
  CHECK(policy_of(optimizer, 1).table().find(32, 96, Precision::BFloat16) != nullptr);
}

TEST_CASE("a model that makes no sense changes no table", "[design_coefficients][errors]") {
  Root optimizer(std::vector<at::Tensor>{parameter({16, 48}, 1)});
  ShapeModel model;
  model.gaussian_weight = -1;
  CHECK_THROWS_WITH(design_coefficients(optimizer, model), test::contains("gaussian_weight"));
  CHECK(policy_of(optimizer).table().empty());
}
