// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The learning rate and weight decay of a group on its devices, for the option `capturable`.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <c10/core/Device.h>
#include <c10/core/TensorOptions.h>

#include <vector>

#include <root_optim/stages/device_rates.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// One pair of tensors a device, made when a step first asks for it. They belong to the group whose options
/// have them: copies begin without, and assignment keeps the target's, which a captured graph may read.
class GroupRates {
 public:
  GroupRates() = default;
  GroupRates(const GroupRates&) noexcept {}
  GroupRates& operator=(const GroupRates&) noexcept { return *this; }

  /// The rates on a device, with these values.
  const DeviceRates& on(const at::Device& device, double lr, double weight_decay) {
    for (Entry& entry : entries_) {
      if (entry.rates.lr.device() != device) continue;
      write(entry, lr, weight_decay);
      return entry.rates;
    }
    const auto options = at::TensorOptions().device(device).dtype(at::kDouble);
    entries_.push_back(
        {{at::full({}, lr, options), at::full({}, weight_decay, options)}, lr, weight_decay});
    return entries_.back().rates;
  }

  /// New values, on every device that there is. Does not wait for it.
  void write(double lr, double weight_decay) {
    for (Entry& entry : entries_) write(entry, lr, weight_decay);
  }

 private:
  struct Entry {
    DeviceRates rates;
    double lr, weight_decay;  ///< what was written last
  };

  // Only what has changed: within a capture it would become a part of the graph.
  static void write(Entry& entry, double lr, double weight_decay) {
    if (entry.lr != lr) entry.rates.lr.fill_(lr);
    if (entry.weight_decay != weight_decay) entry.rates.weight_decay.fill_(weight_decay);
    entry.lr = lr;
    entry.weight_decay = weight_decay;
  }

  std::vector<Entry> entries_;
};

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
