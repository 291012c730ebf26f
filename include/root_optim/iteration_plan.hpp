// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// How a schedule is carried out on an m × n matrix: the form of the iteration, where it restarts,
// and what it costs. The forms themselves are in detail/iteration.hpp, the coefficients in
// coefficients.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <root_optim/coefficient_validation.hpp>  // Precision, gram_run_length
#include <root_optim/quintic.hpp>                 // Schedule

namespace root_optim {
inline namespace v0 {

/// How the polynomials of a schedule are applied.
enum class Form {
  Auto,    ///< Gram where the precision allows it and it costs fewer FLOP, else Direct
  Direct,  ///< X ← aX + (bA + cA²)X with A = XXᵀ at every step
  Gram     ///< the steps act on the m × m Gram matrix alone and are applied to X once per run
};

/// A form, with the steps grouped into runs that share one Gram matrix (Direct: one step a run).
struct IterationPlan {
  Form form = Form::Direct;
  std::vector<int64_t> runs;
  double flops = 0;  ///< of one m × n matrix: two per multiply-add of its matrix products
};

/// FLOP of `steps` direct steps on a rows × cols matrix: steps·(4m²n + 2m³), m = min(rows, cols).
inline double direct_flops(int64_t rows, int64_t cols, int64_t steps) {
  const double m = static_cast<double>(std::min(rows, cols));
  const double n = static_cast<double>(std::max(rows, cols));
  return static_cast<double>(steps) * (4 * m * m * n + 2 * m * m * m);
}

/// FLOP of runs of k steps in Gram space: 4m²n + (8k − 6)m³ each. (R² for every step, Q for every
/// step but the first, two products for the next R but after the last step; XXᵀ and QX.)
inline double gram_flops(int64_t rows, int64_t cols, const std::vector<int64_t>& runs) {
  const double m = static_cast<double>(std::min(rows, cols));
  const double n = static_cast<double>(std::max(rows, cols));
  double flops = 0;
  for (const int64_t steps : runs) {
    flops += 4 * m * m * n + static_cast<double>(8 * steps - 6) * m * m * m;
  }
  return flops;
}

/// The runs of a schedule in Gram space. A computed Gram matrix has errors of about δ‖X‖², which
/// grow with the square of the product of the a's; a new run begins before they pass 0.2.
///
/// Measured in float32 on spectra of condition 1e10 (256×1024, shipped schedules; δ = 6e-8): five
/// steps in one run differ from float64 by 1.4e-3 of ‖UVᵀ‖_F (direct form: 2e-5), eight in runs of
/// 4 + 4 by 5e-3 (direct: 1e-3), of 5 + 3 by 3e-2; eight in one run diverge.
inline std::vector<int64_t> gram_runs(const Schedule& schedule, Precision precision) {
  const double rounding = precision == Precision::Float64    ? 2.2e-16
                          : precision == Precision::BFloat16 ? 1e-2
                                                             : 1.2e-7;
  std::vector<int64_t> runs;
  for (size_t first = 0; first < schedule.size(); first += static_cast<size_t>(runs.back())) {
    runs.push_back(gram_run_length(schedule, first, rounding, /*tolerance=*/0.2));
  }
  return runs;
}

/// Decides how to carry out a schedule on a rows × cols matrix.
///
/// Auto takes Gram space in float64 and float32 if it costs fewer FLOP. bfloat16 is always direct
/// there: its Gram matrix has eigenvalues of about −.01, and five steps in one run reach errors of
/// 1e11 on heavy-tailed spectra. A forced Gram form restarts as often as the precision demands.
inline IterationPlan plan_iteration(int64_t rows, int64_t cols, const Schedule& schedule,
                                    Precision precision, Form form = Form::Auto) {
  const auto steps = static_cast<int64_t>(schedule.size());
  IterationPlan direct{Form::Direct, std::vector<int64_t>(schedule.size(), 1),
                       direct_flops(rows, cols, steps)};
  if (form == Form::Direct || (form == Form::Auto && precision == Precision::BFloat16)) {
    return direct;
  }
  IterationPlan gram{Form::Gram, gram_runs(schedule, precision), 0};
  gram.flops = gram_flops(rows, cols, gram.runs);
  return form == Form::Gram || gram.flops < direct.flops ? gram : direct;
}

}  // namespace v0
}  // namespace root_optim
