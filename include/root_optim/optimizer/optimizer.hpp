// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// OrthogonalizedOptimizer: parameter groups, a step, saving and loading. Its named forms are in root.hpp
// and muon.hpp. optimizer/detail/ has the plan of a step, its batches and their commit; restore.hpp
// there takes a checkpoint back.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>  // NoGradGuard, AutoGradMode
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>  // TORCH_CHECK
#include <torch/optim/optimizer.h>

#include <cstddef>
#include <memory>
#include <type_traits>  // is_nothrow_move_assignable_v
#include <utility>
#include <vector>

#include <root_optim/checkpoint/checkpoint.hpp>
#include <root_optim/core/state_key.hpp>
#include <root_optim/kernels/workspace.hpp>
#include <root_optim/optimizer/detail/batch.hpp>
#include <root_optim/optimizer/detail/gate.hpp>
#include <root_optim/optimizer/detail/group_options.hpp>
#include <root_optim/optimizer/detail/new_parameters.hpp>
#include <root_optim/optimizer/detail/plan.hpp>
#include <root_optim/optimizer/detail/ranks.hpp>
#include <root_optim/optimizer/detail/restore.hpp>
#include <root_optim/optimizer/detail/step_adamw.hpp>
#include <root_optim/optimizer/detail/step_matrices.hpp>
#include <root_optim/optimizer/options.hpp>
#include <root_optim/parameters/rule.hpp>
#include <root_optim/stages/norm_gate.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// Momentum, an outlier filter and orthogonalization for matrices; AdamW for everything else.
///
/// For a matrix parameter p (rows × cols as laid out) with gradient G, each step computes
///
///     B = filter(G)                              the body of G = O + B, O the outliers: soft_threshold.hpp
///     M ← μM + B (or the EMA form)               the momentum: momentum.hpp
///     U = B + μM with Nesterov, else U = M       the matrix that is orthogonalized
///     X = orthogonalizer(U)                      ≈ the polar factor of U: ada_newton.hpp, …
///     X ← balance(X)                             with `update_beta`, Root's default: update_balance.hpp
///     p ← (1 − lr·λ) p − lr·s(rows, cols)·X      λ is not scaled by s: update.hpp
///
/// With FilterPlace::Momentum the momentum is that of G, and X that of filter(U), as ROOT was published.
/// Any other parameter follows AdamW (adamw.hpp); the filter acts on its gradients with
/// FilterPlace::AllGradients only. `Rule` and `MatrixLayout` in the group's options decide; by default the
/// shape does (suitability.hpp). A parameter whose rule changes begins anew: its state is that of the new
/// rule alone.
///
/// A drop-in torch::optim::Optimizer: the constructors of torch::optim::AdamW, groups with options
/// of their own, closures, LRScheduler, zero_grad, torch::save and torch::load. Differences:
///  - a group's options are complete and stay as given on every LibTorch version;
///  - the same tensor twice in one list counts once; in two groups it is an error;
///  - groups are added through this type: LibTorch >= 2.10 replaces the options of a group that is added
///    through torch::optim::Optimizer&, so step() refuses it.
///
/// State:     one buffer for a matrix, and rows + columns numbers for its balance, two for AdamW, in float32
///            (float64 for float64 parameters), and two counters; with `master_weights` one more for a
///            parameter in half precision. On the CPU a step also keeps its memory for the next one;
///            `release_workspace` frees it.
/// Dtypes:    parameters and gradients in float64, float32, bfloat16 or float16, with any strides that
///            do not overlap, on any device whose LibTorch has float64. Gradients are never written.
/// Faults:    the option `non_finite` decides about gradients that are not finite; by default it skips
///            the parameter, and warns once where the host sees it without waiting (on the CPU).
/// Errors:    step() checks all groups, parameters, gradients and coefficients before it changes
///            anything. A later failure (of a user's own policy, or for want of memory) leaves each
///            parameter and its state both as before the step or both as after it; earlier parameters
///            are updated already.
/// Sync:      step() does not synchronize with the host, with two exceptions: a policy (ExactPolar) or
///            NonFinite::Raise that does, and the first step after a parameter moved to another device or
///            became float32, since its state has to follow.
/// Determinism: as its operators: repeatable on the CPU for a fixed number of threads.
/// Reference: ROOT, arXiv 2511.20626.
///
/// Example: see examples/quickstart.cpp
template <class OutlierFilter, class Orthogonalizer>
class OrthogonalizedOptimizer : public torch::optim::Optimizer {
 public:
  using Options = OrthogonalizedOptions<OutlierFilter, Orthogonalizer>;  ///< of every group
  using Group = torch::optim::OptimizerParamGroup;                       ///< as LibTorch has it

  /// Groups with options keep them; groups without take `defaults`.
  /// @throws c10::Error as `add_param_group`.
  explicit OrthogonalizedOptimizer(const std::vector<Group>& param_groups, Options defaults = {});
  /// One group with `defaults`.
  explicit OrthogonalizedOptimizer(std::vector<at::Tensor> params, Options defaults = {});

  /// Adds a group of parameters, at any time.
  /// @throws c10::Error if its options are of another type or out of range, if a parameter is
  /// undefined, not a leaf, not strided, not real floating-point, an inference tensor, overlaps
  /// itself in memory, does not fit the layout, has rank < 2 under Rule::Orthogonalized, or belongs to
  /// another group, or if names are given, but not one per parameter; and after `distribute`. Nothing is
  /// added then.
  void add_param_group(const Group& group);

  /// Updates every parameter that has a gradient.
  /// @param closure evaluated first, with gradients enabled, if given.
  /// @return the closure's loss, or an undefined tensor.
  /// @throws c10::Error as `add_param_group`; for a gradient that does not match its parameter, or is
  /// not finite under NonFinite::Raise; for coefficients that fail validation; for state of another
  /// type or shape; and for groups that were not added through this type. Nothing has changed then.
  /// What fails later leaves each parameter with its state as before the step or as after it.
  at::Tensor step(LossClosure closure = nullptr) override;

  /// The options of a group, to read or to change; as `static_cast<Options&>(param_groups()[group].options())`,
  /// but checked.
  /// @throws c10::Error if there is no such group, or if its options are another optimizer's.
  Options& options(size_t group) {
    return const_cast<Options&>(std::as_const(*this).options(group));
  }
  /// The same.
  const Options& options(size_t group) const {
    TORCH_CHECK(group < param_groups_.size(), "root_optim::options: expected a group below ",
                param_groups_.size(), ", got ", group);
    return detail::group_options<Options>(param_groups_, group);
  }

  /// Erases the state of a parameter, which then begins anew. LibTorch's optimizers know state by the address
  /// of a parameter: whoever replaces parameters in `param_groups()` calls this for the old ones, since a new
  /// one may be put at the same address.
  void forget(const at::Tensor& parameter) {
    state_.erase(detail::state_key(parameter));
    if (ranks_) ranks_->forget(parameter, state_);
  }

  /// Gives back the memory that steps on the CPU keep for the next one: at most what a step takes, see
  /// the option `batch_bytes`. The next step takes it again. Programs with many optimizers call this after
  /// each step. A distributed optimizer also gives up consolidated state.
  void release_workspace() {
    workspace_.release();
    if (ranks_) ranks_->release();
  }

  /// Whether `distribute` (distributed.hpp) has shared the parameters among ranks: `state()` then holds
  /// what this rank keeps.
  bool is_distributed() const { return ranks_ != nullptr; }

  /// What the gate has seen and struck (the option `gate`), as of the last step that was taken to its end;
  /// undefined tensors without a gate. Reading its numbers waits for the device.
  const GateState& gate_state() const { return gate_state_; }

  /// Writes state and options; see checkpoint.hpp.
  void save(torch::serialize::OutputArchive& archive) const override;
  /// Restores state and options after checking all of them; see checkpoint.hpp.
  void load(torch::serialize::InputArchive& archive) override { load(archive, LoadOptions()); }
  /// The same, or without `strict` what the names of both sides have in common.
  LoadReport load(torch::serialize::InputArchive& archive, const LoadOptions& options);

 private:
  friend detail::RanksAccess;
  static Options checked(Options options);
  /// A step by one process. @return the first parameter that was skipped
  at::Tensor step_here();
  void warn_once(const at::Tensor& skipped);
  /// Takes what a load has made and checked. Nothing in it can fail.
  void commit(detail::Restored<Options>& restored, bool gate);

  size_t groups_added_ = 0;
  GateState gate_state_;
  bool has_warned_ = false;  // of a skipped parameter
  Workspace workspace_;
  std::unique_ptr<detail::Ranks> ranks_;  // null: this process steps everything
};

// ---------------------------------------------------------------------------------------------------

template <class F, class O>
ROOT_OPTIM_COLD typename OrthogonalizedOptimizer<F, O>::Options
OrthogonalizedOptimizer<F, O>::checked(Options options) {
  options.validate();
  return options;
}

template <class F, class O>
ROOT_OPTIM_COLD OrthogonalizedOptimizer<F, O>::OrthogonalizedOptimizer(
    const std::vector<Group>& param_groups, Options defaults)
    : Optimizer(std::vector<Group>{}, std::make_unique<Options>(checked(std::move(defaults)))) {
  for (const Group& group : param_groups) add_param_group(group);
}

template <class F, class O>
ROOT_OPTIM_COLD OrthogonalizedOptimizer<F, O>::OrthogonalizedOptimizer(
    std::vector<at::Tensor> params, Options defaults)
    : OrthogonalizedOptimizer(std::vector<Group>{Group(std::move(params))}, std::move(defaults)) {}

template <class F, class O>
ROOT_OPTIM_COLD void OrthogonalizedOptimizer<F, O>::add_param_group(const Group& group) {
  TORCH_CHECK(
      !ranks_,
      "root_optim::add_param_group: expected all groups before `distribute`, got another one "
      "of ",
      group.params().size(), " parameters");
  const size_t index = param_groups_.size();
  const auto& given = group.has_options() ? group.options() : *defaults_;
  const auto* typed = dynamic_cast<const Options*>(&given);
  TORCH_CHECK(typed != nullptr, "root_optim::add_param_group: expected the options of group ",
              index, " to be of this optimizer's own type, got another optimizer's");
  Options options = checked(*typed);
  detail::NewParameters added = detail::new_parameters(
      param_groups_, group.params(), options.names(), options.rule(), options.layout());
  options.names(std::move(added.names));

  Optimizer::add_param_group(Group(std::move(added.parameters)));
  // LibTorch >= 2.10 would have replaced options of a type that it does not know by the defaults.
  param_groups_.back().set_options(std::make_unique<Options>(std::move(options)));
  ++groups_added_;
}

template <class F, class O>
at::Tensor OrthogonalizedOptimizer<F, O>::step(LossClosure closure) {
  at::Tensor loss;
  if (closure) {
    const at::AutoGradMode enable_grad(true);
    loss = closure();
  }
  // State that is made in inference mode could not be written outside of it.
  const c10::InferenceMode normal_mode(false);
  const at::NoGradGuard no_grad;
  // Last, because a user's warning handler may throw.
  warn_once(ranks_ ? ranks_->step(param_groups_, state_, gate_state_, &workspace_) : step_here());
  return loss;
}

template <class F, class O>
at::Tensor OrthogonalizedOptimizer<F, O>::step_here() {
  TORCH_CHECK(param_groups_.size() == groups_added_, "root_optim::step: expected the ",
              groups_added_, " groups added through this optimizer's own add_param_group, got ",
              param_groups_.size(),
              "; a group added through torch::optim::Optimizer& may have lost its options");
  detail::check_gate<Options>(param_groups_);
  const auto batches = detail::plan<Options>(param_groups_, state_);
  workspace_.set_limit(detail::workspace_bytes(batches));
  auto gated = detail::gated_step<Options>(batches, gate_state_, &workspace_);
  const at::Tensor weight = gated ? gated->weight : at::Tensor();
  at::Tensor skipped;
  for (const auto& batch : batches) {
    at::Tensor first;
    if (batch.rule == Rule::AdamW) {
      first = detail::step_adamw(batch, weight, &workspace_);
    } else {
      detail::Pending pending = detail::step_matrices(batch, weight, &workspace_);
      pending.commit();
      first = pending.skipped;
    }
    if (!skipped.defined()) skipped = first;
  }
  // Behind the last batch: a step that fails half-way has not been one for the gate.
  if (!batches.empty()) gate_state_ = gated ? std::move(gated->state) : GateState();
  return skipped;
}

template <class F, class O>
void OrthogonalizedOptimizer<F, O>::warn_once(const at::Tensor& skipped) {
  if (skipped.defined() && !std::exchange(has_warned_, true)) {
    TORCH_WARN("root_optim::step: skipped ", detail::describe_in<Options>(param_groups_, skipped),
               ", whose gradient is not finite or overflows its state; it stays as it is in every "
               "such step (NonFinite in the options). gradient_faults(optimizer) counts them; this "
               "warning comes once for each optimizer");
  }
}

template <class F, class O>
ROOT_OPTIM_COLD void OrthogonalizedOptimizer<F, O>::save(
    torch::serialize::OutputArchive& archive) const {
  const detail::StateMap& states = ranks_ ? ranks_->whole_state() : state_;
  const auto& groups = ranks_ ? ranks_->whole_groups(param_groups_) : param_groups_;
  detail::write_checkpoint(archive, detail::to_checkpoint<Options>(groups, states),
                           detail::stored_gate(gate_state_));
}

template <class F, class O>
ROOT_OPTIM_COLD void OrthogonalizedOptimizer<F, O>::commit(detail::Restored<Options>& restored,
                                                           bool gate) {
  // GateState is tensors: their moves do not throw, which LibTorch 1.13 does not say.
  static_assert(std::is_nothrow_move_assignable_v<Options> &&
                std::is_nothrow_move_assignable_v<detail::StateMap>);
  for (size_t g = 0; g < param_groups_.size(); ++g) {
    static_cast<Options&>(param_groups_[g].options()) = std::move(restored.options[g]);
  }
  state_ = std::move(restored.states);
  if (gate) gate_state_ = std::move(restored.gate);
}

template <class F, class O>
ROOT_OPTIM_COLD LoadReport OrthogonalizedOptimizer<F, O>::load(
    torch::serialize::InputArchive& archive, const LoadOptions& options) {
  const c10::InferenceMode normal_mode(false);
  const at::NoGradGuard no_grad;
  TORCH_CHECK(
      options.strict() || !ranks_,
      "root_optim::load: expected `strict` for a distributed optimizer, which keeps a part of the "
      "state only, got a load by name: load before `distribute`");
  auto stored = detail::read_checkpoint(archive);
  const auto& groups = ranks_ ? ranks_->whole_groups(param_groups_) : param_groups_;
  auto restored = options.strict()
                      ? detail::restore<Options>(groups, std::move(stored))
                      : detail::restore_by_name<Options>(param_groups_, state_, std::move(stored));
  commit(restored, /*gate=*/options.strict());
  if (ranks_) ranks_->loaded(param_groups_, state_, gate_state_);
  return std::move(restored.report);
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
