// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Every numeric bound of the test suite, with its reason, and the matchers that apply them. Tests
// name a quantity and a dtype; they contain no bounds of their own.
#pragma once

#include "catch_torch.hpp"

#include <algorithm>
#include <limits>
#include <sstream>
#include <string>

namespace test {

struct Tolerance {
  double bound;
  const char* reason;
};

/// Half the distance from 1 to the next larger number of `dtype`: the largest relative error of one
/// rounding.
inline double unit_roundoff(at::ScalarType dtype) {
  switch (dtype) {
    case at::kDouble:
      return 0x1p-53;
    case at::kFloat:
      return 0x1p-24;
    case at::kHalf:
      return 0x1p-11;
    case at::kBFloat16:
      return 0x1p-8;
    default:
      throw std::invalid_argument("unit_roundoff: not a floating dtype");
  }
}

/// What a bound is about. Unless a row says otherwise, errors are the largest entry of |actual -
/// expected| relative to the largest entry of |expected|.
enum class Quantity {
  OneRounding,           // results of one or two elementary operations
  Quantile,              // quantile_of_abs against the sorted reference
  Momentum,              // momentum and Nesterov against the reference, any number of steps
  AdamWStep,             // AdamW against torch::optim::AdamW or the reference; per step
  Orthogonalize,         // direct Newton-Schulz against exact singular values, slopes up to 1100
  OrthogonalizeGram,     // the same in Gram space
  PolarConverged,        // the converged direct iteration against the SVD
  PolarConvergedGram,    // the same in Gram space
  ExactPolar,            // exact_polar against the reference's polar factor
  OutputBound,           // how far a singular value may exceed the output bound of a valid schedule
  Equivariance,          // f(QXP) against Q f(X) P, f(cX) against f(X), ...: two direct runs
  EquivarianceGram,      // the same in Gram space
  Diagnostics,           // norms, errors and singular values of small matrices
  StepVsReference,       // parameters after many optimizer steps against the reference
  StepVsReferenceSteep,  // the same with schedules of a slope up to 1e7, in Gram space
  GoldenMuon,  // torch.optim.Muon: error of one update entry; errors of T steps add like sqrt(T)
  GoldenMuonMomentum,  // its momentum buffer
  GoldenRoot,          // the published ROOT step in float64 NumPy
};

struct ToleranceRow {
  Quantity quantity;
  at::ScalarType dtype;
  Tolerance tolerance;
};

// clang-format off
inline constexpr ToleranceRow kTolerances[] = {
    {Quantity::OneRounding, at::kDouble,
     {4 * 0x1p-53, "two roundings, and as many in the reference"}},
    {Quantity::OneRounding, at::kFloat,
     {4 * 0x1p-24, "two roundings, and as many in the reference"}},
    {Quantity::OneRounding, at::kBFloat16,
     {1.01 * 0x1p-8, "the one rounding of a float32 result"}},
    {Quantity::Quantile, at::kDouble, {4 * 0x1p-53, "one interpolation: three roundings"}},
    {Quantity::Quantile, at::kFloat, {4 * 0x1p-24, "one interpolation: three roundings"}},
    {Quantity::Momentum, at::kDouble,
     {100 * 0x1p-53, "two roundings a step, living on for 1/(1 - mu) = 20 steps; slack 2.5"}},
    {Quantity::Momentum, at::kFloat,
     {100 * 0x1p-24, "two roundings a step, living on for 1/(1 - mu) = 20 steps; slack 2.5"}},
    {Quantity::AdamWStep, at::kDouble, {4 * 0x1p-53, "2 ulp of the parameter a step"}},
    {Quantity::AdamWStep, at::kFloat, {4 * 0x1p-24, "2 ulp of the parameter a step"}},
    // Rounding errors of a direct iteration are lifted like small singular values, by the slope.
    {Quantity::Orthogonalize, at::kDouble,
     {2e-12, "slope 1100 x 2^-53 = 1.2e-13, against entries of .2; measured 8e-13"}},
    {Quantity::Orthogonalize, at::kFloat,
     {5e-4, "slope 1100 x 2^-24 = 6.6e-5, against entries of .2; measured 1e-4"}},
    {Quantity::Orthogonalize, at::kBFloat16,
     {0.1, "Gaussian input only; 2^-8 at each of 15 products; measured .04"}},
    // In Gram space by its square, until a restart.
    {Quantity::OrthogonalizeGram, at::kDouble,
     {5e-11, "2^-53 x slope^2 = 1.3e-10 in one run; measured 5e-12"}},
    {Quantity::OrthogonalizeGram, at::kFloat,
     {1e-2, "2^-24 x slope^2 stays below .1 by restarts; measured 3e-3"}},
    {Quantity::PolarConverged, at::kDouble,
     {1e-4, "36 steps have slope 3e11, x 2^-53 = 3e-5; measured 1.5e-5"}},
    {Quantity::PolarConvergedGram, at::kDouble,
     {5e-3, "the same, lifted once more by the runs; measured 8e-4"}},
    {Quantity::ExactPolar, at::kDouble,
     {1e-5, "condition 1e10 x 2^-53 = 1.1e-6 in the smallest direction; measured 2.3e-7"}},
    {Quantity::ExactPolar, at::kFloat,
     {1e-6, "full rank or rank 3 of condition 10: a few 2^-24; measured 9e-9"}},
    {Quantity::OutputBound, at::kDouble, {1e-6, "rounding of the last step"}},
    {Quantity::OutputBound, at::kFloat, {1e-3, "rounding of the last step, 2^-24, slack 1e4"}},
    {Quantity::OutputBound, at::kBFloat16,
     {0.05, "rounding of the last step, sqrt(64) x 2^-8 x 1.35"}},
    {Quantity::Equivariance, at::kDouble,
     {2e-11, "two inputs rounded differently, slope 7.7e4 x 2^-53 = 9e-12; measured 3e-12"}},
    {Quantity::Equivariance, at::kFloat,
     {5e-3, "two inputs rounded differently, slope 7.7e4 x 2^-24 = 5e-3; measured 2e-3"}},
    {Quantity::EquivarianceGram, at::kDouble,
     {5e-8, "runs end where 2.2e-16 x slope^2 passes .1; measured 6e-9"}},
    {Quantity::EquivarianceGram, at::kFloat,
     {1e-2, "runs end where 1.2e-7 x slope^2 passes .1; measured 2e-3"}},
    {Quantity::Diagnostics, at::kDouble,
     {1e-12, "norms and a float64 SVD of small matrices: 100s of 2^-53; measured 3e-16"}},
    {Quantity::StepVsReference, at::kDouble,
     {1e-12, "the error of a direction (5e-11) x lr .02 x at most 30 steps; measured 1e-15"}},
    {Quantity::StepVsReferenceSteep, at::kDouble,
     {1e-9, "the error of a direction (EquivarianceGram, 5e-8) x lr .02; measured 6e-11"}},
    {Quantity::StepVsReference, at::kFloat,
     {1e-5, "2^-24 a step and directions within 1e-4; measured 2e-6"}},
    {Quantity::StepVsReferenceSteep, at::kFloat,
     {1e-4, "a gain of up to 760 x 2^-24 of a direction, x lr; measured 2.5e-5"}},
    {Quantity::GoldenMuon, at::kBFloat16,
     {0.1, "entries of X after five bfloat16 steps are off by up to .05 here; slack 2"}},
    {Quantity::GoldenMuon, at::kFloat,
     {1e-4, "slope 485 x 2^-24 = 3e-5; measured 2e-5"}},
    {Quantity::GoldenMuonMomentum, at::kFloat,
     {10 * 0x1p-24, "the same two roundings a step in both programs"}},
    {Quantity::GoldenRoot, at::kDouble,
     {1e-13, "slope 485 x 2^-53 = 5e-14 of a direction, x lr; measured 4e-15"}},
};
// clang-format on

/// The row of a quantity and a dtype.
inline Tolerance tolerance(Quantity quantity, at::ScalarType dtype) {
  for (const ToleranceRow& row : kTolerances) {
    if (row.quantity == quantity && row.dtype == dtype) return row.tolerance;
  }
  throw std::logic_error("tests/support/tolerances.hpp has no row for this quantity and dtype");
}

/// How far orthogonalize may be from exact arithmetic on any matrix, in ||error||_F / sqrt(min(m, n)).
///
/// A rounding error of size u, made when the largest singular value is about 1, grows by no more than
/// the slope of the composed polynomials; in Gram space an error of the Gram matrix by the square of
/// the slope of its run. The factors stand for the length of the sums: over 20,000 generated batches
/// of matrices up to 48 x 48 (tests/property/test_generated_matrices.cpp) 7.2 was met; slack 2.
/// @param u unit roundoff of the compute dtype; slope: the product of the a's; steepest_run: the
/// largest product of the a's of one run, 0 for the direct form.
inline double direction_bound(double u, double slope, double steepest_run) {
  constexpr double direct = 16, gram = 16;
  return u * (direct * slope + gram * steepest_run * steepest_run);
}

/// Matches a tensor of the expected shape whose entries are all within bound * scale of the
/// expected ones. Compares in float64 on the CPU; NaN matches nothing.
class CloseTo : public MatcherBase<at::Tensor> {
 public:
  CloseTo(const at::Tensor& expected, Tolerance tolerance, double scale)
      : expected_(expected.detach().to(at::kCPU, at::kDouble)),
        tolerance_(tolerance),
        scale_(scale) {}

  bool match(const at::Tensor& actual) const override {
    std::ostringstream out;
    if (!actual.defined() || actual.sizes() != expected_.sizes()) {
      out << "has shape " << expected_.sizes();
      description_ = out.str();
      return false;
    }
    const at::Tensor error =
        (actual.detach().to(at::kCPU, at::kDouble) - expected_).abs().flatten();
    const double allowed = tolerance_.bound * scale_;
    const bool matches = error.numel() == 0 || error.le(allowed).all().item<bool>();
    out << "is within " << allowed << " (" << tolerance_.bound << " x scale " << scale_ << ": "
        << tolerance_.reason << ") of the expected tensor";
    if (error.numel() > 0) {
      const auto index =
          error.nan_to_num(std::numeric_limits<double>::infinity()).argmax().item<int64_t>();
      out << "; largest error " << error[index].item<double>() << " at flat index " << index
          << ", expected " << expected_.flatten()[index].item<double>() << " there; "
          << actual.scalar_type() << actual.sizes() << " on " << actual.device();
    }
    description_ = out.str();
    return matches;
  }

  std::string describe() const override { return description_; }

 private:
  at::Tensor expected_;
  Tolerance tolerance_;
  double scale_;
  mutable std::string description_;
};

/// The largest |entry|, in float64; 1 for an empty or zero tensor, so that it can serve as a scale.
inline double scale_of(const at::Tensor& t) {
  const double largest =
      t.numel() == 0 ? 0.0 : t.detach().to(at::kDouble).abs().max().item<double>();
  return largest == 0.0 ? 1.0 : largest;
}

inline CloseTo close_to(const at::Tensor& expected, Tolerance tolerance) {
  return {expected, tolerance, scale_of(expected)};
}

inline CloseTo close_to(const at::Tensor& expected, Tolerance tolerance, double scale) {
  return {expected, tolerance, scale};
}

/// Matches a tensor of the same dtype, shape and values, bit by bit up to the sign of zero.
class SameAs : public MatcherBase<at::Tensor> {
 public:
  explicit SameAs(const at::Tensor& expected) : expected_(expected.detach().clone()) {}

  bool match(const at::Tensor& actual) const override {
    return actual.defined() && actual.scalar_type() == expected_.scalar_type() &&
           actual.sizes() == expected_.sizes() && at::equal(actual.detach(), expected_);
  }

  std::string describe() const override { return "equals the expected tensor exactly"; }

 private:
  at::Tensor expected_;
};

inline SameAs same_as(const at::Tensor& expected) { return SameAs(expected); }

}  // namespace test
