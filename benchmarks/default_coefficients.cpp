// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Prints include/root_optim/default_coefficients.hpp: designs the shipped coefficients for the
// spectra named there. Needs LibTorch's c10 only; with TORCH its folder:
//   g++ -std=c++17 -O2 -ffp-contract=off -Iinclude -I$TORCH/include -o default_coefficients
//       benchmarks/default_coefficients.cpp -L$TORCH/lib -lc10 -Wl,-rpath,$TORCH/lib
//   ./default_coefficients > include/root_optim/default_coefficients.hpp
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <utility>

#include <root_optim/coefficient_table.hpp>
#include <root_optim/spectrum.hpp>

namespace {

using namespace root_optim;

constexpr char kHead[] = R"(// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The shipped coefficients of AdaNewton, one schedule for every shape: written by
// benchmarks/default_coefficients.cpp (see there for the command), do not edit. Designed for matrices
// normalized by their Schatten-8 norm, for the spectra of ShapeModel (coefficient_table.hpp) at
// 1024x1024, and valid with bfloat16's margins and slack, hence in every precision. The published
// sets are in coefficients.hpp.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstdint>

#include <root_optim/coefficient_validation.hpp>  // Precision
#include <root_optim/quintic.hpp>

namespace root_optim {
inline namespace v0 {

inline constexpr int64_t min_default_steps = 3;
inline constexpr int64_t max_default_steps = 12;

/// Our triples for `steps` steps after Schatten-8 normalization; the same in every precision.
/// @throws c10::Error unless min_default_steps <= steps <= max_default_steps.
inline Schedule default_schedule(int64_t steps) {
  // clang-format off
  switch (steps) {
)";

constexpr char kTail[] = R"(    default: break;
  }
  // clang-format on
  TORCH_CHECK(false, "root_optim::default_schedule: expected ", min_default_steps,
              " <= steps <= ", max_default_steps, ", got ", steps);
}

}  // namespace v0
}  // namespace root_optim
)";

/// The best of several lengths of search, among those that stay below 1.25.
Design best_design(int64_t steps) {
  Design best;
  for (const int64_t iterations : {500, 1000, 2000, 4000, 8000, 16000}) {
    DesignOptions options;  // bfloat16's margins
    options.steps = steps;
    options.max_iterations = iterations;
    Design design = design_mixture(shape_spectra(1024, 1024), options);
    if (design.report.max_output > 1.25) continue;
    if (best.schedule.empty() || design.relative_error < best.relative_error) {
      best = std::move(design);
    }
  }
  return best;
}

}  // namespace

int main() {
  std::fputs(kHead, stdout);
  const Spectrum gaussian = gaussian_spectrum(1024, 1024, NormKind::Schatten8, 48);
  for (int64_t steps = 3; steps <= 12; ++steps) {
    const Design design = best_design(steps);
    const auto heavy = [&](double median, double condition) {
      return std::sqrt(expected_mse(
          design.schedule,
          heavy_tailed_spectrum(1024, NormKind::Schatten8, {median, condition}, 16, 128)));
    };
    std::printf("    // slope %.4g, output in [%.3f, %.3f] for sigma >= .01, margin %.4f;\n",
                design.report.slope, design.report.min_output, design.report.max_output,
                design.report.margin);
    std::printf("    // expected relative error: Gaussian %.4f, heavy-tailed %.4f %.4f %.4f %.4f\n",
                std::sqrt(expected_mse(design.schedule, gaussian)), heavy(0.1, 1e4),
                heavy(0.03, 1e6), heavy(0.003, 1e8), heavy(1e-4, 1e10));
    std::printf("    case %d: return {", static_cast<int>(steps));
    for (size_t t = 0; t < design.schedule.size(); ++t) {
      const Quintic& p = design.schedule[t];
      std::printf("%s{%.17g, %.17g, %.17g}", t == 0 ? "" : ",\n                    ", p.a, p.b,
                  p.c);
    }
    std::printf("};\n");
  }
  std::fputs(kTail, stdout);
}
