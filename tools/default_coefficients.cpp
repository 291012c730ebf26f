// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Prints include/root_optim/coefficients/detail/shipped_triples.hpp: fits families of spectra to the
// summary of real momentum and designs the shipped coefficients for them.
//
//   build/release/tools/default_coefficients > include/root_optim/coefficients/detail/shipped_triples.hpp
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <utility>

#include <root_optim/coefficients/design/design.hpp>
#include <root_optim/coefficients/design/shape_model.hpp>
#include <root_optim/coefficients/shipped.hpp>
#include <root_optim/coefficients/spectrum.hpp>

#include "momentum_spectra.hpp"

namespace {

using namespace root_optim;

constexpr char kHead[] = R"(// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The data of coefficients/shipped.hpp: written by tools/default_coefficients.cpp, do not edit.
#pragma once

#include <root_optim/coefficients/quintic.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

// clang-format off

/// Families of momentum spectra: median sigma over sigma_max, and condition.
inline constexpr double shipped_families[][2] = {
)";

constexpr char kTail[] = R"(
// clang-format on

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
)";

/// Four families fitted to the captured spectra that are not held out, U and B alike, and a deeper
/// one: from width 64 to 192 the median falls by .2 decades for every doubling, and models have
/// widths of thousands. The runs of deep models are left out: five quintics cannot lift such spectra,
/// and would pay for the attempt on all others.
ShapeModel fitted_model() {
  ShapeModel model;
  const auto all = tools::read_momentum_spectra(MOMENTUM_SPECTRA);
  const auto runs = tools::of_runs(all, {"conv", "gpt64", "gpt128", "gpt192"});
  model.tails = tools::fit_heavy_tails(tools::part_of(runs, false));
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

/// Prints the triples of a precision, with their figures.
void print_triples(const ShapeModel& model, Precision precision, const char* name) {
  const Spectrum gaussian = gaussian_spectrum(1024, 1024, Normalization::Schatten8, 48);
  std::printf("\n/// The triples for 3, 4, ..., 12 steps, one after the other.\n");
  std::printf("inline constexpr Quintic shipped_%s[] = {\n", name);
  for (int64_t steps = min_default_steps; steps <= max_default_steps; ++steps) {
    const Design design = best_design(model, steps, precision);
    std::printf(
        "    // %d steps: slope %.4g, output in [%.3f, %.3f] for sigma >= .01, margin %.4f;\n",
        static_cast<int>(steps), design.report.slope, design.report.min_output,
        design.report.max_output, design.report.margin);
    std::printf("    // expected relative error: Gaussian %.4f, families",
                std::sqrt(expected_mse(design.quintics, gaussian)));
    for (const HeavyTail& tail : model.tails) {
      std::printf(" %.4f",
                  std::sqrt(expected_mse(
                      design.quintics,
                      heavy_tailed_spectrum(1024, Normalization::Schatten8, tail, 16, 128))));
    }
    std::printf("\n");
    for (const Quintic& p : design.quintics) {
      std::printf("    {%.17g, %.17g, %.17g},\n", p.a, p.b, p.c);
    }
  }
  std::printf("};\n");
}

}  // namespace

int main() {
  const ShapeModel model = fitted_model();
  std::fputs(kHead, stdout);
  for (const HeavyTail& tail : model.tails) {
    std::printf("    {%.3g, %.3g},\n", tail.median, tail.condition);
  }
  std::printf("};\n");
  print_triples(model, Precision::Float32, "float32");
  print_triples(model, Precision::BFloat16, "bfloat16");
  std::fputs(kTail, stdout);
}
