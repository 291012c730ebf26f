// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of schedules/lr_scheduler.hpp.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK
#include <torch/optim/schedulers/lr_scheduler.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <root_optim/core/finite.hpp>
#include <root_optim/schedules/lr_scheduler.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

ROOT_OPTIM_INLINE LrSchedule& LrSchedule::warmup(int64_t steps) {
  const int64_t most = shape_ == Shape::Constant ? steps
                       : decay_ < total_         ? total_ - decay_
                                                 : total_;
  TORCH_CHECK(steps >= 0 && steps <= most, "root_optim::LrSchedule: expected a warm-up of 0 to ",
              most, " steps, got ", steps);
  warmup_ = steps;
  return *this;
}

ROOT_OPTIM_INLINE LrSchedule& LrSchedule::final_factor(double factor) {
  TORCH_CHECK(detail::is_finite(factor) && factor >= 0 && factor <= 1,
              "root_optim::LrSchedule: expected a final factor from 0 to 1, got ", factor);
  final_factor_ = factor;
  return *this;
}

ROOT_OPTIM_INLINE double LrSchedule::factor(int64_t t) const {
  TORCH_CHECK(t >= 0, "root_optim::LrSchedule::factor: expected a step >= 0, got ", t);
  if (t < warmup_) return static_cast<double>(t + 1) / static_cast<double>(warmup_);
  if (shape_ == Shape::Constant) return 1;
  if (t >= total_) return final_factor_;
  const int64_t start = (std::max)(warmup_, total_ - decay_);
  if (t <= start) return 1;
  constexpr double pi = 3.14159265358979323846;
  const double share = static_cast<double>(t - start) / static_cast<double>(total_ - start);
  const double left = shape_ == Shape::Cosine ? 0.5 * (1 + std::cos(pi * share)) : 1 - share;
  return final_factor_ + (1 - final_factor_) * left;
}

ROOT_OPTIM_INLINE LrSchedule::LrSchedule(Shape shape, int64_t total, int64_t decay)
    : shape_(shape), total_(total), decay_(decay) {
  TORCH_CHECK(shape == Shape::Constant || total >= 1,
              "root_optim::LrSchedule: expected a total of at least 1 step, got ", total);
  TORCH_CHECK(decay >= 0 && decay <= total, "root_optim::LrSchedule: expected a decay of 0 to ",
              total, " steps, got ", decay);
}

ROOT_OPTIM_INLINE LrScheduler::LrScheduler(torch::optim::Optimizer& optimizer, LrSchedule schedule)
    : torch::optim::LRScheduler(optimizer),
      optimizer_(optimizer),
      schedule_(schedule),
      peaks_(get_current_lrs()) {
  set_step(0);
}

ROOT_OPTIM_INLINE void LrScheduler::set_step(int64_t t) {
  const std::vector<double> rates = rates_of(t);
  for (size_t g = 0; g < rates.size(); ++g) {
    optimizer_.param_groups()[g].options().set_lr(rates[g]);
  }
  step_ = t;
}

ROOT_OPTIM_INLINE std::vector<double> LrScheduler::rates_of(int64_t t) const {
  const double factor = schedule_.factor(t);
  std::vector<double> rates = get_current_lrs();
  for (size_t g = 0; g < peaks_.size(); ++g) rates[g] = peaks_[g] * factor;
  return rates;
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
