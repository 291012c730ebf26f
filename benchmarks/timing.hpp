// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What the programs that time something share.
#pragma once

#include <algorithm>
#include <ctime>
#include <vector>

namespace benchmarks {

/// Processor time of this thread.
inline double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// The middle one; of an even number the upper one of two.
inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace benchmarks
