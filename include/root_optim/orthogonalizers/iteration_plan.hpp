// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// How a schedule is carried out on an m × n matrix: the form of the iteration, where it restarts,
// and what it costs, in one unit for all forms. The forms themselves are in orthogonalizers/detail/iteration.hpp
// and orthogonalizers/rational.hpp, the coefficients in coefficients/.
#pragma once

#include <cstdint>
#include <vector>

#include <root_optim/coefficients/form.hpp>
#include <root_optim/coefficients/precision.hpp>
#include <root_optim/coefficients/quintic.hpp>  // Quintics
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// A form, and the steps grouped into runs that share one Gram matrix.
struct IterationPlan {
  Form form = Form::Direct;   ///< Direct or Gram
  std::vector<int64_t> runs;  ///< steps of each run; Direct: one
  int64_t blocks = 1;  ///< a side of symmetric products; one triangle is computed, then mirrored
  double flops = 0;    ///< of one m × n matrix: two per multiply-add of its matrix products
  double cost = 0;     ///< in FLOP of plain products; those by blocks count with `symmetric_cost`
};

/// The share of a product's FLOP that one triangle of blocks × blocks takes; blocks >= 1.
inline double symmetric_share(int64_t blocks) {
  return static_cast<double>(blocks + 1) / static_cast<double>(2 * blocks);
}

/// The time of a symmetric product by blocks as a share of the plain one's.
///
/// Measured inside the iteration (two cores of an AMD EPYC (Zen 3), LibTorch 2.13.0 with MKL, medians in
/// turns with plain products): .96 at m = 512, .77 at 768, .85 at 1024 and .69 at 2048, where the FLOP
/// are 5/8. Products of flat blocks run at a lower rate than those of whole matrices.
inline double symmetric_cost(int64_t blocks) { return blocks > 1 ? 0.8 : 1.0; }

namespace detail {

/// (2 + 2s)m²n + 2s·m³ of a direct step, m = min(rows, cols), s the share of a symmetric product.
double direct_step(int64_t rows, int64_t cols, double s);

/// (2 + 2s)m²n + (2sk + 6(k − 1))m³ of a run of k steps in Gram space. (XXᵀ and R² for every step,
/// symmetric; Q and two products for the next R for every step but one; and QX.)
double gram_run(int64_t rows, int64_t cols, int64_t steps, double s);

}  // namespace detail

/// FLOP of `steps` direct steps on a rows × cols matrix, m = min(rows, cols):
/// steps·((2 + 2s)m²n + 2s·m³), s = symmetric_share(blocks). XXᵀ and its square are symmetric.
inline double direct_flops(int64_t rows, int64_t cols, int64_t steps, int64_t blocks = 1) {
  return static_cast<double>(steps) * detail::direct_step(rows, cols, symmetric_share(blocks));
}

/// FLOP of runs of k steps in Gram space: (2 + 2s)m²n + (2sk + 6(k − 1))m³ each.
double gram_flops(int64_t rows, int64_t cols, const std::vector<int64_t>& runs, int64_t blocks = 1);

/// Blocks a side for symmetric products of m × m matrices: 4 from m = 512 on, where they save time on
/// CPUs as well as FLOP; 1 below and in bfloat16, where they lose time.
inline int64_t symmetric_blocks(int64_t m, Precision precision) {
  return m >= 512 && precision != Precision::BFloat16 ? 4 : 1;
}

/// The runs of a schedule in Gram space, in float64 or float32. A computed Gram matrix has errors of
/// about δ‖X‖², which grow with the square of the product of the a's. A new run begins before they pass
/// 0.1.
///
/// Measured in float32 (512×2048, shipped schedules), the difference to the direct form: captured
/// momentum, nine steps in runs of 4 + 5, 1.6e-3 of ‖UVᵀ‖_F; with .2 in place of .1, 5 + 4, 2.3e-3;
/// rank 32 over noise, 3e-4 and 2.2e-3. Eight steps in one run diverge on condition 1e10.
std::vector<int64_t> gram_runs(const Quintics& schedule, Precision precision);

/// Decides how to carry out a schedule on a rows × cols matrix.
///
/// Auto takes Gram space in float64 and float32 if it costs less. bfloat16 is always direct,
/// even if Gram is asked for: its Gram matrix has eigenvalues of about −.01, so that five steps in
/// one run reach errors of 1e11 on heavy-tailed spectra, and a restart at every step costs more than
/// the direct form and still left the output bound (3.3 after 12 steps).
IterationPlan plan_iteration(int64_t rows, int64_t cols, const Quintics& schedule,
                             Precision precision, Form form = Form::Auto);

/// The time of stages with inverses on a rows × cols matrix over that of five plain quintic steps in float32 on the
/// same CPU: (4.5 m²n for each stage + κ m³ for each pole) / (20 m²n + 10 m³), m = min(rows, cols), with
/// κ = min(6, 1.75 + 125/m).
///
/// Measured by benchmarks/cost.cpp (one thread of an AMD EPYC (Zen 5), LibTorch 2.13.0, products by oneDNN, 14 shapes
/// from 16 × 16 to 2048 × 2048, one to five poles): within 20 %. Where LibTorch has no fast product for the CPU, all
/// forms are slower alike.
/// @param poles of each stage
/// @throws c10::Error unless rows, cols >= 1.
double rational_cost(int64_t rows, int64_t cols, const std::vector<int64_t>& poles);

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/orthogonalizers/detail/iteration_plan_impl.hpp>
#endif
