// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// How a step finds out, without waiting for the device, whether a gradient is usable, and what it does
// then (NonFinite in options.hpp).
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/nan_to_num.h>

#include <cstddef>
#include <limits>
#include <vector>

#include <root_optim/optimizer/detail/commit.hpp>
#include <root_optim/optimizer/options.hpp>  // NonFinite
#include <root_optim/parameters/param_state.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// x in `dtype`, itself where it has it: `Tensor::to` would be an operator all the same.
inline at::Tensor as_dtype(const at::Tensor& x, at::ScalarType dtype) {
  return x.scalar_type() == dtype ? x : x.to(dtype);
}

/// Whether all flags of a bool tensor on the CPU are set.
bool all_true(const at::Tensor& flags);

/// `next` where `usable` (one flag, or [k, 1, …]; undefined: everywhere), else `old`.
///
/// On the CPU the host may look without waiting: usually all is usable, and a pass over three tensors
/// is saved.
at::Tensor choose(const at::Tensor& usable, const at::Tensor& next, const at::Tensor& old);

/// The states' `skipped` side by side, [k].
at::Tensor skipped_of(const std::vector<ParamState*>& states);

/// Watches k parameters through one step. A step is taken if every magnitude that was required is
/// finite; else the parameter and its state stay as they are, and the step is counted.
///
/// With NonFinite::Propagate nothing is watched and every step is taken.
class FaultGuard {
 public:
  explicit FaultGuard(NonFinite policy) : policy_(policy) {}

  bool is_active() const { return policy_ != NonFinite::Propagate; }
  /// Whether Inf and NaN in a gradient count as 0.
  bool cleans() const { return policy_ == NonFinite::Zero; }
  /// A gradient as the step takes it.
  at::Tensor cleaned(const at::Tensor& gradient) const {
    return cleans() ? at::nan_to_num(gradient, 0.0, 0.0, 0.0) : gradient;
  }

  /// Notes which gradients are not finite, without a consequence for the step.
  /// @param magnitude the largest of each, [k, 1, …]
  void note(const at::Tensor& magnitude) { join(sound_, is_finite(magnitude).reshape({-1})); }
  /// The step of a parameter is taken only if its magnitude is finite.
  void must_be_finite(const at::Tensor& magnitude);
  /// The step of a parameter is not taken if one of its matrices is of no use; the gradient is not at fault.
  /// @param failed bool, one for each matrix, those of a parameter in a row; after must_be_finite
  void give_up(const at::Tensor& failed);
  /// Which of `count` matrices, those of a parameter in a row, will not be stepped so far; after must_be_finite.
  at::Tensor stopped(int64_t count) const;
  /// One flag for all: whether every step is usable so far.
  at::Tensor all_usable() const { return usable_.all(); }
  /// Lets `usable`, one flag, decide for all parameters.
  void decide(const at::Tensor& usable) { usable_ = usable; }

  /// The flags that decide, undefined if nothing was required: [k, 1, …], or [] for all.
  const at::Tensor& usable() const { return usable_; }

  /// The flag of each of k parameters, []; undefined if nothing was required.
  std::vector<at::Tensor> usable_each(size_t k) const {
    const bool own = usable_.defined() && usable_.dim() > 0;
    return own ? usable_.reshape({-1}).unbind(0) : std::vector<at::Tensor>(k, usable_);
  }

  /// `next` where the step is taken, else `old`.
  at::Tensor choose(const at::Tensor& next, const at::Tensor& old) const {
    return detail::choose(usable_, next, old);
  }

  /// The first of the parameters that are skipped for their own gradient; undefined if there is none,
  /// or if the host would have to wait for the device to know.
  at::Tensor first_skipped(const std::vector<at::Tensor>& parameters) const;

  /// The counters of the parameters after this step, `skipped` of each, then `non_finite` of each;
  /// empty where nothing was counted.
  std::vector<at::Tensor> counters(const std::vector<ParamState*>& states) const;

 private:
  /// For magnitudes, so that one comparison tells (NaN < ∞ is false).
  static at::Tensor is_finite(const at::Tensor& magnitude) {
    return magnitude.lt(std::numeric_limits<double>::infinity());
  }
  static void join(at::Tensor& flags, const at::Tensor& more) {
    flags = flags.defined() ? flags.bitwise_and(more) : more;
  }

  NonFinite policy_;
  at::Tensor usable_;
  at::Tensor sound_;  ///< whether each parameter's own gradient is finite, [k]
};

/// The counters into the states, with the rest of a commit.
void add_counters(Commit& commit, const std::vector<ParamState*>& states,
                  const std::vector<at::Tensor>& next);

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/optimizer/detail/fault_guard_impl.hpp>
#endif
