// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A step of AdamW that changes nothing before its commit: a bucket is committed on all ranks or on none,
// and LibTorch's fused kernel writes in place.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include <root_optim/kernels/workspace.hpp>
#include <root_optim/optimizer/detail/fault_guard.hpp>
#include <root_optim/optimizer/detail/pending.hpp>
#include <root_optim/optimizer/detail/step_adamw.hpp>
#include <root_optim/parameters/param_state.hpp>
#include <root_optim/stages/adamw.hpp>
#include <root_optim/stages/detail/fused_adamw.hpp>
#include <root_optim/stages/norm_gate.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// A copy, in memory that steps keep where it is much.
inline at::Tensor copy_of(const at::Tensor& x, Workspace* workspace) {
  if (x.nbytes() < size_t{1} << 16) return x.detach().clone();
  return temporary(workspace, x.sizes(), x.options().requires_grad(false)).copy_(x);
}

/// What `step_fused` makes of a part, by the same kernel on copies.
inline void fused_step_of(AdamWPart& part, const AdamWSettings& settings, Workspace* workspace,
                          Pending& pending) {
  std::vector<FusedAdamWCall> calls = fused_calls(part);
  const std::vector<at::Tensor> counters = part.guard.counters(part.states);
  std::map<const void*, at::Tensor> next;  // by parameter
  for (FusedAdamWCall& call : calls) {
    for (const auto list :
         {&FusedAdamWCall::parameters, &FusedAdamWCall::exp_avgs, &FusedAdamWCall::exp_avg_sqs}) {
      for (at::Tensor& tensor : call.*list) {
        const at::Tensor old = std::exchange(tensor, copy_of(tensor, workspace));
        if (list == &FusedAdamWCall::parameters) {
          next[old.unsafeGetTensorImpl()] = tensor;
        } else {
          pending.copies.add({old}, {tensor});
        }
      }
    }
    fused_adamw(call, settings, nullptr);
  }
  std::vector<at::Tensor> values;
  for (const at::Tensor& parameter : part.parameters) {
    const auto found = next.find(parameter.unsafeGetTensorImpl());
    values.push_back(found != next.end() ? found->second
                                         : copy_of(parameter, workspace));  // skipped
  }
  pending.add(part.parameters, std::move(values), part.states);
  add_counters(pending.copies, part.states, counters);
}

/// `step_adamw` on parts whose gradients are guarded already.
template <class Options>
Pending pending_adamw(AdamWParts& parts, const Options& options, const at::Tensor& weight,
                      Workspace* workspace) {
  const AdamWSettings settings = options.adamw_settings();
  Pending pending;
  for (auto& [way, part] : parts) {
    if (!pending.skipped.defined()) pending.skipped = part.guard.first_skipped(part.parameters);
    filter_and_weigh(part, options, weight, workspace);
    if (std::get<0>(way)) {
      fused_step_of(part, settings, workspace, pending);
      continue;
    }
    const PartNumbers numbers(part);
    for (size_t i = 0; i < part.parameters.size(); ++i) {
      plain_step_of(part, i, numbers, settings, std::nullopt, pending);
    }
  }
  return pending;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
