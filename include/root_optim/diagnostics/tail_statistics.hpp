// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// How heavy the tails of a matrix's entries are.
#pragma once

#include <ATen/core/Tensor.h>

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// How heavy the tails of a matrix's entries are, and so whether an outlier split has something to
/// split.
struct TailStatistics {
  double excess_kurtosis;  ///< mean u⁴ ÷ (mean u²)² − 3: 0 for normal entries
  double tail_index;  ///< Hill's estimate of α in P(|u| > x) ~ x^−α from the largest 1 % of |u|, at
                      ///< least two: the smaller, the heavier; infinite where these are equal
  double max_over_rms;  ///< largest |u| ÷ √mean(u²)
  /// Largest |u_ij| ÷ (r_i·c_j/mean|U|), r and c the means of |U| in row i and column j: one pass of
  /// `SoftThreshold::scaled(κ, 1)` clips where it is above κ.
  double max_over_pattern;
};

/// The tail statistics of one matrix.
///
/// Shapes:     u: [m, n], or a batch of one, not empty; any real floating-point dtype.
/// Degenerate: a zero matrix has 0, infinity, 0, 0. With Inf or NaN among the entries the figures mean
///             nothing.
/// Complexity: a few passes in float64 and the selection of the largest 1 %. Waits for the device.
/// Reference:  B. M. Hill, A simple general approach to inference about the tail of a distribution, 1975.
TailStatistics tail_statistics(const at::Tensor& u);

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/diagnostics/detail/tail_statistics_impl.hpp>
#endif
