// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Ctrl-C (SIGINT) and SIGTERM as a wish that a program can look at between two steps.
#pragma once

#include <csignal>

namespace examples {

namespace detail {
inline volatile std::sig_atomic_t received_signal = 0;
}

/// The first signal is only noted; a second one ends the program at once, as without this.
inline void catch_interrupts() {
  const auto note = [](int signal) {
    detail::received_signal = signal;
    std::signal(signal, SIG_DFL);
  };
  std::signal(SIGINT, note);
  std::signal(SIGTERM, note);
}

/// The signal that came, or 0.
inline int interrupting_signal() { return detail::received_signal; }

/// Thrown when a program has saved its state because of a signal.
struct Interrupted {
  int signal;
};

}  // namespace examples
