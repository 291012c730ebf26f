// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Where the options of a group keep the base of its learning rate. LrScheduler finds it by a cast, without
// knowing what else there is in the options.
#pragma once

#include <optional>

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// A base class of options that checkpoints keep.
struct BaseLr {
  std::optional<double> base_lr_;  ///< what the factors of a schedule multiply; none: not known
};

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
