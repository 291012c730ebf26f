// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of orthogonalizers/iteration_plan.hpp.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <root_optim/coefficients/form.hpp>
#include <root_optim/coefficients/precision.hpp>
#include <root_optim/coefficients/quintic.hpp>     // Quintics
#include <root_optim/coefficients/validation.hpp>  // gram_run_length
#include <root_optim/orthogonalizers/iteration_plan.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

ROOT_OPTIM_INLINE double direct_step(int64_t rows, int64_t cols, double s) {
  const double m = static_cast<double>((std::min)(rows, cols));
  const double n = static_cast<double>((std::max)(rows, cols));
  return (2 + 2 * s) * m * m * n + 2 * s * m * m * m;
}

ROOT_OPTIM_INLINE double gram_run(int64_t rows, int64_t cols, int64_t steps, double s) {
  const double m = static_cast<double>((std::min)(rows, cols));
  const double n = static_cast<double>((std::max)(rows, cols));
  const auto k = static_cast<double>(steps);
  return (2 + 2 * s) * m * m * n + (2 * s * k + 6 * (k - 1)) * m * m * m;
}

}  // namespace detail

ROOT_OPTIM_INLINE double gram_flops(int64_t rows, int64_t cols, const std::vector<int64_t>& runs,
                                    int64_t blocks) {
  double flops = 0;
  for (const int64_t run : runs) {
    flops += detail::gram_run(rows, cols, run, symmetric_share(blocks));
  }
  return flops;
}

ROOT_OPTIM_INLINE std::vector<int64_t> gram_runs(const Quintics& schedule, Precision precision) {
  const double rounding = precision == Precision::Float64 ? 2.2e-16 : 1.2e-7;
  std::vector<int64_t> runs;
  for (size_t first = 0; first < schedule.size(); first += static_cast<size_t>(runs.back())) {
    runs.push_back(gram_run_length(schedule, first, rounding, /*tolerance=*/0.1));
  }
  return runs;
}

ROOT_OPTIM_INLINE IterationPlan plan_iteration(int64_t rows, int64_t cols, const Quintics& schedule,
                                               Precision precision, Form form) {
  const auto steps = static_cast<int64_t>(schedule.size());
  const int64_t blocks = symmetric_blocks((std::min)(rows, cols), precision);
  const double share = symmetric_cost(blocks);
  IterationPlan direct{Form::Direct, std::vector<int64_t>(schedule.size(), 1), blocks,
                       direct_flops(rows, cols, steps, blocks),
                       static_cast<double>(steps) * detail::direct_step(rows, cols, share)};
  if (form == Form::Direct || precision == Precision::BFloat16) {
    return direct;
  }
  IterationPlan gram{Form::Gram, gram_runs(schedule, precision), blocks, 0, 0};
  gram.flops = gram_flops(rows, cols, gram.runs, blocks);
  for (const int64_t run : gram.runs) gram.cost += detail::gram_run(rows, cols, run, share);
  return form == Form::Gram || gram.cost < direct.cost ? gram : direct;
}

ROOT_OPTIM_INLINE double rational_cost(int64_t rows, int64_t cols,
                                       const std::vector<int64_t>& poles) {
  TORCH_CHECK(rows >= 1 && cols >= 1, "root_optim::rational_cost: expected rows, cols >= 1, got ",
              rows, ", ", cols);
  const double m = static_cast<double>((std::min)(rows, cols));
  const double n = static_cast<double>((std::max)(rows, cols));
  const double inverse = (std::min)(6.0, 1.75 + 125 / m);
  double cost = 4.5 * static_cast<double>(poles.size()) * m * m * n;
  for (const int64_t r : poles) cost += inverse * static_cast<double>(r) * m * m * m;
  return cost / direct_flops(rows, cols, 5);
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
