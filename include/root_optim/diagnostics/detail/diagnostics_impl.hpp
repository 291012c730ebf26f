// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of diagnostics/diagnostics.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/linalg_svdvals.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <ios>
#include <limits>
#include <locale>
#include <sstream>
#include <string>
#include <tuple>
#include <vector>

#include <root_optim/core/tensor_checks.hpp>
#include <root_optim/diagnostics/diagnostics.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE double relative_error(const at::Tensor& x,
                                                        const at::Tensor& truth) {
  for (const at::Tensor& tensor : {x, truth}) {
    TORCH_CHECK(tensor.defined() && !tensor.is_complex(),
                "root_optim::relative_error: expected real tensors, got ",
                tensor.defined() ? c10::toString(tensor.scalar_type()) : "an undefined one");
  }
  TORCH_CHECK(x.sizes() == truth.sizes(),
              "root_optim::relative_error: expected tensors of one shape, got ", x.sizes(), " and ",
              truth.sizes());
  const at::Tensor exact = truth.to(at::kDouble);
  const double error = x.to(at::kDouble).sub(exact).norm().item<double>();
  const double norm = exact.norm().item<double>();
  return norm > 0 ? error / norm : error;
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE at::Tensor singular_values(const at::Tensor& x) {
  detail::check_matrices(x, "singular_values");
  return at::linalg_svdvals(x.to(at::kDouble));
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE double singular_value_mse(const at::Tensor& x) {
  detail::check_matrices(x, "singular_value_mse");
  TORCH_CHECK(x.numel() > 0,
              "root_optim::singular_value_mse: expected a matrix that is not empty, "
              "got shape ",
              x.sizes());
  return singular_values(x).sub_(1.0).square_().mean().item<double>();
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE TailStatistics tail_statistics(const at::Tensor& u) {
  detail::check_matrices(u, "tail_statistics");
  TORCH_CHECK(u.numel() > 0 && u.numel() == u.size(-2) * u.size(-1),
              "root_optim::tail_statistics: expected one matrix that is not empty, got shape ",
              u.sizes());
  const at::Tensor magnitude = u.detach().reshape({u.size(-2), u.size(-1)}).to(at::kDouble).abs();
  const double largest = magnitude.amax().item<double>();
  if (largest == 0) return {0, std::numeric_limits<double>::infinity(), 0, 0};
  const at::Tensor v = magnitude.div(largest);
  const double square = v.square().mean().item<double>();
  const int64_t count = (std::min)(v.numel(), std::max<int64_t>(2, v.numel() / 100));
  const at::Tensor logs = std::get<0>(v.flatten().topk(count)).clamp_min(1e-300).log();
  const double spread = count > 1 ? logs.sub(logs[-1]).sum().item<double>() : 0;
  const at::Tensor pattern = v.mean(1, /*keepdim=*/true).mul(v.mean(0, /*keepdim=*/true));
  return {v.pow(4).mean().item<double>() / (square * square) - 3,
          spread > 0 ? static_cast<double>(count - 1) / spread
                     : std::numeric_limits<double>::infinity(),
          1 / std::sqrt(square),
          v.div(pattern.clamp_min(1e-300)).amax().item<double>() * v.mean().item<double>()};
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE std::string to_string(const std::vector<MatrixReport>& reports) {
  size_t names = 9;
  for (const MatrixReport& report : reports) names = (std::max)(names, report.name.size());
  std::ostringstream table;
  table.imbue(std::locale::classic());
  const auto text = [&table](size_t width, const std::string& value) {
    table.width(static_cast<std::streamsize>(width));
    table << value;
  };
  const auto number = [&table](std::streamsize width, int digits, double value) {
    table << ' ';
    table.width(width);
    table.precision(digits);
    table << value;
  };
  table << std::left;
  text(names, "parameter");
  table << " block       shape kurtosis    tail max/rms  /pattern  threshold  outliers   ‖O‖/‖U‖  "
           "cosine sigma_max     error lr scale\n";
  for (const MatrixReport& r : reports) {
    table << std::left;
    text(names, r.name);
    table << std::right;
    text(6, std::to_string(r.block));
    text(12, std::to_string(r.rows) + 'x' + std::to_string(r.cols));
    table << std::fixed;
    number(8, 1, r.tails.excess_kurtosis);
    number(7, 2, r.tails.tail_index);
    number(7, 1, r.tails.max_over_rms);
    number(9, 1, r.tails.max_over_pattern);
    table << std::scientific;
    number(10, 3, r.threshold);
    table << std::fixed;
    number(8, 2, 100 * r.outlier_share);
    table << '%';
    number(9, 4, r.outlier_norm);
    number(7, 4, r.direction_cosine);
    number(9, 4, r.spectral_norm);
    number(9, 4, r.relative_error);
    number(8, 3, r.learning_rate_scale);
    table << '\n';
  }
  return table.str();
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
