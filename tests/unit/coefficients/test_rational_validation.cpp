// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The check of rational schedules: the sup is the sup, and what must be refused is.
#include "support/catch_torch.hpp"

#include <root_optim/coefficients/rational_validation.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

using root_optim::check_rational;
using root_optim::evaluate;
using root_optim::Precision;
using root_optim::RationalReport;
using root_optim::RationalStage;
using root_optim::RationalStages;
using root_optim::RationalValidationOptions;
using root_optim::validate_rational;
using root_optim::zolotarev_stages;

namespace {

RationalStages one(double constant, std::vector<double> weights, std::vector<double> poles) {
  return {{constant, std::move(weights), std::move(poles)}};
}

RationalValidationOptions loose() {
  RationalValidationOptions options;
  options.output_bound = options.largest_gain = 1e9;
  options.start_slack = 0;
  return options;
}

void check_refused(const RationalStages& schedule, const std::string& why,
                   const RationalValidationOptions& options = {}) {
  const RationalReport report = validate_rational(schedule, options);
  CHECK_FALSE(report.valid);
  CHECK_THAT(report.reason, test::contains(why));
  CHECK_THROWS_WITH(check_rational(schedule, options, "test"), test::contains(why));
}

}  // namespace

TEST_CASE("the sup of one pole is its peak", "[rational]") {
  // a x / (x² + c) is largest at √c: a / 2√c.
  const RationalReport report = validate_rational(one(0, {0.3}, {0.04}), loose());
  CHECK(std::abs(report.max_output - 0.75) < 1e-10);
  CHECK(std::abs(report.stages[0].arg_max - 0.2) < 1e-5);
  // Rising up to the end of the interval.
  CHECK(std::abs(validate_rational(one(0, {0.3}, {4}), loose()).max_output - 0.06) < 1e-12);
}

TEST_CASE("the sup and the smallest output are those of dense samples", "[rational]") {
  std::vector<RationalStages> schedules{zolotarev_stages({{2, 1e-3}}),
                                        zolotarev_stages({{3, 1e-3}}),
                                        zolotarev_stages({{2, 1e-3}, {2, 1e-2}}),
                                        zolotarev_stages({{1, 1e-2}, {1, 0.1}, {1, 0.5}}),
                                        one(0.1, {0.02, 0.3, 1e-3}, {1e-3, 0.7, 4e-6}),
                                        one(0, {1e-3, 3e-3, 1e-2, 3e-2}, {1e-5, 1e-4, 1e-3, 1e-2})};
  for (const RationalStages& schedule : schedules) {
    const RationalReport report = validate_rational(schedule, loose());
    REQUIRE(report.valid);
    double most = 0, least = 1e300;
    for (int i = 0; i <= 100000; ++i) {
      const double x = std::pow(10.0, -7.0 * i / 100000), y = evaluate(schedule, x);
      most = std::max(most, y);
      if (x >= RationalReport::low_sigma) least = std::min(least, y);
    }
    CHECK(report.max_output >= most * (1 - 1e-12));
    CHECK(report.max_output < most * (1 + 1e-7));  // samples are 1.6e-4 apart
    CHECK(report.min_output <= least * (1 + 1e-12));
    CHECK(report.min_output > least * (1 - 1e-7));
    CHECK(report.rounding > 0);
  }
}

TEST_CASE("what the iteration is meant for is valid", "[rational]") {
  for (const auto& stages : std::vector<std::vector<root_optim::ZolotarevStage>>{
           {{2, 1e-3}}, {{3, 1e-3}}, {{1, 1e-3}, {2, 0.1}}, {{2, 1e-3}, {2, 1e-2}}}) {
    const RationalReport report = validate_rational(zolotarev_stages(stages));
    CHECK(report.valid);
    CHECK(report.max_output + report.rounding < 1.25);
    CHECK(report.stages.size() == stages.size());
  }
}

TEST_CASE("rational schedules that are unsafe are refused", "[rational]") {
  const double infinity = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  check_refused({}, "has no stages");
  check_refused(one(1, {1}, {}), "a weight for every pole");
  check_refused(one(1, {}, {}), "1 to 16 poles");
  check_refused(one(-1e-9, {0.1}, {0.1}), "its constant is negative");
  check_refused(one(nan, {0.1}, {0.1}), "its constant is negative, too large or not finite");
  check_refused(one(0.1, {-0.1}, {0.1}), "a weight is negative");
  check_refused(one(0.1, {infinity}, {0.1}), "a weight is negative, too large or not finite");
  check_refused(one(0.1, {0.1}, {0}), "a pole is not positive");
  check_refused(one(0.1, {0.1}, {nan}), "a pole is not positive, too large or not finite");
  check_refused(one(0, {0}, {0.1}), "everything to zero");
  check_refused(one(0.5, {1e-9}, {1e-7}), "lost in rounding");
  check_refused(one(1.3, {0.01}, {0.1}), "its output reaches");
  check_refused(zolotarev_stages({{2, 1e-3}, {2, 1e-3}, {1, 0.1}}), "the gain at zero reaches");
  CHECK(validate_rational(zolotarev_stages({{2, 1e-3}, {2, 1e-3}, {1, 0.1}})).failing_stage == 3);
  // A later stage meets ‖R‖₂ up to the square of what the one before lets out.
  auto grown = zolotarev_stages({{2, 1e-3}, {2, 1.1e-3}});
  CHECK(validate_rational(grown, loose()).valid);
  for (double& a : grown[0].weights) a *= 3;
  grown[0].constant *= 3;
  check_refused(grown, "lost in rounding", loose());
  // Float64 takes what float32 does not.
  const auto deep = RationalValidationOptions::for_precision(Precision::Float64);
  CHECK(validate_rational(zolotarev_stages({{8, 1e-6}}), deep).valid);
  CHECK_THROWS_WITH(RationalValidationOptions::for_precision(Precision::BFloat16),
                    test::contains("carries no inverse"));
}

TEST_CASE("bfloat16 multiplies only a last stage whose gain leaves room", "[rational]") {
  const auto allowed = [](const RationalStages& schedule) {
    return root_optim::allows_bfloat16_product(validate_rational(schedule), 1.25);
  };
  CHECK(allowed(zolotarev_stages({{2, 1e-3}, {1, 0.1}})));
  CHECK_FALSE(allowed(zolotarev_stages({{2, 1e-3}, {2, 1e-2}})));
  CHECK_FALSE(allowed(zolotarev_stages({{2, 0.1}})));
}
