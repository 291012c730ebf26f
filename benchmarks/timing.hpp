// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What the programs that time something share.
#pragma once

#include <algorithm>
#include <ctime>
#include <vector>

namespace benchmarks {

/// What a clock shows now.
inline double milliseconds(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return 1e3 * static_cast<double>(now.tv_sec) + 1e-6 * static_cast<double>(now.tv_nsec);
}

/// Processor time of this thread.
inline double processor_seconds() { return 1e-3 * milliseconds(CLOCK_THREAD_CPUTIME_ID); }

/// The middle one; of an even number the upper one of two.
inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace benchmarks
