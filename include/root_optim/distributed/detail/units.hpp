// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What a step over ranks is made of: the units that have one owner each.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <numeric>  // gcd
#include <vector>

#include <root_optim/distributed/detail/ownership.hpp>
#include <root_optim/optimizer/detail/plan.hpp>
#include <root_optim/optimizer/options.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>  // state_dtype
#include <root_optim/parameters/layout.hpp>
#include <root_optim/parameters/rule.hpp>
#include <root_optim/stages/detail/fused_adamw.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Between how many rows an AdamW tensor may be cut: where 64 numbers end, which the kernel takes at once.
/// 0: it may not, because it is little, because the kernel does not take it (operators would treat the ends of
/// parts in another way), or because the filter has to see all of it.
template <class Options>
int64_t rows_at_once(const PlannedParam<Options>& item) {
  constexpr int64_t numbers = 64, least = 4096;
  const at::Tensor& x = item.parameter;
  if (item.rule != Rule::AdamW || x.dim() == 0 || x.numel() < least ||
      x.scalar_type() != state_dtype(x) || !fused_adamw_takes(x, x, x) ||
      item.options->filter_place() == FilterPlace::AllGradients) {
    return 0;
  }
  return numbers / std::gcd(numbers, x.numel() / x.size(0));
}

/// The units of a step, batch by batch. Depends on nothing that differs between ranks.
template <class Options>
std::vector<Unit> units_of(const std::vector<PlannedParam<Options>>& planned,
                           const std::vector<std::vector<size_t>>& batches) {
  std::vector<Unit> units;
  for (size_t b = 0; b < batches.size(); ++b) {
    const bool adamw = planned[batches[b].front()].rule == Rule::AdamW;
    for (const size_t i : batches[b]) {
      const PlannedParam<Options>& item = planned[i];
      const auto elements = static_cast<double>(item.parameter.numel());
      const auto state = item.parameter.numel() *
                         static_cast<int64_t>(c10::elementSize(state_dtype(item.parameter)));
      if (adamw || i == batches[b].front()) units.push_back({{}, b, adamw, 0, 0, 0});
      Unit& unit = units.back();
      unit.rows_at_once = rows_at_once(item);
      unit.rows = unit.rows_at_once > 0 ? item.parameter.size(0) : 0;
      unit.members.push_back(i);
      unit.state_bytes += adamw ? 2 * state : state;
      unit.value_bytes += static_cast<int64_t>(item.parameter.nbytes());
      if (adamw) {
        unit.cost += adamw_cost(elements);
        continue;
      }
      for (const MatrixShape matrix :
           matrix_shapes(item.parameter.sizes(), item.options->layout())) {
        const auto rows = static_cast<double>(matrix.rows), cols = static_cast<double>(matrix.cols);
        const double count = item.options->layout().batch() ? elements / (rows * cols) : 1;
        unit.cost += matrices_cost(count, rows, cols);
      }
    }
  }
  return units;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
