// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Schedules designed for a shape on first use, and kept.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <mutex>
#include <tuple>
#include <utility>

#include <root_optim/coefficients/design/shape_model.hpp>
#include <root_optim/coefficients/quintic.hpp>
#include <root_optim/coefficients/validation.hpp>  // Precision
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// `design_for_shape` with a memory. Internally synchronized; designs do not depend on the order in
/// which shapes come.
class DesignCache {
 public:
  explicit DesignCache(ShapeModel model) : model_(std::move(model)) {}

  const ShapeModel& model() const { return model_; }

  Schedule schedule(int64_t rows, int64_t cols, int64_t steps, Precision precision) {
    const Key key{std::min(rows, cols), std::max(rows, cols), steps,
                  precision == Precision::BFloat16};
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      const auto found = schedules_.find(key);
      if (found != schedules_.end()) return found->second;
    }
    // Outside the lock: two threads may design the same shape, with the same result.
    Schedule designed =
        design_for_shape(
            rows, cols, steps,
            precision == Precision::BFloat16 ? Precision::BFloat16 : Precision::Float32, model_)
            .schedule;
    const std::lock_guard<std::mutex> lock(mutex_);
    return schedules_.emplace(key, std::move(designed)).first->second;
  }

 private:
  using Key = std::tuple<int64_t, int64_t, int64_t, bool>;

  ShapeModel model_;
  std::mutex mutex_;
  std::map<Key, Schedule> schedules_;
};

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
