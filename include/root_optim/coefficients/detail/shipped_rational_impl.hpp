// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of coefficients/shipped_rational.hpp.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <root_optim/coefficients/detail/shipped_rationals.hpp>
#include <root_optim/coefficients/rational.hpp>
#include <root_optim/coefficients/shipped_rational.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

inline const ShippedRationalClass& shipped_class_of(int64_t rows, int64_t cols) {
  TORCH_CHECK(rows >= 1 && cols >= 1,
              "root_optim::shipped_rational: expected rows, cols >= 1, got ", rows, ", ", cols);
  const double ratio =
      static_cast<double>((std::max)(rows, cols)) / static_cast<double>((std::min)(rows, cols));
  const ShippedRationalClass* found = shipped_rational_classes;
  for (const ShippedRationalClass& shapes : shipped_rational_classes) {
    if (ratio >= shapes.least_ratio) found = &shapes;
  }
  return *found;
}

inline const ShippedPlan& shipped_plan_of(const ShippedRationalClass& shapes,
                                          const std::vector<int64_t>& poles) {
  for (const ShippedPlan& plan : shapes.plans) {
    bool same = plan.count == poles.size();
    for (size_t t = 0; same && t < plan.count; ++t) {
      same = static_cast<int64_t>(plan.stages[t].count) == poles[t];
    }
    if (same) return plan;
  }
  TORCH_CHECK(false,
              "root_optim::shipped_rational: expected the poles {2}, {3}, {1, 1}, {1, 2}, {2, 2}, "
              "{2, 3} or {1, 2, 2} of its stages, got others, of ",
              poles.size(), " stages");
}

inline RationalStages stages_of(const ShippedPlan& plan) {
  RationalStages stages;
  for (size_t t = 0; t < plan.count; ++t) {
    const ShippedStage& s = plan.stages[t];
    stages.push_back({s.constant, {s.weights, s.weights + s.count}, {s.poles, s.poles + s.count}});
  }
  return stages;
}

}  // namespace detail

ROOT_OPTIM_INLINE RationalStages shipped_rational(int64_t rows, int64_t cols,
                                                  const std::vector<int64_t>& poles) {
  return detail::stages_of(detail::shipped_plan_of(detail::shipped_class_of(rows, cols), poles));
}

ROOT_OPTIM_INLINE RationalStages shipped_rational(int64_t rows, int64_t cols, RationalPlan plan) {
  const detail::ShippedRationalClass& shapes = detail::shipped_class_of(rows, cols);
  const size_t index = plan == RationalPlan::Fast      ? shapes.fast
                       : plan == RationalPlan::Default ? shapes.standard
                                                       : shapes.precise;
  return detail::stages_of(shapes.plans[index]);
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE ShippedRationalError
shipped_rational_error(int64_t rows, int64_t cols, const std::vector<int64_t>& poles) {
  const detail::ShippedRationalClass& shapes = detail::shipped_class_of(rows, cols);
  const detail::ShippedPlan& plan = detail::shipped_plan_of(shapes, poles);
  return {plan.training, plan.held_out, shapes.muon_training, shapes.muon_held_out};
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
