// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The options of a parameter group.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <c10/core/Device.h>
#include <c10/util/Exception.h>  // TORCH_CHECK
#include <torch/arg.h>           // TORCH_ARG
#include <torch/optim/optimizer.h>

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <root_optim/core/archive.hpp>
#include <root_optim/core/base_lr.hpp>
#include <root_optim/core/policy.hpp>
#include <root_optim/optimizer/detail/group_rates.hpp>
#include <root_optim/optimizer/detail/option_values.hpp>
#include <root_optim/parameters/layout.hpp>
#include <root_optim/parameters/rule.hpp>
#include <root_optim/stages/adamw.hpp>  // AdamWSettings
#include <root_optim/stages/lr_scale.hpp>
#include <root_optim/stages/momentum.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

struct NoFilter;
class SoftThreshold;
class AdaNewton;
class NewtonSchulz;

/// What a step does with gradients that are not finite (Inf or NaN).
///
/// Except with Propagate, gradients never make a parameter or its state non-finite. A step that would
/// overflow the state counts as not finite, too: by a momentum above 3.4e38 in float32 or, for AdamW, by
/// a gradient above 1.8e19. State that became non-finite in steps with Propagate stays so; its matrix
/// does not move until `OrthogonalizedOptimizer::forget` erases it. The host waits for the device only with Raise.
/// `ParamState::non_finite`, `ParamState::skipped` and `gradient_faults` (diagnostics.hpp) count such
/// steps. An optimizer warns once, by TORCH_WARN, of the first parameter on the CPU that it skips; elsewhere
/// it would have to wait for the device, and `gradient_faults` is the way to find out.
enum class NonFinite {
  Skip,  ///< the parameter and its state stay as they are; others are not affected
  Zero,  ///< Inf and NaN in a gradient count as 0; a step that overflows all the same is skipped
  Propagate,  ///< computes with them; other parameters are not affected
  Raise,      ///< step() throws before anything changes; the host waits for the gradients
  SkipGroup   ///< as Skip for matrices; of the AdamW parameters of a group on one device, one such
              ///< gradient stops all. What Skip was until checkpoint format 5
};

/// Where the outlier filter acts.
enum class FilterPlace {
  Momentum,  ///< on U, before it is orthogonalized; the momentum keeps the outliers (as published)
  Gradient,  ///< on the gradients of matrices, before the momentum, in which an outlier would live on
             ///< for 1/(1 − μ) steps
  AllGradients  ///< also on the gradients of AdamW, before its moments: each as one matrix (first dimension,
                ///< everything else), a vector as one row, which `SoftThreshold().scaled` leaves
                ///< unchanged. Costs a copy of these gradients
};

/// What becomes of an option when a checkpoint is loaded.
enum class OnLoad {
  Structure,   ///< must be equal in the checkpoint and in the code, because state depends on it
  Parameters,  ///< must be equal for each parameter once resolved: Auto equals what it decides
  Restored,    ///< the checkpoint's value replaces the code's
  Kept         ///< is not in checkpoints: the code's value stays
};

/// The default of `adamw_lr_ratio` where lr is not AdamW's. Beside Muon's usual rate of 0.02 it makes 1e-3, at
/// the upper end of the 3e-4 to 1e-3 that Muon is usually run with for the rest of a model.
inline constexpr double unmatched_adamw_lr_ratio = 0.05;

/// Defaults that depend on the pair of policies. Specialize it to give a pair of your own others.
template <class OutlierFilter, class Orthogonalizer>
struct OptimizerDefaults {
  static constexpr MomentumForm momentum_form = MomentumForm::Sum;  ///< M ← μM + B
  static constexpr LrScale scale = LrScale::MatchRmsAdamW;          ///< takes AdamW's lr
  static constexpr double momentum = 0.95;                          ///< μ
  static constexpr double update_beta = 0;                          ///< not balanced
};

/// Root's: with the lower momentum and with balanced updates the mean loss of language models was lower in each
/// comparison of docs/results.md ("momentum", "competitors", "long").
template <>
struct OptimizerDefaults<SoftThreshold, AdaNewton> {
  static constexpr MomentumForm momentum_form = MomentumForm::Sum;  ///< M ← μM + B
  static constexpr LrScale scale = LrScale::MatchRmsAdamW;          ///< takes AdamW's lr
  static constexpr double momentum = 0.85;                          ///< μ
  static constexpr double update_beta = 0.95;                       ///< β of the balance
};

/// Muon's defaults, those of torch.optim.Muon. They stand here, so that code which forms the pair
/// without muon.hpp has them, too.
template <>
struct OptimizerDefaults<NoFilter, NewtonSchulz> {
  static constexpr MomentumForm momentum_form = MomentumForm::Ema;  ///< M ← μM + (1 − μ)B
  static constexpr LrScale scale = LrScale::Original;               ///< √max(1, rows/cols)
  static constexpr double momentum = 0.95;                          ///< μ
  static constexpr double update_beta = 0;                          ///< not balanced
};

/// Options of a parameter group: everything a step needs to know.
///
/// Setters return the options, so that calls chain; getters have the same names, as in LibTorch:
/// `RootOptions(1e-3).weight_decay(0.1).filter(SoftThreshold().scaled(5))`.
/// A group's options are complete: nothing is merged with the optimizer's defaults.
template <class OutlierFilter, class Orthogonalizer>
class OrthogonalizedOptions : public torch::optim::OptimizerCloneableOptions<
                                  OrthogonalizedOptions<OutlierFilter, Orthogonalizer>>,
                              public detail::BaseLr {
  static_assert(detail::check_policy<OutlierFilter>() && detail::check_policy<Orthogonalizer>());
  using Defaults = OptimizerDefaults<OutlierFilter, Orthogonalizer>;

 public:
  using Betas = std::tuple<double, double>;  ///< β₁, β₂

  /// @param lr see `lr`. Not explicit, as in torch::optim::AdamWOptions.
  OrthogonalizedOptions(double lr = 1e-3) : lr_(lr) {}

  /// Learning rate: of matrices times the factor of `scale`, of the AdamW rule times `adamw_lr_ratio`. The
  /// weight decay of matrices uses it unscaled. Range: finite, >= 0. Default: 1e-3. With `capturable`,
  /// setters and `set_lr` write the device's number, too; what is changed by reference reaches it in the next
  /// step that the host makes.
  auto lr(double new_lr) -> decltype(*this) {
    lr_ = new_lr;
    rates_.write(lr_, weight_decay_);
    return *this;
  }
  const double& lr() const noexcept { return lr_; }
  double& lr() noexcept { return lr_; }

  /// The learning rate that a schedule's factors multiply, as `initial_lr` in PyTorch. The first LrScheduler
  /// of a group sets it, to `lr` or to what it is given; checkpoints keep it, so that a scheduler made later
  /// starts from it and not from the rate of that moment. `lr` and `set_lr` leave it alone. Range: finite,
  /// >= 0. Default: nullopt, not known.
  OrthogonalizedOptions& base_lr(std::optional<double> rate) {
    base_lr_ = rate;
    return *this;
  }
  /// The same.
  const std::optional<double>& base_lr() const noexcept { return base_lr_; }

  /// μ of the momentum of matrices. Range: [0, 1). Default: 0.95; 0.85 for Root.
  TORCH_ARG(double, momentum) = Defaults::momentum;
  /// μ₀, from which the momentum of matrices rises to μ with `momentum_warmup`: for Root set both. Range: [0, 1).
  /// Default: 0.85.
  TORCH_ARG(double, momentum_start) = 0.85;
  /// k, the steps over which it rises: μ_t = μ₀ + (μ − μ₀)·min(1, t/k) in the t-th step that the parameter
  /// takes (momentum_after); 0: always μ. Skipped steps do not count. In steps, not in a share of the
  /// run: what the first steps need does not depend on how many follow, and the optimizer need not know
  /// how many. Range: >= 0. Default: 0.
  TORCH_ARG(int64_t, momentum_warmup) = 0;
  /// How the momentum accumulates gradients. Default: Sum; Ema for Muon.
  TORCH_ARG(MomentumForm, momentum_form) = Defaults::momentum_form;
  /// Whether matrices look ahead by one momentum step. Default: true.
  TORCH_ARG(bool, nesterov) = true;

 public:
  /// λ of the decoupled weight decay, p ← (1 − lr·λ) p; of the AdamW rule unless `adamw_weight_decay` is
  /// given. Range: finite, >= 0. Default: 0.1. With `capturable` as `lr`.
  auto weight_decay(double new_weight_decay) -> decltype(*this) {
    weight_decay_ = new_weight_decay;
    rates_.write(lr_, weight_decay_);
    return *this;
  }
  const double& weight_decay() const noexcept { return weight_decay_; }
  double& weight_decay() noexcept { return weight_decay_; }
  /// The factor of lr by matrix shape. Default: MatchRmsAdamW; Original for Muon.
  TORCH_ARG(LrScale, scale) = Defaults::scale;
  /// β of the second moments that balance the rows and columns of a matrix's update
  /// (update_balance.hpp); 0: no balancing. Costs rows + columns numbers of state a matrix. Range: [0,
  /// 1). Default: 0; 0.95 for Root.
  TORCH_ARG(double, update_beta) = Defaults::update_beta;
  /// The outlier filter. Default: as constructed.
  TORCH_ARG(OutlierFilter, filter);
  /// Where the filter acts. Default: Gradient (docs/results.md has the comparison).
  TORCH_ARG(FilterPlace, filter_place) = FilterPlace::Gradient;
  /// The orthogonalizer. Default: as constructed.
  TORCH_ARG(Orthogonalizer, orthogonalizer);
  /// κ: a step whose gradients together are more than κ times as long as usual is weighed down
  /// (norm_gate.hpp), for both rules; 0: no gate. Of filtered gradients, where the filter acts on
  /// gradients. Equal in all groups, whose parameters must be on one device. Not with `capturable`. Costs a
  /// second run of the filter; over ranks each runs it on what it owns, and one small all_reduce follows.
  /// Range: 0, or >= 1 (1.4 is what our runs have). Default: 0.
  TORCH_ARG(double, gate) = 0;
  /// Most steps in a row that the gate weighs down: with 1 it never stops training, with more it holds
  /// against bad steps in a row, too. Range: > 0. Default: 1.
  TORCH_ARG(int64_t, gate_run) = 1;
  /// Which rule the parameters of the group follow. Default: Auto.
  TORCH_ARG(Rule, rule) = Rule::Auto;
  /// How a parameter becomes matrices. An error under Rule::AdamW, and under Rule::Auto for a matrix that
  /// does not suit: nothing asked for is dropped. Default: one matrix (first dimension, everything else).
  TORCH_ARG(MatrixLayout, layout);
  /// β₁, β₂ of the AdamW rule. Range: [0, 1) each. Default: 0.9, 0.95.
  TORCH_ARG(Betas, betas) = std::make_tuple(0.9, 0.95);
  /// ε of the AdamW rule, outside the square root. Range: finite, >= 0. Default: 1e-8. Below 1.2e-38 it
  /// is no number of float32; an entry whose gradients were all 0, or too small to be squared, then
  /// becomes 0/0, as in torch::optim::AdamW.
  TORCH_ARG(double, eps) = 1e-8;
  /// ρ: the AdamW rule takes the rate lr·ρ, so that a schedule of lr moves both rules. Range: finite, >= 0.
  /// Default: nullopt, by `scale`: 1 with MatchRmsAdamW, whose lr is AdamW's, else
  /// `unmatched_adamw_lr_ratio`.
  TORCH_ARG(std::optional<double>, adamw_lr_ratio);
  /// λ of the AdamW rule, p ← (1 − lr·ρ·λ) p. Range: finite, >= 0. Default: nullopt, that of
  /// `weight_decay`.
  TORCH_ARG(std::optional<double>, adamw_weight_decay);
  /// Whether a bfloat16 or float16 parameter p has a master weight w in float32, on which its steps are
  /// made: w ← step(w), p ← round(w) (master_weights.hpp). Without one, what a step changes by less than half
  /// a unit in the last place is lost: at a rate of 1e-4 most entries never move (docs/choosing.md). Who writes
  /// p between steps wins, entry by entry. Parameters in float32 and float64 have none. Costs 4 bytes a number
  /// and, on the CPU, some 5 % of the step of a large matrix. May be turned on at any time, when w begins as p,
  /// and off, when w goes. As the dtype of parameters it is the code's, not the checkpoint's, which has w.
  /// Default: false, as torch::optim, for the memory.
  TORCH_ARG(bool, master_weights) = false;
  /// What happens when gradients are not finite. Default: Skip.
  TORCH_ARG(NonFinite, non_finite) = NonFinite::Skip;
  /// Bytes that a step may take to treat several matrix parameters of one shape together, which is
  /// faster for small ones. As many are taken together as need no more than this by an upper bound, 4
  /// times the matrix and 4 times its Gram matrix each; a single one takes what it needs (3 and 4
  /// times). The side of a Gram matrix counts as a multiple of 32. 0: one by one. Results may differ by rounding.
  /// Not in checkpoints: it belongs to the machine. Range: >= 0. Default: nullopt, 16 MiB on the CPU, where
  /// what fits into the cache is fastest, and 512 MiB elsewhere, where every operator costs a launch.
  TORCH_ARG(std::optional<int64_t>, batch_bytes);
  /// Whether a captured CUDA graph of a step may be replayed: lr, λ and the number of steps are then on the
  /// device, where schedulers write the rates and each replay counts (docs/cuda.md). All other options are
  /// constants of the graph. Steps differ by rounding. Not in checkpoints. Default: false.
  TORCH_ARG(bool, capturable) = false;
  /// Names of the group's parameters, in their order, for messages, reports and checkpoints. Empty
  /// or one per parameter. Default: empty; `param_groups` and `route` set them.
  TORCH_ARG(std::vector<std::string>, names);

 public:
  /// The one list of options: calls `visit(name, since, on_load, member, range)` for each. `since` is the
  /// first checkpoint format that has it (0: none), `member` points to it, and `range(name, value)` throws
  /// for a value that is out of range.
  template <class Visit>
  static void each_option(Visit&& visit) {
    using namespace detail;
    using O = OrthogonalizedOptions;
    visit("lr", 1, OnLoad::Restored, &O::lr_, NonNegative());
    visit("base_lr", 5, OnLoad::Restored, &O::base_lr_, NonNegative());
    visit("momentum", 1, OnLoad::Restored, &O::momentum_, BelowOne());
    visit("momentum_form", 1, OnLoad::Structure, &O::momentum_form_, UpTo{MomentumForm::Ema});
    visit("nesterov", 1, OnLoad::Restored, &O::nesterov_, AnyValue());
    visit("weight_decay", 1, OnLoad::Restored, &O::weight_decay_, NonNegative());
    visit("scale", 1, OnLoad::Restored, &O::scale_, UpTo{LrScale::Unscaled});
    visit("rule", 1, OnLoad::Parameters, &O::rule_, UpTo{Rule::AdamW});
    visit("layout", 1, OnLoad::Parameters, &O::layout_, AnyValue());
    visit("betas", 1, OnLoad::Restored, &O::betas_, BelowOne());
    visit("eps", 1, OnLoad::Restored, &O::eps_, NonNegative());
    visit("non_finite", 2, OnLoad::Restored, &O::non_finite_, UpTo{NonFinite::SkipGroup});
    visit("filter_place", 3, OnLoad::Restored, &O::filter_place_, UpTo{FilterPlace::AllGradients});
    visit("filter", 1, OnLoad::Restored, &O::filter_, ValidPolicy());
    visit("orthogonalizer", 1, OnLoad::Restored, &O::orthogonalizer_, ValidPolicy());
    visit("update_beta", 4, OnLoad::Restored, &O::update_beta_, BelowOne());
    visit("adamw_lr_ratio", 5, OnLoad::Restored, &O::adamw_lr_ratio_, NonNegative());
    visit("adamw_weight_decay", 5, OnLoad::Restored, &O::adamw_weight_decay_, NonNegative());
    visit("momentum_start", 5, OnLoad::Restored, &O::momentum_start_, BelowOne());
    visit("momentum_warmup", 5, OnLoad::Restored, &O::momentum_warmup_, NonNegative());
    visit("gate", 5, OnLoad::Restored, &O::gate_, ZeroOrFromOne());
    visit("gate_run", 5, OnLoad::Restored, &O::gate_run_, Positive());
    visit("names", 1, OnLoad::Parameters, &O::names_, AnyValue());
    visit("master_weights", 0, OnLoad::Kept, &O::master_weights_, AnyValue());
    visit("capturable", 0, OnLoad::Kept, &O::capturable_, AnyValue());
    visit("batch_bytes", 0, OnLoad::Kept, &O::batch_bytes_, NonNegative());
  }

  /// @throws c10::Error if a value is out of its range; the message names the rule and the value.
  void validate() const;

  /// The numbers of the AdamW rule, as these options resolve them.
  AdamWSettings adamw_settings() const;
  /// The rates of the AdamW rule on a device, from those of the group. ρ and a decay of its own are constants
  /// of a captured graph.
  DeviceRates adamw_rates(const DeviceRates& rates) const;

  /// The names of the options in which two differ, those that checkpoints do not keep included.
  std::vector<std::string> differing(const OrthogonalizedOptions& other) const;

  /// Every option that checkpoints keep, and the settings of both policies, by name.
  Fields fields() const;

  /// The inverse of `fields`. Options that checkpoints do not keep are as constructed.
  /// @throws c10::Error if a field is missing, of another type or out of range, or if other policies
  /// wrote the fields.
  static OrthogonalizedOptions from_fields(const Fields& in);

  // LibTorch's interface of options.
  void serialize(torch::serialize::InputArchive& archive) override;
  void serialize(torch::serialize::OutputArchive& archive) const override;
  double get_lr() const override { return lr_; }
  void set_lr(const double lr) override { this->lr(lr); }

  /// lr and λ on a device, made and written if need be: for a step with `capturable`.
  DeviceRates rates_on(const at::Device& device) const {
    return rates_.on(device, lr_, weight_decay_);
  }

  friend bool operator==(const OrthogonalizedOptions& a, const OrthogonalizedOptions& b) {
    return a.fields() == b.fields();
  }
  friend bool operator!=(const OrthogonalizedOptions& a, const OrthogonalizedOptions& b) {
    return !(a == b);
  }

 private:
  double lr_ = 1e-3;
  double weight_decay_ = 0.1;
  double resolved_ratio() const {
    const double by_scale = scale_ == LrScale::MatchRmsAdamW ? 1 : unmatched_adamw_lr_ratio;
    return adamw_lr_ratio_.value_or(by_scale);
  }

  mutable detail::GroupRates rates_;
};

// ---------------------------------------------------------------------------------------------------

template <class F, class O>
void OrthogonalizedOptions<F, O>::validate() const {
  each_option([this](const char* name, int64_t, OnLoad, auto member, const auto& range) {
    range(name, this->*member);
  });
  TORCH_CHECK(!capturable_ || non_finite_ != NonFinite::Raise,
              "root_optim::options: expected non_finite other than Raise with capturable, got "
              "Raise, for which the "
              "host waits");
  TORCH_CHECK(
      !capturable_ || (detail::is_capturable<F>() && detail::is_capturable<O>()),
      "root_optim::options: expected policies that do not wait for the device with capturable, got "
      "'",
      F::name, "' and '", O::name, "'");
}

template <class F, class O>
ROOT_OPTIM_COLD std::vector<std::string> OrthogonalizedOptions<F, O>::differing(
    const OrthogonalizedOptions& other) const {
  std::vector<std::string> names;
  each_option([&](const char* name, int64_t, OnLoad, auto member, const auto&) {
    Fields ours, theirs;
    detail::store(ours, name, this->*member);
    detail::store(theirs, name, other.*member);
    if (ours != theirs) names.emplace_back(name);
  });
  return names;
}

template <class F, class O>
AdamWSettings OrthogonalizedOptions<F, O>::adamw_settings() const {
  return {lr_ * resolved_ratio(), std::get<0>(betas_), std::get<1>(betas_), eps_,
          adamw_weight_decay_.value_or(weight_decay_)};
}

template <class F, class O>
DeviceRates OrthogonalizedOptions<F, O>::adamw_rates(const DeviceRates& rates) const {
  DeviceRates result = rates;
  if (resolved_ratio() != 1) result.lr = rates.lr.mul(resolved_ratio());
  if (adamw_weight_decay_) {
    result.weight_decay = at::full({}, *adamw_weight_decay_, rates.lr.options());
  }
  return result;
}

template <class F, class O>
ROOT_OPTIM_COLD Fields OrthogonalizedOptions<F, O>::fields() const {
  Fields out;
  each_option([&](const char* name, int64_t, OnLoad on_load, auto member, const auto&) {
    if (on_load != OnLoad::Kept) detail::store(out, name, this->*member);
  });
  return out;
}

template <class F, class O>
ROOT_OPTIM_COLD OrthogonalizedOptions<F, O> OrthogonalizedOptions<F, O>::from_fields(
    const Fields& in) {
  OrthogonalizedOptions options;
  each_option([&](const char* name, int64_t, OnLoad on_load, auto member, const auto& range) {
    if (on_load != OnLoad::Kept) detail::read(in, name, options.*member, range);
  });
  options.validate();
  return options;
}

template <class F, class O>
ROOT_OPTIM_COLD void OrthogonalizedOptions<F, O>::serialize(
    torch::serialize::InputArchive& archive) {
  *this = from_fields(detail::read_fields(archive));
}

template <class F, class O>
ROOT_OPTIM_COLD void OrthogonalizedOptions<F, O>::serialize(
    torch::serialize::OutputArchive& archive) const {
  detail::write_fields(archive, fields());
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
