// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Prints include/root_optim/coefficients/shipped.hpp: fits families of spectra to the summary of
// real momentum and designs the shipped coefficients for them.
//
//   build/release/tools/default_coefficients > include/root_optim/coefficients/shipped.hpp
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <utility>

#include <root_optim/coefficients/design/design.hpp>
#include <root_optim/coefficients/design/shape_model.hpp>
#include <root_optim/coefficients/spectrum.hpp>

#include "momentum_spectra.hpp"

namespace {

using namespace root_optim;

constexpr char kHead[] = R"(// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The shipped coefficients of AdaNewton, one schedule for every shape: written by
// tools/default_coefficients.cpp, do not edit. Designed for matrices normalized by their
// Schatten-8 norm, for the spectra of ShapeModel (shape_model.hpp) at 1024x1024, within the limits of
// validation in float32 or in bfloat16. The published sets are in coefficients/published.hpp.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstdint>
#include <vector>

#include <root_optim/coefficients/quintic.hpp>
#include <root_optim/coefficients/spectrum.hpp>    // HeavyTail
#include <root_optim/coefficients/validation.hpp>  // Precision
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// Families of momentum spectra: median sigma over sigma_max and condition.
)";

constexpr char kSteps[] = R"(
inline constexpr int64_t min_default_steps = 3;   ///< of a shipped schedule
inline constexpr int64_t max_default_steps = 12;  ///< of a shipped schedule

namespace detail {
)";

constexpr char kTail[] = R"(
}  // namespace detail

/// Our triples for `steps` steps after Schatten-8 normalization. Those for bfloat16 are valid in every
/// precision; those for float32 and float64, which are the same, have errors some percent smaller.
/// @throws c10::Error unless min_default_steps <= steps <= max_default_steps.
inline Quintics shipped_quintics(int64_t steps, Precision precision = Precision::BFloat16) {
  TORCH_CHECK(steps >= min_default_steps && steps <= max_default_steps,
              "root_optim::shipped_quintics: expected ", min_default_steps,
              " <= steps <= ", max_default_steps, ", got ", steps);
  return precision == Precision::BFloat16 ? detail::shipped_bfloat16_quintics(steps)
                                          : detail::shipped_float32_quintics(steps);
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
)";

/// Four families fitted to the captured spectra that are not held out, U and B alike, and a deeper
/// one: from width 64 to 192 the median falls by .2 decades for every doubling, and models have
/// widths of thousands.
ShapeModel fitted_model() {
  ShapeModel model;
  model.tails =
      tools::fit_heavy_tails(tools::part_of(tools::read_momentum_spectra(MOMENTUM_SPECTRA), false));
  for (HeavyTail& tail : model.tails) {  // three digits
    const auto rounded = [](double v) {
      const double unit = std::pow(10.0, std::floor(std::log10(v)) - 2);
      return std::round(v / unit) * unit;
    };
    tail = {rounded(tail.median), rounded(tail.condition)};
  }
  model.tails.push_back({1e-3, 1e5});
  return model;
}

/// The best of several lengths of search, among those that stay below 1.25.
Design best_design(const ShapeModel& model, int64_t steps, Precision precision) {
  Design best;
  for (const int64_t iterations : {500, 1000, 2000, 4000, 8000, 16000}) {
    DesignOptions options;
    options.validation = ValidationOptions::for_precision(precision, Normalization::Schatten8);
    options.steps = steps;
    options.max_iterations = iterations;
    Design design = design_mixture(shape_spectra(1024, 1024, model), options);
    if (design.report.max_output > 1.25) continue;
    if (best.quintics.empty() || design.relative_error < best.relative_error) {
      best = std::move(design);
    }
  }
  return best;
}

/// Prints the function with the schedules of a precision.
void print_schedules(const ShapeModel& model, Precision precision, const char* name) {
  const Spectrum gaussian = gaussian_spectrum(1024, 1024, Normalization::Schatten8, 48);
  std::printf("\ninline Quintics shipped_%s_quintics(int64_t steps) {\n", name);
  std::printf("  // clang-format off\n  switch (steps) {\n");
  for (int64_t steps = 3; steps <= 12; ++steps) {
    const Design design = best_design(model, steps, precision);
    std::printf("    // slope %.4g, output in [%.3f, %.3f] for sigma >= .01, margin %.4f;\n",
                design.report.slope, design.report.min_output, design.report.max_output,
                design.report.margin);
    std::printf("    // expected relative error: Gaussian %.4f, families",
                std::sqrt(expected_mse(design.quintics, gaussian)));
    for (const HeavyTail& tail : model.tails) {
      std::printf(" %.4f",
                  std::sqrt(expected_mse(
                      design.quintics,
                      heavy_tailed_spectrum(1024, Normalization::Schatten8, tail, 16, 128))));
    }
    if (steps < 12) {
      std::printf("\n    case %d: return {", static_cast<int>(steps));
    } else {
      std::printf("\n    default: return {");
    }
    for (size_t t = 0; t < design.quintics.size(); ++t) {
      const Quintic& p = design.quintics[t];
      std::printf("%s{%.17g, %.17g, %.17g}", t == 0 ? "" : ",\n                    ", p.a, p.b,
                  p.c);
    }
    std::printf("};\n");
  }
  std::printf("  }\n  // clang-format on\n}\n");
}

}  // namespace

int main() {
  const ShapeModel model = fitted_model();
  std::fputs(kHead, stdout);
  std::printf("inline std::vector<HeavyTail> momentum_families() {\n  return {");
  for (const HeavyTail& tail : model.tails) {
    std::printf("%s{%.3g, %.3g}", &tail == model.tails.data() ? "" : ", ", tail.median,
                tail.condition);
  }
  std::printf("};\n}\n");
  std::fputs(kSteps, stdout);
  print_schedules(model, Precision::Float32, "float32");
  print_schedules(model, Precision::BFloat16, "bfloat16");
  std::fputs(kTail, stdout);
}
