// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What checkpoints of older formats lack: the values under which those versions behaved.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <root_optim/checkpoint/checkpoint.hpp>
#include <root_optim/optimizer/options.hpp>  // NonFinite, FilterPlace
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Completes what an older format lacks.
ROOT_OPTIM_COLD inline void upgrade(Checkpoint& checkpoint, int64_t format) {
  for (CheckpointGroup& group : checkpoint) {
    if (format < 2) {
      group.options.set("non_finite", static_cast<int64_t>(NonFinite::Propagate));
    }
    if (format < 3) {
      group.options.set("filter_place", static_cast<int64_t>(FilterPlace::Momentum));
      if (group.options.get<std::string>("filter") == "soft_threshold") {
        group.options.set("filter.passes", int64_t{1});
      }
    }
    if (format < 4) group.options.set("update_beta", 0.0);
    // Until format 5 one bad gradient stopped all AdamW parameters of a group.
    if (format < 5 && group.options.get_enum("non_finite", NonFinite::Raise) == NonFinite::Skip) {
      group.options.set("non_finite", static_cast<int64_t>(NonFinite::SkipGroup));
    }
    if (format < 5) group.options.set("base_lr", std::vector<double>{});
    if (format < 5) {  // both rules shared lr and weight decay
      group.options.set("adamw_lr_ratio", std::vector<double>{1.0});
      group.options.set("adamw_weight_decay", std::vector<double>{});
    }
    // Until format 4 a layout could stand beside a rule that has no use for it.
    if (format < 4 && group.options.get_enum("rule", Rule::AdamW) == Rule::AdamW) {
      store(group.options, "layout", MatrixLayout());
    }
    if (format < 5) {
      group.options.set("momentum_start", 0.85);
      group.options.set("momentum_warmup", int64_t{0});
      group.options.set("gate", 0.0);
      group.options.set("gate_run", int64_t{1});
    }
  }
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
