// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of parameters/routing_table.hpp.
#pragma once

#include <c10/util/StringUtil.h>  // c10::str

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <vector>

#include <root_optim/parameters/layout.hpp>   // MatrixLayout
#include <root_optim/parameters/routing.hpp>  // RoutingEntry, RoutingOptions, route_entries
#include <root_optim/parameters/routing_table.hpp>
#include <root_optim/parameters/rule.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE std::string format_entries(
    const std::vector<RoutingEntry>& entries) {
  using Row = std::array<std::string, 5>;
  std::vector<Row> rows{{"parameter", "shape", "rule", "layout", "reason"}};
  for (const RoutingEntry& entry : entries) {
    const bool matrix = entry.rule == Rule::Orthogonalized;
    rows.push_back({entry.name, c10::str(entry.shape()), to_string(entry.rule),
                    matrix ? to_string(entry.layout) : "-", entry.reason});
  }
  std::array<size_t, 4> width{};
  for (const Row& row : rows) {
    for (size_t i = 0; i < width.size(); ++i) width[i] = (std::max)(width[i], row[i].size());
  }
  std::string text;
  for (const Row& row : rows) {
    for (size_t i = 0; i < width.size(); ++i) {
      text += row[i];
      text.append(width[i] + 2 - row[i].size(), ' ');
    }
    text += row[4] + '\n';
  }
  return text;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
