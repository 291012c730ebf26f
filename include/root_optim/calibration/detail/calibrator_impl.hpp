// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of calibration/calibrator.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/linalg_eigvalsh.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstdint>
#include <utility>
#include <vector>

#include <root_optim/calibration/calibrator.hpp>
#include <root_optim/coefficients/design/design.hpp>
#include <root_optim/coefficients/design/rational_design.hpp>
#include <root_optim/coefficients/spectrum.hpp>
#include <root_optim/coefficients/table.hpp>
#include <root_optim/core/finite.hpp>
#include <root_optim/orthogonalizers/detail/iteration.hpp>  // scale_by_max
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

ROOT_OPTIM_INLINE std::vector<double> gram_singular_values(const at::Tensor& matrix) {
  detail::check_matrices(matrix, "gram_singular_values");
  TORCH_CHECK(matrix.dim() == 2,
              "root_optim::gram_singular_values: expected one matrix, got shape ", matrix.sizes());
  if (matrix.numel() == 0) return {};
  at::Tensor x = detail::scale_by_max(matrix.detach().unsqueeze(0), at::kDouble)[0];
  if (x.size(0) > x.size(1)) x = x.t();
  // In this order: an eigenvalue solver may hang on NaN.
  const at::Tensor gram = x.matmul(x.t());
  const double trace = gram.trace().item<double>();
  if (!detail::is_finite(trace) || trace <= 0) return {};
  const at::Tensor sigma =
      at::linalg_eigvalsh(gram).clamp_min_(0).sqrt_().to(at::kCPU).contiguous();
  const double* values = sigma.data_ptr<double>();
  return {values, values + sigma.numel()};
}

ROOT_OPTIM_INLINE TableEntry calibrated_entry(int64_t rows, int64_t cols, const Spectrum& seen,
                                              int64_t steps, Precision precision,
                                              double gaussian_weight, Quintics warm_start) {
  TORCH_CHECK(gaussian_weight >= 0 && gaussian_weight < 1,
              "root_optim::calibrated_entry: expected 0 <= gaussian_weight < 1, got ",
              gaussian_weight);
  std::vector<std::pair<double, Spectrum>> parts = {{1 - gaussian_weight, seen}};
  if (gaussian_weight > 0) {
    parts.emplace_back(gaussian_weight, gaussian_spectrum(rows, cols, Normalization::Schatten8));
  }
  DesignOptions options;
  options.steps = steps;
  options.validation = ValidationOptions::for_precision(precision, Normalization::Schatten8);
  options.warm_start = std::move(warm_start);
  TableEntry entry;
  entry.rows = rows;
  entry.cols = cols;
  entry.precision = precision;
  entry.quintics = design_quintics(mixture(parts), options).quintics;
  entry.origin = "calibrated";
  entry.spectrum = seen;
  return entry;
}

ROOT_OPTIM_INLINE TableEntry calibrated_stages(int64_t rows, int64_t cols, const Spectrum& seen,
                                               const std::vector<int64_t>& poles,
                                               double gaussian_weight) {
  TORCH_CHECK(gaussian_weight >= 0 && gaussian_weight < 1,
              "root_optim::calibrated_stages: expected 0 <= gaussian_weight < 1, got ",
              gaussian_weight);
  const auto count = static_cast<double>((std::min)(rows, cols));
  std::vector<std::pair<double, Spectrum>> parts = {
      {1 - gaussian_weight, schatten4_spectrum(seen, count)}};
  if (gaussian_weight > 0) {
    parts.emplace_back(
        gaussian_weight,
        schatten4_spectrum(gaussian_spectrum(rows, cols, Normalization::Schatten8), count));
  }
  RationalDesignOptions options;
  options.poles = poles;
  TableEntry entry;
  entry.rows = rows;
  entry.cols = cols;
  entry.stages = design_rational(parts, options).schedule;
  entry.origin = "calibrated";
  entry.spectrum = seen;
  return entry;
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
