// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// --calibrate: lets a Calibrator follow the run of root, and reports what it cost.
#pragma once

#include <fmt/format.h>
#include <torch/optim/optimizer.h>
#include <root_optim/calibration/calibrator.hpp>
#include <root_optim/root.hpp>

#include <chrono>
#include <cstdint>
#include <optional>

namespace examples {

/// Does nothing for `every` = 0 and for optimizers without AdaNewton.
class Calibration {
 public:
  Calibration(torch::optim::Optimizer& optimizer, int64_t every) {
    auto* root = dynamic_cast<root_optim::Root*>(&optimizer);
    if (root == nullptr || every == 0) return;
    root_optim::CalibratorOptions options;
    options.every = every;
    calibrator_.emplace(*root, options);
  }

  void step() {
    if (!calibrator_) return;
    using Clock = std::chrono::steady_clock;
    const auto start = Clock::now();
    calibrator_->step();
    seconds_ += std::chrono::duration<double>(Clock::now() - start).count();
  }

  /// @param training_seconds of the whole run
  void report(double training_seconds) const {
    if (!calibrator_) return;
    fmt::print("calibration: {} designs, {} failures, {:.2f} s, {:.2f} % of training time\n",
               calibrator_->designs(), calibrator_->failures(), seconds_,
               100 * seconds_ / training_seconds);
  }

 private:
  std::optional<root_optim::Calibrator<root_optim::SoftThreshold>> calibrator_;
  double seconds_ = 0;
};

}  // namespace examples
