// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Ground truth for tests and for looking into a training run: errors of an orthogonalization against the
// exact polar factor (exact_polar.hpp), a report of what the next step would do, how heavy the tails of
// a matrix are, and the gradients that past steps could not use. Singular values and errors are computed
// in float64. Everything here waits for the device; nothing changes an optimizer.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>  // NoGradGuard
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/core/policy.hpp>
#include <root_optim/diagnostics/next_matrices.hpp>
#include <root_optim/optimizer/detail/group_options.hpp>
#include <root_optim/optimizer/optimizer.hpp>
#include <root_optim/orthogonalizers/exact_polar.hpp>
#include <root_optim/stages/lr_scale.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// ‖X − Y‖_F / ‖Y‖_F in float64, over all dimensions; ‖X‖_F if Y is zero.
///
/// With Y the exact polar factor of what X orthogonalizes, this is the relative error of the paper,
/// and the root of `singular_value_mse` where X and Y share singular vectors.
/// @throws c10::Error unless both are defined, of one shape and of a real dtype.
double relative_error(const at::Tensor& x, const at::Tensor& truth);

/// The singular values of a matrix, or of each matrix of a batch, in float64, descending.
/// Shapes: [..., m, n] -> [..., min(m, n)].
/// @throws c10::Error for other than real floating-point matrices, and if they hold Inf or NaN.
at::Tensor singular_values(const at::Tensor& x);

/// mean (σ − 1)² over the singular values σ of an orthogonalized matrix X, or of a batch of them.
///
/// For X made from a rank-deficient matrix the zero directions count with 1; compare with
/// `exact_polar` there.
/// @throws c10::Error for an empty matrix, and as `singular_values`.
double singular_value_mse(const at::Tensor& x);

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

/// A parameter that met gradients which were not finite; see NonFinite in options.hpp.
struct GradientFaults {
  std::string name;    ///< the parameter's name, or "group g, index i"
  int64_t steps;       ///< steps for which it had a gradient
  int64_t non_finite;  ///< of these, with a gradient of its own that was not finite or overflowed
  int64_t skipped;  ///< of these, skipped; under NonFinite::SkipGroup also for another's gradient
};

/// The parameters of which a step was skipped or a gradient was not finite; usually none.
///
/// The counts go back to when the optimizer was made, across checkpoints. Steps with
/// NonFinite::Propagate are not counted. Changes nothing; waits for the device.
template <class F, class O>
std::vector<GradientFaults> gradient_faults(OrthogonalizedOptimizer<F, O>& optimizer) {
  std::vector<GradientFaults> result;
  for (size_t g = 0; g < optimizer.param_groups().size(); ++g) {
    const auto& options = detail::group_options<OrthogonalizedOptions<F, O>>(
        optimizer.param_groups(), g, "gradient_faults");
    const auto& parameters = optimizer.param_groups()[g].params();
    for (size_t i = 0; i < parameters.size(); ++i) {
      const ParamState* state = detail::state_of(optimizer, parameters[i]);
      if (state == nullptr || !state->skipped().defined()) continue;
      GradientFaults faults{detail::display_name(options.names(), g, i), state->counted_steps(),
                            state->non_finite().template item<int64_t>(),
                            state->skipped().template item<int64_t>()};
      if (faults.non_finite + faults.skipped > 0) result.push_back(std::move(faults));
    }
  }
  return result;
}

/// What the next step would do to one matrix, with the current gradients.
struct MatrixReport {
  std::string name;  ///< the parameter's name, or "group g, index i"
  int64_t block;     ///< which of the parameter's matrices
  /// Rows of the matrix.
  int64_t rows, cols;    ///< columns of the matrix
  TailStatistics tails;  ///< of what the filter sees, U or the gradient (FilterPlace)
  double threshold;      ///< ε of the filter, the mean if it has several; infinite if it has none
  double outlier_share;  ///< share of the entries that the filter changes, of U or the gradient
  double outlier_norm;   ///< ‖U − B‖_F / ‖U‖_F, or the same of the gradient (FilterPlace)
  double direction_cosine;  ///< cosine between the exact polar factors with and without the filter
  double spectral_norm;     ///< σ_max of the orthogonalized matrix X, before the balance
  double relative_error;    ///< of X against the exact polar factor of B
  double learning_rate_scale;  ///< the factor of lr for the matrix: see LrScale
};

/// Reports what `optimizer.step()` would do now, matrix by matrix. Parameters without a gradient and
/// those of the AdamW rule are left out. Of a matrix that holds Inf or NaN all figures but the scale are
/// NaN; step() treats it as NonFinite says.
///
/// Changes nothing. Complexity: three SVDs a matrix.
/// @throws c10::Error for a gradient that does not match its parameter, as step() would, and for a policy that ranks
/// call together.
template <class F, class O>
std::vector<MatrixReport> step_report(OrthogonalizedOptimizer<F, O>& optimizer) {
  TORCH_CHECK(!detail::is_collective<O>::value,
              "root_optim::step_report: expected a policy that one process can call, got '",
              O::name, "', which sees a part of each matrix");
  at::NoGradGuard no_grad;
  std::vector<MatrixReport> reports;
  for (size_t g = 0; g < optimizer.param_groups().size(); ++g) {
    const auto& options = detail::group_options<OrthogonalizedOptions<F, O>>(
        optimizer.param_groups(), g, "step_report");
    const auto& parameters = optimizer.param_groups()[g].params();
    for (size_t i = 0; i < parameters.size(); ++i) {
      for (const NextMatrix& next : next_matrices(optimizer, g, i)) {
        const at::Tensor& u = next.seen;
        const at::Tensor& b = next.passed;
        MatrixReport report{};
        report.name = next.name;
        report.block = next.block;
        report.rows = u.size(1);
        report.cols = u.size(2);
        report.learning_rate_scale = lr_scale(options.scale(), report.rows, report.cols);
        if (!next.unsplit.isfinite().all().template item<bool>()) {
          constexpr double nan = std::numeric_limits<double>::quiet_NaN();
          report.tails = {nan, nan, nan, nan};
          for (double* figure :
               {&report.threshold, &report.outlier_share, &report.outlier_norm,
                &report.direction_cosine, &report.spectral_norm, &report.relative_error}) {
            *figure = nan;
          }
          reports.push_back(std::move(report));
          continue;
        }
        const at::Tensor x = options.orthogonalizer()(next.body);
        const at::Tensor truth = exact_polar(next.body);
        report.tails = tail_statistics(u);
        report.threshold = std::numeric_limits<double>::infinity();
        if constexpr (detail::has_threshold<F>::value) {
          report.threshold = options.filter().threshold(u).mean().template item<double>();
        }
        const double entries = static_cast<double>(u.numel());
        report.outlier_share = u.ne(b).sum().item().toDouble() / entries;
        report.outlier_norm = root_optim::relative_error(b, u);
        const at::Tensor unsplit = exact_polar(next.unsplit);
        const double norms = unsplit.norm().item<double>() * truth.norm().item<double>();
        report.direction_cosine = norms > 0 ? unsplit.mul(truth).sum().item<double>() / norms : 1.0;
        report.spectral_norm = singular_values(x).amax().item<double>();
        report.relative_error = root_optim::relative_error(x, truth);
        reports.push_back(std::move(report));
      }
    }
  }
  return reports;
}

/// The reports as a table, one line for each.
std::string to_string(const std::vector<MatrixReport>& reports);

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/diagnostics/detail/diagnostics_impl.hpp>
#endif
