// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of diagnostics/step_report.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <ios>
#include <locale>
#include <sstream>
#include <string>
#include <vector>

#include <root_optim/diagnostics/step_report.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

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
