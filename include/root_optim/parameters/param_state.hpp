// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What the optimizer keeps for a parameter.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>  // TORCH_CHECK
#include <torch/arg.h>           // TORCH_ARG
#include <torch/optim/optimizer.h>

#include <cstdint>
#include <utility>

#include <root_optim/core/archive.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// What the optimizer keeps for a parameter. A matrix has a momentum buffer, any other parameter
/// two moments; the rest is undefined. Tensors have the parameter's shape and device, in float64
/// for a float64 parameter and float32 for any other; counters are integers on its device, where
/// they are counted: reading them waits for the device.
struct ParamState : torch::optim::OptimizerCloneableParamState<ParamState> {
  /// Number of steps that the parameter had a gradient for, those skipped included.
  TORCH_ARG(int64_t, step) = 0;
  /// Number of these that were skipped (NonFinite), one int64.
  TORCH_ARG(at::Tensor, skipped);
  /// Number of these in which its own gradient was not finite or overflowed the state (NonFinite),
  /// one int64.
  TORCH_ARG(at::Tensor, non_finite);
  /// M, the momentum of a matrix.
  TORCH_ARG(at::Tensor, momentum_buffer);
  /// m, AdamW's first moment.
  TORCH_ARG(at::Tensor, exp_avg);
  /// v, AdamW's second moment.
  TORCH_ARG(at::Tensor, exp_avg_sq);

 public:
  // LibTorch's interface of parameter state.
  void serialize(torch::serialize::InputArchive& archive) override {
    ParamState read;
    c10::IValue step;
    archive.read("step", step);
    TORCH_CHECK(step.isInt(), "root_optim::load: expected an integer step, got ", step.tagKind());
    read.step_ = step.toInt();
    detail::read_tensor(archive, "momentum_buffer", read.momentum_buffer_);
    detail::read_tensor(archive, "exp_avg", read.exp_avg_);
    detail::read_tensor(archive, "exp_avg_sq", read.exp_avg_sq_);
    detail::read_tensor(archive, "skipped", read.skipped_);
    detail::read_tensor(archive, "non_finite", read.non_finite_);
    *this = std::move(read);
  }
  void serialize(torch::serialize::OutputArchive& archive) const override {
    archive.write("step", c10::IValue(step_));
    if (momentum_buffer_.defined()) archive.write("momentum_buffer", momentum_buffer_);
    if (exp_avg_.defined()) archive.write("exp_avg", exp_avg_);
    if (exp_avg_sq_.defined()) archive.write("exp_avg_sq", exp_avg_sq_);
    if (skipped_.defined()) archive.write("skipped", skipped_);
    if (non_finite_.defined()) archive.write("non_finite", non_finite_);
  }

  friend bool operator==(const ParamState& a, const ParamState& b) {
    const auto same = [](const at::Tensor& x, const at::Tensor& y) {
      return x.defined() == y.defined() && (!x.defined() || x.equal(y));
    };
    return a.step_ == b.step_ && same(a.momentum_buffer_, b.momentum_buffer_) &&
           same(a.exp_avg_, b.exp_avg_) && same(a.exp_avg_sq_, b.exp_avg_sq_) &&
           same(a.skipped_, b.skipped_) && same(a.non_finite_, b.non_finite_);
  }
};

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
