// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The learning-rate schedules of the programs, by name and by shares of a run.
#pragma once

#include <c10/util/Exception.h>
#include <root_optim/schedules/lr_scheduler.hpp>

#include <algorithm>  // min
#include <cmath>      // llround
#include <cstdint>
#include <string>

namespace examples {

struct ScheduleOptions {
  std::string name = "linear";  ///< "linear", "cosine" or "wsd" (warmup, stable, decay)
  double warmup = 0.05;         ///< share of the steps, for all three
  double decay = 0.2;           ///< share of the steps at the end, for wsd
};

inline root_optim::LrSchedule make_schedule(const ScheduleOptions& options, int64_t steps) {
  const bool wsd = options.name == "wsd";
  TORCH_CHECK(!wsd || options.warmup + options.decay <= 1,
              "expected --warmup and --decay to be at most 1 together, got ", options.warmup,
              " and ", options.decay);
  const auto share = [&](double s) -> int64_t {
    return std::llround(s * static_cast<double>(steps));
  };
  const int64_t decay = wsd ? share(options.decay) : 0;
  const int64_t warmup = std::min(share(options.warmup), steps - decay);
  using root_optim::LrSchedule;
  if (wsd) return LrSchedule::warmup_stable_decay(steps, decay).warmup(warmup);
  if (options.name == "cosine") return LrSchedule::cosine(steps).warmup(warmup);
  TORCH_CHECK(options.name == "linear", "expected the schedule linear, cosine or wsd, got ",
              options.name);
  return LrSchedule::linear(steps).warmup(warmup);
}

}  // namespace examples
