// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of optimizer/detail/fault_guard.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <root_optim/optimizer/detail/commit.hpp>
#include <root_optim/optimizer/detail/fault_guard.hpp>
#include <root_optim/optimizer/options.hpp>  // NonFinite
#include <root_optim/parameters/param_state.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

ROOT_OPTIM_INLINE bool all_true(const at::Tensor& flags) {
  const bool* values = flags.data_ptr<bool>();
  return std::all_of(values, values + flags.numel(), [](bool flag) { return flag; });
}

ROOT_OPTIM_INLINE at::Tensor skipped_of(const std::vector<ParamState*>& states) {
  std::vector<at::Tensor> skipped;
  skipped.reserve(states.size());
  for (ParamState* state : states) skipped.push_back(state->skipped());
  return at::stack(skipped);
}

ROOT_OPTIM_INLINE void FaultGuard::must_be_finite(const at::Tensor& magnitude) {
  note(magnitude);
  join(usable_, is_finite(magnitude));
}

ROOT_OPTIM_INLINE void FaultGuard::give_up(const at::Tensor& failed) {
  if (!usable_.defined()) return;
  if (failed.is_cpu()) {  // the host may look without waiting
    const bool* const flags = failed.data_ptr<bool>();
    if (std::none_of(flags, flags + failed.numel(), [](bool flag) { return flag; })) return;
  }
  join(usable_, failed.view({usable_.size(0), -1}).any(1).bitwise_not_().view(usable_.sizes()));
}

ROOT_OPTIM_INLINE at::Tensor choose(const at::Tensor& usable, const at::Tensor& next,
                                    const at::Tensor& old) {
  if (!usable.defined() || (usable.is_cpu() && all_true(usable))) return next;
  at::Tensor flags = usable;
  if (flags.dim() > 0 && flags.dim() != next.dim()) {
    std::vector<int64_t> shape(static_cast<size_t>(next.dim()), 1);
    shape[0] = flags.size(0);
    flags = flags.reshape(shape);
  }
  return at::where(flags, next, as_dtype(old, next.scalar_type()));
}

ROOT_OPTIM_INLINE at::Tensor FaultGuard::stopped(int64_t count) const {
  const at::Tensor stopped = usable_.logical_not().reshape({-1, 1});
  return stopped.expand({-1, count / stopped.size(0)}).reshape({-1});
}

ROOT_OPTIM_INLINE at::Tensor FaultGuard::first_skipped(
    const std::vector<at::Tensor>& parameters) const {
  if (!usable_.defined() || !usable_.is_cpu() || all_true(usable_)) return {};
  const bool* usable = usable_.data_ptr<bool>();
  const bool* sound = sound_.data_ptr<bool>();
  const size_t stride = usable_.dim() == 0 ? 0 : 1;  // one flag may decide for all
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (!usable[i * stride] && !sound[i]) return parameters[i];
  }
  return {};
}

ROOT_OPTIM_INLINE std::vector<at::Tensor> FaultGuard::counters(
    const std::vector<ParamState*>& states) const {
  if (!usable_.defined()) return {};
  if (usable_.is_cpu() && all_true(usable_) && all_true(sound_)) return {};
  std::vector<at::Tensor> non_finite;
  non_finite.reserve(states.size());
  for (ParamState* state : states) non_finite.push_back(state->non_finite());
  const at::Tensor skipped = skipped_of(states), faults = at::stack(non_finite);
  const at::Tensor taken = usable_.dim() == 0 ? usable_ : usable_.reshape({-1});
  return at::cat(
             {at::where(taken, skipped, skipped.add(1)), at::where(sound_, faults, faults.add(1))})
      .unbind(0);
}

ROOT_OPTIM_INLINE void add_counters(Commit& commit, const std::vector<ParamState*>& states,
                                    const std::vector<at::Tensor>& next) {
  if (next.empty()) return;
  std::vector<at::Tensor> to;
  to.reserve(next.size());
  for (ParamState* state : states) to.push_back(state->skipped());
  for (ParamState* state : states) to.push_back(state->non_finite());
  commit.add(to, next);
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
