// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// OrthogonalizedOptimizer and its named forms Root, Muon and RootPaper: parameter groups, checks,
// state, and which parameters step together. The step of such a batch and what is committed when are
// in optimizer/detail/step_matrices.hpp and optimizer/detail/step_adamw.hpp; which parameter of a module belongs where is
// in parameters/routing_table.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>  // NoGradGuard, AutoGradMode
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>  // TORCH_CHECK
#include <torch/optim/optimizer.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>  // is_nothrow_move_assignable_v
#include <unordered_set>
#include <utility>
#include <vector>

#include <root_optim/checkpoint/checkpoint.hpp>
#include <root_optim/core/finite.hpp>
#include <root_optim/kernels/max_abs.hpp>
#include <root_optim/optimizer/detail/step_adamw.hpp>
#include <root_optim/optimizer/detail/step_matrices.hpp>
#include <root_optim/optimizer/detail/upgrade.hpp>
#include <root_optim/optimizer/options.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/parameters/detail/state_key.hpp>
#include <root_optim/parameters/layout.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

namespace detail {

/// The bytes that a step of a matrix parameter takes beside it and its state, alone or as one of several
/// that are stepped together: the new momentum, two buffers of the iteration, of several their stacked
/// gradients, too, and four Gram matrices.
inline double step_bytes(const at::Tensor& parameter, const Layout& layout, bool alone) {
  double elements = (alone ? 3 : 4) * static_cast<double>(parameter.numel());
  for (const MatrixShape matrix : matrix_shapes(parameter.sizes(), layout)) {
    const auto rows = static_cast<double>(matrix.rows), cols = static_cast<double>(matrix.cols);
    const double count =
        layout.batch() ? static_cast<double>(parameter.numel()) / (rows * cols) : 1;
    elements += 4 * count * std::min(rows, cols) * std::min(rows, cols);
  }
  return elements * static_cast<double>(c10::elementSize(state_dtype(parameter)));
}

/// f(), whose errors then say in which group.
template <class F>
void naming_group(size_t group, const F& f) {
  try {
    f();
  } catch (const c10::Error& error) {
    TORCH_CHECK(false, error.what_without_backtrace(), ", in group ", group);
  }
}

/// The bytes of the filtered gradients of parameters that follow AdamW.
inline double filtered_bytes(const std::vector<at::Tensor>& parameters) {
  double bytes = 0;
  for (const at::Tensor& parameter : parameters) {
    bytes += static_cast<double>(parameter.numel()) *
             static_cast<double>(c10::elementSize(state_dtype(parameter)));
  }
  return bytes;
}

}  // namespace detail

/// Momentum, an outlier filter and orthogonalization for matrices; AdamW for everything else.
///
/// For a matrix parameter p (rows × cols as laid out) with gradient G, at each step:
///
///     B = filter(G)                              soft_threshold.hpp, G = O + B
///     M ← μM + B (or the EMA form)               momentum.hpp
///     U = B + μM with Nesterov, else M
///     X = orthogonalizer(U)                      ≈ the polar factor of U: ada_newton.hpp, …
///     p ← (1 − lr·λ) p − lr·s(rows, cols)·X      update.hpp, λ unscaled, applied once
///
/// With FilterPlace::Momentum the momentum is that of G, and X that of filter(U), as ROOT was published.
/// Any other parameter follows AdamW (adamw.hpp); the filter acts on its gradients with
/// FilterPlace::AllGradients only. `Rule` and `Layout` in the group's options decide; by default the
/// shape does (suitability.hpp). A parameter whose rule changes begins anew: its state is that of the new
/// rule alone.
///
/// A drop-in torch::optim::Optimizer: the constructors of torch::optim::AdamW, groups with options
/// of their own, closures, LRScheduler, zero_grad, torch::save and torch::load. Differences:
///  - a group's options are complete, and kept as given on every LibTorch version;
///  - the same tensor twice in one list counts once; in two groups it is an error;
///  - add groups through this type: through torch::optim::Optimizer&, LibTorch >= 2.10 would
///    replace their options, so step() refuses such groups.
///
/// State:     a matrix: one buffer; AdamW: two; float32 (float64 for float64 parameters); and two
///            counters. On the CPU also the memory of a step, for the next one: `release_workspace`.
/// Dtypes:    parameters and gradients in float64, float32, bfloat16, float16, with any strides that
///            do not overlap; on any device whose LibTorch has float64. Gradients are never written.
/// Faults:    gradients that are not finite: the option `non_finite`, by default a skipped step.
/// Errors:    step() checks all groups, parameters, gradients and coefficients before it changes
///            anything. What fails later (a policy of one's own, memory) leaves every parameter and
///            its state together, either before or after the step, but earlier ones are updated
///            already.
/// Sync:      no host synchronization in step(), unless a policy (ExactPolar) or NonFinite::Raise
///            has one, or, once, a parameter became float32 and its float64 state has to follow.
/// Determinism: as its operators: repeatable on the CPU for a fixed number of threads.
/// Reference: ROOT, arXiv 2511.20626.
///
/// Example: see examples/quickstart.cpp
template <class OutlierFilter, class Orthogonalizer>
class OrthogonalizedOptimizer : public torch::optim::Optimizer {
 public:
  using Options = OrthogonalizedOptions<OutlierFilter, Orthogonalizer>;
  using Group = torch::optim::OptimizerParamGroup;

  /// Groups with options keep them; groups without take `defaults`.
  /// @throws c10::Error as `add_param_group`.
  explicit OrthogonalizedOptimizer(const std::vector<Group>& param_groups, Options defaults = {})
      : Optimizer(std::vector<Group>{}, std::make_unique<Options>(checked(std::move(defaults)))) {
    for (const Group& group : param_groups) add_param_group(group);
  }
  /// One group with `defaults`.
  explicit OrthogonalizedOptimizer(std::vector<at::Tensor> params, Options defaults = {})
      : OrthogonalizedOptimizer(std::vector<Group>{Group(std::move(params))}, std::move(defaults)) {
  }

  /// Adds a group of parameters; possible at any time.
  /// @throws c10::Error if its options are of another type or out of range, if a parameter is
  /// undefined, not a leaf, not strided, not real floating-point, an inference tensor, overlaps
  /// itself in memory, does not fit the layout, has rank < 2 under Rule::Orthogonalized, or belongs to
  /// another group, or if there are names, but not one per parameter. Nothing is added then.
  void add_param_group(const Group& group);

  /// Updates every parameter that has a gradient.
  /// @param closure evaluated first, with gradients enabled, if given.
  /// @return the closure's loss, or an undefined tensor.
  /// @throws c10::Error as `add_param_group`; for a gradient that does not match its parameter, or is
  /// not finite under NonFinite::Raise; for coefficients that fail validation; for state of another
  /// type or shape; and for groups that were not added through this type. Nothing has changed then.
  /// What fails later leaves each parameter with its state as before the step or as after it.
  at::Tensor step(LossClosure closure = nullptr) override;

  /// Gives back the memory that steps on the CPU keep for the next one: at most what a step takes, see
  /// the option `workspace`. The next step takes it again.
  void release_workspace() { workspace_.release(); }

  /// Writes state and options; see checkpoint.hpp.
  void save(torch::serialize::OutputArchive& archive) const override;
  /// Restores state and options after checking all of them; see checkpoint.hpp.
  void load(torch::serialize::InputArchive& archive) override;

 private:
  /// Parameters of one group and device that are stepped together: matrices of one shape, which
  /// move through the stages as one tensor, or all that follow AdamW.
  struct Batch {
    const Options* options;
    Rule rule;
    std::vector<at::Tensor> parameters;
    std::vector<ParamState*> states;
  };

  static Options checked(Options options) {
    options.validate();
    return options;
  }
  const Options& group_options(size_t group) const;
  const Options& valid_group_options(size_t group) const;
  std::vector<Batch> plan();
  void check_state(const at::Tensor& parameter, const std::string& where) const;
  ParamState next_state(const at::Tensor& parameter, Rule rule, const std::string& where) const;

  size_t groups_added_ = 0;
  detail::Workspace workspace_;
};

// ---------------------------------------------------------------------------------------------------

template <class F, class O>
void OrthogonalizedOptimizer<F, O>::add_param_group(const Group& group) {
  const size_t index = param_groups_.size();
  const auto& given = group.has_options() ? group.options() : *defaults_;
  const auto* typed = dynamic_cast<const Options*>(&given);
  TORCH_CHECK(typed != nullptr, "root_optim::add_param_group: expected the options of group ",
              index, " to be of this optimizer's own type, got another optimizer's");
  Options options = checked(*typed);
  TORCH_CHECK(options.names().empty() || options.names().size() == group.params().size(),
              "root_optim::add_param_group: expected no names or one per parameter, got ",
              options.names().size(), " names for ", group.params().size(), " parameters of group ",
              index);

  std::unordered_set<const void*> others;
  for (const Group& other : param_groups_) {
    for (const at::Tensor& parameter : other.params()) {
      others.insert(parameter.unsafeGetTensorImpl());
    }
  }
  std::unordered_set<const void*> seen;
  std::vector<at::Tensor> parameters;
  std::vector<std::string> names;
  for (size_t i = 0; i < group.params().size(); ++i) {
    const at::Tensor& parameter = group.params()[i];
    const std::string where = detail::describe(parameter, index, i, options.names());
    detail::check_parameter(parameter, where);
    detail::resolve_rule(options.rule(), options.layout(), parameter, where);
    const void* key = parameter.unsafeGetTensorImpl();
    TORCH_CHECK(others.count(key) == 0,
                "root_optim::add_param_group: expected every parameter in one group only, got ",
                where, " in an earlier group too");
    if (!seen.insert(key).second) continue;  // C++ parameters() lists a tied tensor twice
    parameters.push_back(parameter);
    if (!options.names().empty()) names.push_back(options.names()[i]);
  }
  options.names(std::move(names));

  Optimizer::add_param_group(Group(std::move(parameters)));
  // LibTorch >= 2.10 would have replaced options of a type that it does not know by the defaults.
  param_groups_.back().set_options(std::make_unique<Options>(std::move(options)));
  ++groups_added_;
}

template <class F, class O>
const typename OrthogonalizedOptimizer<F, O>::Options& OrthogonalizedOptimizer<F, O>::group_options(
    size_t group) const {
  const auto* options = dynamic_cast<const Options*>(&param_groups_[group].options());
  TORCH_CHECK(options != nullptr, "root_optim::Optimizer: expected the options of group ", group,
              " to be of this optimizer's own type, got another optimizer's");
  return *options;
}

template <class F, class O>
const typename OrthogonalizedOptimizer<F, O>::Options&
OrthogonalizedOptimizer<F, O>::valid_group_options(size_t group) const {
  const Options& options = group_options(group);
  detail::naming_group(group, [&] { options.validate(); });
  const size_t names = options.names().size(), params = param_groups_[group].params().size();
  TORCH_CHECK(names == 0 || names == params,
              "root_optim::Optimizer: expected no names or one per parameter, got ", names,
              " names for ", params, " parameters of group ", group);
  return options;
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
  const std::vector<Batch> batches = plan();
  double matrices = 0, adamw = 0;  // the most bytes that a batch of each kind takes
  for (const Batch& batch : batches) {
    const Options& options = *batch.options;
    if (batch.rule == Rule::Orthogonalized) {
      const size_t count = batch.parameters.size();
      const double each =
          detail::step_bytes(batch.parameters[0], options.layout(), /*alone=*/count == 1);
      matrices = std::max(matrices, static_cast<double>(count) * each);
    } else if (options.filter_place() == FilterPlace::AllGradients) {
      adamw = std::max(adamw, detail::filtered_bytes(batch.parameters));
    }
  }
  // Their sum: a block of one kind is hardly ever the size that the other needs.
  workspace_.set_limit(static_cast<size_t>(matrices + adamw));
  const detail::WorkspaceScope scope(workspace_);
  for (const Batch& batch : batches) {
    if (batch.rule == Rule::AdamW) {
      detail::step_adamw(*batch.options, batch.parameters, batch.states);
    } else {
      detail::step_matrices(*batch.options, batch.parameters, batch.states);
    }
  }
  return loss;
}

/// Checks everything and sorts the parameters into batches. What it may change, after all checks, is
/// invisible: missing state comes into being as zeros, state follows its parameter to another device or
/// dtype, and that of another rule than the parameter's goes.
template <class F, class O>
std::vector<typename OrthogonalizedOptimizer<F, O>::Batch> OrthogonalizedOptimizer<F, O>::plan() {
  TORCH_CHECK(param_groups_.size() == groups_added_, "root_optim::step: expected the ",
              groups_added_, " groups added through this optimizer's own add_param_group, got ",
              param_groups_.size(),
              "; a group added through torch::optim::Optimizer& may have lost its options");
  struct Item {
    at::Tensor parameter;
    Rule rule;
    size_t group;
    std::string where;
  };
  std::vector<Item> items;
  std::unordered_set<const void*> seen;
  for (size_t g = 0; g < param_groups_.size(); ++g) {
    const Options& options = valid_group_options(g);
    const auto& parameters = param_groups_[g].params();
    for (size_t i = 0; i < parameters.size(); ++i) {
      const at::Tensor& parameter = parameters[i];
      const std::string where = detail::describe(parameter, g, i, options.names());
      detail::check_parameter(parameter, where);
      const Rule rule = detail::resolve_rule(options.rule(), options.layout(), parameter, where);
      TORCH_CHECK(seen.insert(parameter.unsafeGetTensorImpl()).second,
                  "root_optim::step: expected every parameter once, got ", where, " again");
      const at::Tensor& gradient = parameter.grad();
      if (!gradient.defined()) continue;
      detail::check_gradient(parameter, gradient, where);
      if (parameter.numel() == 0) continue;
      check_state(parameter, where);
      TORCH_CHECK(
          options.non_finite() != NonFinite::Raise ||
              detail::is_finite(
                  detail::max_abs(gradient.reshape({1, -1})).reshape({}).template item<double>()),
          "root_optim::step: expected a finite gradient, got Inf or NaN for ", where);
      if (rule == Rule::Orthogonalized) {
        for (const MatrixShape matrix : matrix_shapes(parameter.sizes(), options.layout())) {
          detail::validate_policy_for(options.orthogonalizer(), matrix.rows, matrix.cols,
                                      parameter);
        }
      }
      items.push_back({parameter, rule, g, where});
    }
  }

  std::vector<ParamState> states;
  states.reserve(items.size());
  for (const Item& item : items) {
    states.push_back(next_state(item.parameter, item.rule, item.where));
  }

  std::vector<Batch> batches;
  using Key = std::tuple<size_t, Rule, std::vector<int64_t>, at::ScalarType, std::string>;
  std::map<Key, size_t> open;  // the batch that the next parameter of a kind joins
  for (size_t i = 0; i < items.size(); ++i) {
    const Item& item = items[i];
    auto& slot = state_[detail::state_key(item.parameter)];
    if (!slot) slot = std::make_unique<ParamState>();
    auto& state = static_cast<ParamState&>(*slot);
    state = std::move(states[i]);
    Key key{item.group, item.rule, {}, at::kFloat, item.parameter.device().str()};
    int64_t most = std::numeric_limits<int64_t>::max();  // parameters in a batch
    if (item.rule == Rule::Orthogonalized) {
      std::get<2>(key) = item.parameter.sizes().vec();
      std::get<3>(key) = item.parameter.scalar_type();
      const Options& options = group_options(item.group);
      most = static_cast<int64_t>(
          static_cast<double>(options.workspace()) /
          detail::step_bytes(item.parameter, options.layout(), /*alone=*/false));
    }
    const auto found = open.find(key);
    const bool joins = found != open.end() &&
                       static_cast<int64_t>(batches[found->second].parameters.size()) < most;
    if (!joins) {
      open[key] = batches.size();
      batches.push_back({&group_options(item.group), item.rule, {}, {}});
    }
    Batch& batch = batches[open[key]];
    batch.parameters.push_back(item.parameter);
    batch.states.push_back(&state);
  }
  return batches;
}

template <class F, class O>
void OrthogonalizedOptimizer<F, O>::check_state(const at::Tensor& parameter,
                                                const std::string& where) const {
  const auto found = state_.find(detail::state_key(parameter));
  if (found == state_.end() || !found->second) return;
  const auto* state = dynamic_cast<const ParamState*>(found->second.get());
  TORCH_CHECK(state != nullptr,
              "root_optim::step: expected state of this optimizer's own type for ", where,
              ", got another optimizer's");
  for (const at::Tensor& tensor :
       {state->momentum_buffer(), state->exp_avg(), state->exp_avg_sq()}) {
    TORCH_CHECK(!tensor.defined() || tensor.sizes() == parameter.sizes(),
                "root_optim::step: expected state of the parameter's shape, got ", tensor.sizes(),
                " for ", where);
  }
}

/// The parameter's state, complete for its rule. A parameter whose rule has changed begins anew.
template <class F, class O>
ParamState OrthogonalizedOptimizer<F, O>::next_state(const at::Tensor& parameter, Rule rule,
                                                     const std::string& where) const {
  const bool adamw = rule == Rule::AdamW;
  const auto found = state_.find(detail::state_key(parameter));
  ParamState next;
  if (found != state_.end() && found->second) next = static_cast<const ParamState&>(*found->second);
  if (!(adamw ? next.exp_avg() : next.momentum_buffer()).defined()) next = ParamState();
  const auto prepare = [&](at::Tensor& tensor) {
    if (!tensor.defined()) {
      tensor = at::zeros_like(
          parameter, parameter.options().dtype(detail::state_dtype(parameter)).requires_grad(false),
          at::MemoryFormat::Contiguous);
    } else if (tensor.device() != parameter.device() ||
               tensor.scalar_type() != detail::state_dtype(parameter)) {
      tensor = detail::converted_state(tensor, parameter, where);  // follows its parameter
    }
  };
  if (adamw) {
    next.momentum_buffer() = at::Tensor();
    prepare(next.exp_avg());
    prepare(next.exp_avg_sq());
  } else {
    next.exp_avg() = at::Tensor();
    next.exp_avg_sq() = at::Tensor();
    prepare(next.momentum_buffer());
  }
  for (at::Tensor* counter : {&next.skipped(), &next.non_finite()}) {
    const auto options = at::TensorOptions(parameter.device()).dtype(at::kLong);
    if (!counter->defined()) {
      *counter = at::zeros({}, options);
    } else if (counter->device() != parameter.device()) {
      *counter = counter->to(options);
    }
  }
  return next;
}

template <class F, class O>
void OrthogonalizedOptimizer<F, O>::save(torch::serialize::OutputArchive& archive) const {
  Checkpoint checkpoint;
  for (size_t g = 0; g < param_groups_.size(); ++g) {
    CheckpointGroup group;
    group.options = group_options(g).fields();
    for (const at::Tensor& parameter : param_groups_[g].params()) {
      CheckpointParam stored{parameter.sizes().vec(), {}};
      const auto found = state_.find(detail::state_key(parameter));
      if (found != state_.end()) stored.state = dynamic_cast<const ParamState&>(*found->second);
      group.params.push_back(std::move(stored));
    }
    checkpoint.push_back(std::move(group));
  }
  detail::write_checkpoint(archive, checkpoint);
}

template <class F, class O>
void OrthogonalizedOptimizer<F, O>::load(torch::serialize::InputArchive& archive) {
  const c10::InferenceMode normal_mode(false);
  const at::NoGradGuard no_grad;
  StoredCheckpoint stored_checkpoint = detail::read_checkpoint(archive);
  Checkpoint& checkpoint = stored_checkpoint.groups;
  detail::upgrade(checkpoint, stored_checkpoint.format);
  TORCH_CHECK(checkpoint.size() == param_groups_.size(), "root_optim::load: expected ",
              param_groups_.size(), " parameter groups, got ", checkpoint.size());
  std::vector<Options> options;
  detail::StateMap states;
  for (size_t g = 0; g < checkpoint.size(); ++g) {
    const auto& parameters = param_groups_[g].params();
    const std::vector<std::string> names = group_options(g).names();
    TORCH_CHECK(checkpoint[g].params.size() == parameters.size(), "root_optim::load: expected ",
                parameters.size(), " parameters in group ", g, ", got ",
                checkpoint[g].params.size());
    detail::naming_group(g,
                         [&] { options.push_back(Options::from_fields(checkpoint[g].options)); });
    options.back().workspace(group_options(g).workspace());
    const std::vector<std::string> stored_names = options.back().names();
    for (const auto& list : {names, stored_names}) {
      TORCH_CHECK(list.empty() || list.size() == parameters.size(),
                  "root_optim::load: expected no names or one per parameter in group ", g, ", got ",
                  list.size(), " names for ", parameters.size(), " parameters");
    }
    if (stored_names.empty()) options.back().names(names);
    for (size_t i = 0; i < parameters.size(); ++i) {
      const std::string where = detail::describe(parameters[i], g, i, names);
      const CheckpointParam& stored = checkpoint[g].params[i];
      TORCH_CHECK(parameters[i].sizes() == c10::IntArrayRef(stored.shape),
                  "root_optim::load: expected the shape of ", where, ", got ",
                  c10::IntArrayRef(stored.shape));
      TORCH_CHECK(names.empty() || stored_names.empty() || stored_names[i] == names[i],
                  "root_optim::load: expected the state of ", where, ", got that of '",
                  stored_names[i], "'");
      detail::resolve_rule(options.back().rule(), options.back().layout(), parameters[i], where);
      auto state = std::make_unique<ParamState>(stored.state);
      const auto adopt = [&](at::Tensor& tensor) {
        if (!tensor.defined()) return;
        TORCH_CHECK(tensor.sizes() == parameters[i].sizes(),
                    "root_optim::load: expected state of the shape of ", where, ", got ",
                    tensor.sizes());
        // A copy: the archive, and whoever else reads it, keeps its own.
        tensor = detail::converted_state(tensor, parameters[i], where);
      };
      const bool momentum = state->momentum_buffer().defined(),
                 moments = state->exp_avg().defined();
      TORCH_CHECK(moments == state->exp_avg_sq().defined() && state->step() >= 0 &&
                      (state->step() == 0 || momentum || moments),
                  "root_optim::load: expected a momentum or two moments of ", where, " after ",
                  state->step(), " steps, got others");
      adopt(state->momentum_buffer());
      adopt(state->exp_avg());
      adopt(state->exp_avg_sq());
      for (at::Tensor* counter : {&state->skipped(), &state->non_finite()}) {
        if (!counter->defined()) continue;
        TORCH_CHECK(counter->dim() == 0 && counter->scalar_type() == at::kLong,
                    "root_optim::load: expected one int64 as a counter of ", where, ", got ",
                    c10::toString(counter->scalar_type()), " of shape ", counter->sizes());
        const auto count = counter->template item<int64_t>();
        TORCH_CHECK(count >= 0 && count <= state->step(),
                    "root_optim::load: expected a counter of at most ", state->step(), " steps of ",
                    where, ", got ", count);
        *counter = counter->to(parameters[i].device(), at::kLong, /*non_blocking=*/false,
                               /*copy=*/true);
      }
      if (state->step() > 0) states[detail::state_key(parameters[i])] = std::move(state);
    }
  }

  static_assert(std::is_nothrow_move_assignable_v<Options> &&
                std::is_nothrow_move_assignable_v<detail::StateMap>);
  for (size_t g = 0; g < options.size(); ++g) {  // commit: nothing that can fail
    static_cast<Options&>(param_groups_[g].options()) = std::move(options[g]);
  }
  state_ = std::move(states);
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
