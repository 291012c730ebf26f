// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What the optimizer keeps for a parameter, and the one list of it: whatever makes, checks, moves,
// compares, stores or loads state walks that list.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/arg.h>  // TORCH_ARG
#include <torch/optim/optimizer.h>

#include <array>
#include <cstdint>
#include <memory>

#include <root_optim/parameters/rule.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// What the optimizer keeps for a parameter. A matrix has a momentum buffer and, with `update_beta`, moments of its
/// rows and columns, any other parameter two moments; the rest is undefined. Unless noted, tensors have the
/// parameter's shape. They are on its device, in float64 for a float64 parameter and in float32 for any other.
/// Counters are integers on its device, where they are counted: reading them waits for the device.
struct ParamState : torch::optim::OptimizerCloneableParamState<ParamState> {
  /// Number of steps that the parameter had a gradient for, those skipped included.
  TORCH_ARG(int64_t, step) = 0;
  /// The same number on the parameter's device, one int64, with the option `capturable`: it then counts in
  /// place of `step`, which does not change. Else undefined. Checkpoints keep it as `step`.
  TORCH_ARG(at::Tensor, device_step);
  /// Number of these steps that were skipped (NonFinite), one int64.
  TORCH_ARG(at::Tensor, skipped);
  /// Number of these steps in which its own gradient was not finite or overflowed the state (NonFinite),
  /// one int64.
  TORCH_ARG(at::Tensor, non_finite);
  /// M, the momentum of a matrix.
  TORCH_ARG(at::Tensor, momentum_buffer);
  /// R, the second moments of the rows of a matrix's updates (update_balance.hpp), with the option
  /// `update_beta`. Those of all its matrices stand one after the other.
  TORCH_ARG(at::Tensor, row_moment);
  /// C, the same of the columns.
  TORCH_ARG(at::Tensor, column_moment);
  /// m, AdamW's first moment.
  TORCH_ARG(at::Tensor, exp_avg);
  /// v, AdamW's second moment.
  TORCH_ARG(at::Tensor, exp_avg_sq);
  /// w, the master weight of a bfloat16 or float16 parameter (master_weights.hpp), with the option
  /// `master_weights`.
  TORCH_ARG(at::Tensor, master);

 public:
  /// How a slot's tensor follows from the parameter.
  enum class Kind {
    Values,   ///< the parameter's shape, in its dtype of state
    Master,   ///< the same, where the parameter has another dtype
    Rows,     ///< one number a row of each of its matrices, in its dtype of state
    Columns,  ///< one number a column of each of its matrices
    Count     ///< one int64
  };

  /// A tensor of the state. It begins as zeros, a master as the parameter. A checkpoint from before the slot
  /// means the same.
  struct Slot {
    const char* name;                ///< in checkpoints; never changes
    at::Tensor ParamState::*tensor;  ///< the member that holds it
    Rule rule;                       ///< which rule keeps it; Auto: both
    Kind kind;                       ///< its shape and dtype
    int64_t since;                   ///< the first checkpoint format that has it
  };

  /// All slots, in the order in which checkpoints keep them.
  static const std::array<Slot, 8>& slot_list();

  /// The tensor of a slot.
  at::Tensor& slot(const char* name);

  /// A copy with tensors of its own; copies made otherwise share them, as copies of tensors do.
  ROOT_OPTIM_COLD std::unique_ptr<torch::optim::OptimizerParamState> clone() const override {
    auto copy = std::make_unique<ParamState>(*this);
    for (const Slot& slot : slot_list()) {
      at::Tensor& tensor = (*copy).*slot.tensor;
      if (tensor.defined()) tensor = tensor.clone();
    }
    if (device_step_.defined()) copy->device_step(device_step_.clone());
    return copy;
  }

  /// The number of steps, wherever it is counted. Waits for the device if that is there.
  int64_t counted_steps() const;

  // LibTorch's interface of parameter state. Virtual functions are defined in their class: GCC would put
  // the class into every object file of a program that uses the headers alone.
  void serialize(torch::serialize::InputArchive& archive) override { read(archive); }
  void serialize(torch::serialize::OutputArchive& archive) const override { write(archive); }

  friend bool operator==(const ParamState& a, const ParamState& b) {
    if (a.counted_steps() != b.counted_steps()) return false;
    for (const Slot& slot : slot_list()) {
      const at::Tensor &x = a.*slot.tensor, &y = b.*slot.tensor;
      if (x.defined() != y.defined() || (x.defined() && !x.equal(y))) return false;
    }
    return true;
  }

 private:
  void read(torch::serialize::InputArchive& archive);
  void write(torch::serialize::OutputArchive& archive) const;
};

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/parameters/detail/param_state_impl.hpp>
#endif
