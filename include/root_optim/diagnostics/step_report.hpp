// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What the next step would do, matrix by matrix.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>  // NoGradGuard
#include <c10/util/Exception.h>   // TORCH_CHECK

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/core/policy.hpp>
#include <root_optim/diagnostics/next_matrices.hpp>
#include <root_optim/diagnostics/orthogonality.hpp>
#include <root_optim/diagnostics/tail_statistics.hpp>
#include <root_optim/optimizer/detail/group_options.hpp>
#include <root_optim/optimizer/optimizer.hpp>
#include <root_optim/orthogonalizers/exact_polar.hpp>
#include <root_optim/stages/lr_scale.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

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
#include <root_optim/diagnostics/detail/step_report_impl.hpp>
#endif
