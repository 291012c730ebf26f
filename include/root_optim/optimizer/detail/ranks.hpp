// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Where an optimizer hands over to the ranks that it shares its parameters with.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include <root_optim/core/state_key.hpp>
#include <root_optim/kernels/workspace.hpp>
#include <root_optim/optimizer/detail/group_options.hpp>
#include <root_optim/stages/norm_gate.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// What an optimizer that is shared among ranks does in another way than one process. distributed/ has the
/// one implementation; it knows c10d, and the optimizer does not.
class Ranks {
 public:
  virtual ~Ranks() = default;

  /// A step of all parameters. Collective.
  /// @param gate its state, the same on all ranks; becomes that after the step
  /// @return the first parameter skipped that is stepped here (FaultGuard::first_skipped)
  virtual at::Tensor step(const Groups& groups, StateMap& states, GateState& gate,
                          Workspace* workspace) = 0;

  /// The groups with whole parameters where ranks have shards. Valid until the next call.
  virtual const Groups& whole_groups(const Groups& groups) = 0;

  /// The state to save: that of all parameters.
  /// @throws c10::Error if it is not at hand as of the last step. Local: it waits for nobody.
  virtual const StateMap& whole_state() const = 0;

  /// Called with the state of all parameters after a checkpoint was loaded: keeps what belongs here.
  virtual void loaded(const Groups& groups, StateMap& states, const GateState& gate) = 0;

  /// Erases what is kept here for a parameter.
  virtual void forget(const at::Tensor& parameter, StateMap& states) = 0;

  /// The tensor whose entry in the state tells of a parameter here: itself, or a part of it.
  virtual const at::Tensor& kept_as(const at::Tensor& parameter) const = 0;

  /// Gives back memory that is kept for later.
  virtual void release() = 0;
};

/// The way to an optimizer's members for the wing above.
struct RanksAccess {
  template <class Optimizer>
  static std::unique_ptr<Ranks>& ranks(Optimizer& optimizer) {
    return optimizer.ranks_;
  }
  template <class Optimizer, class Restored>
  static void commit(Optimizer& optimizer, Restored& restored) {
    optimizer.commit(restored, /*gate=*/true);
  }
};

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
