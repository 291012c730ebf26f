// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of schedules/lr_scheduler.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>  // TORCH_CHECK
#include <torch/optim/optimizer.h>
#include <torch/optim/schedulers/lr_scheduler.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <root_optim/core/base_lr.hpp>
#include <root_optim/core/finite.hpp>
#include <root_optim/core/state_key.hpp>
#include <root_optim/schedules/lr_scheduler.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

ROOT_OPTIM_INLINE LrSchedule& LrSchedule::warmup(int64_t steps) {
  const int64_t most = shape_ == Shape::Constant ? (std::numeric_limits<int64_t>::max)()
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

namespace detail {

/// The place for a group's base, or null if its options have none.
inline BaseLr* base_lr_of(torch::optim::OptimizerParamGroup& group) {
  return dynamic_cast<BaseLr*>(&group.options());
}

/// Whether there is state of a group's parameters.
inline bool has_state(torch::optim::Optimizer& optimizer,
                      const torch::optim::OptimizerParamGroup& group) {
  for (const at::Tensor& parameter : group.params()) {
    if (optimizer.state().count(state_key(parameter)) != 0) return true;
  }
  return false;
}

inline void check_base_lr(double base) {
  TORCH_CHECK(
      is_finite(base) && base >= 0,
      "root_optim::LrScheduler: expected base learning rates that are finite and >= 0, got ", base);
}

}  // namespace detail

ROOT_OPTIM_INLINE LrScheduler::LrScheduler(torch::optim::Optimizer& optimizer, LrSchedule schedule,
                                           std::vector<double> base_lrs)
    : torch::optim::LRScheduler(optimizer),
      optimizer_(optimizer),
      schedule_(schedule),
      given_(!base_lrs.empty()),
      bases_(std::move(base_lrs)) {
  auto& groups = optimizer.param_groups();
  if (given_) {
    for (const double base : bases_) detail::check_base_lr(base);
    TORCH_CHECK(bases_.size() == 1 || bases_.size() == groups.size(),
                "root_optim::LrScheduler: expected one base learning rate or one for each of the ",
                groups.size(), " groups, got ", bases_.size());
    if (bases_.size() == 1) bases_.resize(groups.size(), bases_[0]);
  } else {
    for (size_t g = 0; g < groups.size(); ++g) {
      const detail::BaseLr* kept = detail::base_lr_of(groups[g]);
      const bool known = kept != nullptr && kept->base_lr_;
      const double rate = known ? *kept->base_lr_ : groups[g].options().get_lr();
      TORCH_CHECK(
          known || rate != 0 || !detail::has_state(optimizer, groups[g]),
          "root_optim::LrScheduler: expected a learning rate above 0, or a base, of group ", g,
          ", which has taken steps, got 0; if an earlier schedule ended there, give the bases to "
          "the constructor: LrScheduler(optimizer, schedule, {1e-3})");
      bases_.push_back(rate);
    }
  }
  set_step(0);
}

ROOT_OPTIM_INLINE void LrScheduler::set_step(int64_t t) {
  const std::vector<double> rates = rates_of(t);
  for (size_t g = 0; g < rates.size(); ++g) {
    optimizer_.param_groups()[g].options().set_lr(rates[g]);
  }
  step_ = t;
}

ROOT_OPTIM_INLINE std::vector<double> LrScheduler::base_lrs() const {
  std::vector<double> bases = bases_;
  for (size_t g = 0; g < bases.size() && !given_; ++g) {
    const detail::BaseLr* kept = detail::base_lr_of(optimizer_.param_groups()[g]);
    if (kept != nullptr && kept->base_lr_) bases[g] = *kept->base_lr_;
  }
  return bases;
}

ROOT_OPTIM_INLINE void LrScheduler::validate(const LrSchedulerState& state) const {
  TORCH_CHECK(state.step >= 0, "root_optim::LrScheduler: expected a step >= 0, got ", state.step);
  TORCH_CHECK(state.base_lrs.size() == bases_.size(),
              "root_optim::LrScheduler: expected a base learning rate for each of ", bases_.size(),
              " groups, got ", state.base_lrs.size());
  for (const double base : state.base_lrs) detail::check_base_lr(base);
}

ROOT_OPTIM_INLINE void LrScheduler::restore(const LrSchedulerState& state) {
  validate(state);
  if (!given_) set_bases(state.base_lrs);
  set_step(state.step);
}

ROOT_OPTIM_INLINE void LrScheduler::set_bases(std::vector<double> bases) {
  bases_ = std::move(bases);
  for (size_t g = 0; g < bases_.size(); ++g) {
    detail::BaseLr* kept = detail::base_lr_of(optimizer_.param_groups()[g]);
    if (kept != nullptr) kept->base_lr_ = bases_[g];
  }
}

ROOT_OPTIM_INLINE std::vector<double> LrScheduler::rates_of(int64_t t) {
  const double factor = schedule_.factor(t);
  set_bases(base_lrs());
  std::vector<double> rates = get_current_lrs();
  for (size_t g = 0; g < bases_.size(); ++g) rates[g] = bases_[g] * factor;
  return rates;
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
