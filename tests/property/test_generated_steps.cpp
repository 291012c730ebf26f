// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Generated options, layouts, parameters and gradients: a step leaves parameters finite and where
// the float64 reference puts them; the same run twice, or saved and resumed, gives the same bits.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <sstream>

#include "support/convert.hpp"
#include "support/generators.hpp"
#include "support/reference.hpp"
#include "support/training.hpp"

using namespace root_optim;
using test::expect;

namespace {

enum Cut { Whole, Blocks, Sizes, Convolution, OutDim, Batched };
constexpr int kCuts = 6;
constexpr const char* kCutNames[kCuts] = {"whole",       "equal blocks", "blocks by sizes",
                                          "convolution", "out dim 1",    "batched"};

struct StepCase {
  int64_t parameters = 1, rows = 1, cols = 1, blocks = 1;
  int cut = Whole;
  at::ScalarType dtype = at::kFloat;
  int strides = 0, gradient_strides = 0;
  int kind = 0, decades = 0, scale = 0;  // of the gradients; see MatrixCase
  int64_t steps = 1;                     // of the optimizer
  int momentum = 95;                     // in hundredths, as weight_decay and filter_value
  bool ema = false, nesterov = true;
  int weight_decay = 10;
  int lr = 2;  // 10^-lr
  int lr_scale = 0;
  int rule = 0;
  int filter = 0, filter_value = 90;
  int64_t passes = 1;    // of filter 4, the scaled split
  int place = 0;         // FilterPlace
  int64_t schedule = 5;  // steps of AdaNewton
  int form = 0;
  int non_finite = 0;
  uint64_t seed = 0;
};

void showValue(const StepCase& c, std::ostream& out) {
  out << "\n  " << c.parameters << " parameters of " << c.blocks << " x [" << c.rows << ", "
      << c.cols << "] " << kCutNames[c.cut] << ", " << c10::toString(c.dtype) << ", "
      << test::kStridesNames[c.strides] << ", gradients " << test::kStridesNames[c.gradient_strides]
      << ' ' << test::kKindNames[c.kind] << ", condition 1e" << c.decades << ", scale 1e" << c.scale
      << ", " << c.steps << " steps, momentum ." << c.momentum << (c.ema ? ", EMA" : ", sum")
      << (c.nesterov ? ", Nesterov" : "") << ", weight decay ." << c.weight_decay << ", lr 1e-"
      << c.lr << ", scale " << c.lr_scale << ", rule " << c.rule << ", filter " << c.filter
      << " at ." << c.filter_value << " in " << c.passes << " passes"
      << " at place " << c.place << ", " << c.schedule << " iterations, form " << c.form
      << ", seed " << c.seed << '\n';
}

rc::Gen<StepCase> step_cases() {
  using rc::gen::set;
  using test::any_in;
  return rc::gen::build<StepCase>(
      set(&StepCase::parameters, any_in<int64_t>(1, 3)), set(&StepCase::rows, test::any_side(24)),
      set(&StepCase::cols, test::any_side(24)), set(&StepCase::blocks, any_in<int64_t>(1, 3)),
      set(&StepCase::cut, any_in(0, kCuts - 1)),
      set(&StepCase::dtype, rc::gen::element(at::kFloat, at::kDouble, at::kBFloat16)),
      set(&StepCase::strides, any_in(0, test::kStrides - 1)),
      set(&StepCase::gradient_strides, any_in(0, test::kStrides - 1)),
      set(&StepCase::kind, any_in(0, test::kKinds - 1)), set(&StepCase::decades, any_in(0, 12)),
      set(&StepCase::scale, rc::gen::oneOf(rc::gen::just(0), any_in(-30, 30))),
      set(&StepCase::steps, any_in<int64_t>(1, 3)), set(&StepCase::momentum, any_in(0, 99)),
      set(&StepCase::ema), set(&StepCase::nesterov), set(&StepCase::weight_decay, any_in(0, 99)),
      set(&StepCase::lr, any_in(0, 6)), set(&StepCase::lr_scale, any_in(0, 3)),
      set(&StepCase::rule, any_in(0, 2)), set(&StepCase::filter, any_in(0, 4)),
      set(&StepCase::filter_value, any_in(0, 100)), set(&StepCase::passes, any_in<int64_t>(1, 3)),
      set(&StepCase::place, any_in(0, 2)), set(&StepCase::schedule, any_in<int64_t>(3, 9)),
      set(&StepCase::form, any_in(0, 2)), set(&StepCase::non_finite, any_in(0, 3)),
      set(&StepCase::seed, test::any_seed()));
}

MatrixLayout layout_of(const StepCase& c) {
  switch (c.cut) {
    case Blocks:
      return MatrixLayout().split_rows(c.blocks);
    case Sizes:
      return MatrixLayout().split_rows(std::vector<int64_t>{c.rows, c.rows + c.blocks});
    case OutDim:
      return MatrixLayout().out_dim(1);
    case Batched:
      return MatrixLayout().batch(true);
    default:
      return MatrixLayout();
  }
}

std::vector<int64_t> shape_of(const StepCase& c) {
  switch (c.cut) {
    case Blocks:
      return {c.blocks * c.rows, c.cols};
    case Sizes:
      return {2 * c.rows + c.blocks, c.cols};
    case Convolution:
      return {c.rows, c.blocks, 3, 2};
    case OutDim:
      return {c.blocks, c.rows, 3};
    case Batched:
      return {c.blocks, c.rows, c.cols};
    default:
      return {c.rows, c.cols};
  }
}

/// The matrices that the layout makes of a tensor, by hand.
std::vector<at::Tensor> cut(const StepCase& c, const at::Tensor& x) {
  switch (c.cut) {
    case Blocks:
      return x.chunk(c.blocks, 0);
    case Sizes:
      return x.split_with_sizes({c.rows, c.rows + c.blocks}, 0);
    case Convolution:
      return {x.reshape({x.size(0), -1})};
    case OutDim:
      return {x.transpose(0, 1).reshape({x.size(1), -1})};
    case Batched:
      return x.unbind(0);
    default:
      return {x};
  }
}

bool empty(const StepCase& c) {
  for (const int64_t size : shape_of(c)) {
    if (size == 0) return true;
  }
  return false;
}

/// A block has at least one row.
bool fits(const StepCase& c) { return c.rows > 0 || (c.cut != Blocks && c.cut != Sizes); }

/// The rule that the options name. Auto with a layout that does not suit would be refused: AdamW.
Rule rule_of(const StepCase& c) {
  const auto rule = static_cast<Rule>(c.rule);
  const bool refused = rule == Rule::Auto && layout_of(c) != MatrixLayout() &&
                       !suitability(shape_of(c), layout_of(c)).orthogonalize;
  return refused ? Rule::AdamW : rule;
}

bool is_adamw(const StepCase& c) {
  return rule_of(c) == Rule::AdamW ||
         (rule_of(c) == Rule::Auto && !suitability(shape_of(c), layout_of(c)).orthogonalize);
}

/// 10^scale; for AdamW within what float32 can square.
double gradient_scale(const StepCase& c) {
  return std::pow(10.0, is_adamw(c) ? std::clamp(c.scale, -12, 12) : c.scale);
}

at::Tensor gradient_of(const StepCase& c, int64_t parameter, int64_t t) {
  const std::vector<int64_t> shape = shape_of(c);
  int64_t cols = 1;
  for (size_t i = 1; i < shape.size(); ++i) cols *= shape[i];
  const at::Tensor matrix = test::matrix_of(
      static_cast<test::Kind>(c.kind), shape[0], cols, c.decades,
      c.seed + 1000 * static_cast<uint64_t>(parameter) + 100 * static_cast<uint64_t>(t));
  return test::with_strides((gradient_scale(c) * matrix).reshape(shape).to(c.dtype),
                            static_cast<test::Strides>(c.gradient_strides));
}

std::vector<at::Tensor> parameters_of(const StepCase& c) {
  std::vector<at::Tensor> list;
  for (int64_t i = 0; i < c.parameters; ++i) {
    const at::Tensor value =
        test::gaussian(shape_of(c), c.seed + 7 + static_cast<uint64_t>(i)).to(c.dtype);
    list.push_back(
        test::with_strides(value, static_cast<test::Strides>(c.strides)).requires_grad_(true));
  }
  return list;
}

double filter_value(const StepCase& c) {
  const double value = 0.01 * c.filter_value;
  switch (c.filter) {
    case 1:
      return value * gradient_scale(c);
    case 2:
      return 3 * value;
    case 4:
      return 1 + 6 * value;
    default:
      return value;
  }
}

NonFinite fault_policy_of(const StepCase& c) {
  constexpr NonFinite policies[] = {NonFinite::Skip, NonFinite::Zero, NonFinite::Propagate,
                                    NonFinite::SkipGroup};
  return policies[c.non_finite];
}

template <class Options>
Options common_options(const StepCase& c) {
  return Options(std::pow(10.0, -c.lr))
      .momentum(0.01 * c.momentum)
      .momentum_form(c.ema ? MomentumForm::Ema : MomentumForm::Sum)
      .nesterov(c.nesterov)
      .weight_decay(0.01 * c.weight_decay)
      .scale(static_cast<LrScale>(c.lr_scale))
      .rule(rule_of(c))
      .non_finite(fault_policy_of(c))
      .layout(rule_of(c) == Rule::AdamW ? MatrixLayout() : layout_of(c));
}

FilterPlace place_of(const StepCase& c) { return static_cast<FilterPlace>(c.place); }

RootOptions root_options(const StepCase& c, double update_beta) {
  SoftThreshold filter;
  if (c.filter == 0) filter.quantile(filter_value(c));
  if (c.filter == 1) filter.absolute(filter_value(c));
  if (c.filter == 2) filter.relative_to_rms(filter_value(c));
  if (c.filter == 4) filter.scaled(filter_value(c), c.passes);
  return common_options<RootOptions>(c)
      .update_beta(update_beta)
      .filter(filter)
      .filter_place(place_of(c))
      .orthogonalizer(AdaNewton().steps(c.schedule).form(static_cast<Form>(c.form)));
}

const double kBalance = RootOptions().update_beta();

MuonOptions muon_options(const StepCase& c) { return common_options<MuonOptions>(c); }

/// A fifth of the cases are Muon's.
bool is_muon(const StepCase& c) { return c.filter == 3; }

std::unique_ptr<torch::optim::Optimizer> optimizer_of(const StepCase& c,
                                                      const std::vector<at::Tensor>& parameters,
                                                      double update_beta) {
  if (is_muon(c)) return std::make_unique<Muon>(parameters, muon_options(c));
  return std::make_unique<Root>(parameters, root_options(c, update_beta));
}

void train(const StepCase& c, torch::optim::Optimizer& optimizer,
           const std::vector<at::Tensor>& parameters, int64_t first, int64_t last) {
  for (int64_t t = first; t < last; ++t) {
    for (size_t i = 0; i < parameters.size(); ++i) {
      parameters[i].mutable_grad() = gradient_of(c, static_cast<int64_t>(i), t);
    }
    optimizer.step();
  }
}

/// One matrix that follows the reference, with a bound on how far a float32 run may be from it.
struct Follower {
  test::reference::Matrix reference;
  test::reference::MatrixRule rule;
  double path = 0;   // direction_bound of the orthogonalization
  double slope = 0;  // how far it lifts errors of its input
  double u = 0;      // unit roundoff of the state
  double error = 0;  // the bound so far, in ‖·‖_F

  void step(const at::Tensor& raw) {
    reference.step(raw, rule);
    const at::Tensor gradient =
        rule.split_gradient ? test::reference::split_off_outliers(raw, rule) : raw;
    const double mu = rule.momentum;
    const at::Tensor& m = reference.momentum;
    at::Tensor update = m;
    if (rule.nesterov) {
      update = rule.ema ? (1 - mu) * gradient + mu * m : gradient + mu * m;
    }
    const at::Tensor body =
        rule.split_gradient ? update : test::reference::split_off_outliers(update, rule);
    const at::Tensor start = test::reference::start_of(body, rule.start, rule.eps);
    const auto rank = static_cast<double>(std::min(body.size(0), body.size(1)));
    // The input's own rounding: a few roundings of terms as large as G and M, which may cancel, in
    // units of the norm that the orthogonalizer divides by.
    const double size = start.norm().item<double>();
    const double norm = size > 0 ? body.norm().item<double>() / size : 0;
    const double terms = gradient.norm().item<double>() + m.norm().item<double>();
    const double split = rule.split == test::reference::Split::Scaled
                             ? 12 * static_cast<double>(rule.split_passes)
                             : 0;
    const double input = norm > 0 ? (8 + split) * u * terms / norm : 0;
    // No two directions are further apart than twice the output bound.
    const double direction =
        std::min(path * std::sqrt(rank) + slope * input, 2 * 1.35 * std::sqrt(rank));
    error +=
        rule.lr * direction * test::reference::scale_of(rule.scale, body.size(0), body.size(1));
  }
};

/// The filter's part of a rule of the reference.
void set_split(test::reference::MatrixRule& rule, const StepCase& c) {
  using test::reference::Split;
  rule.split_value = filter_value(c);
  rule.split = is_muon(c)      ? Split::None
               : c.filter == 0 ? Split::Quantile
               : c.filter == 1 ? Split::Absolute
               : c.filter == 2 ? Split::RelativeToRms
                               : Split::Scaled;
  rule.split_passes = c.passes;
}

bool filters_adamw(const StepCase& c) {
  return place_of(c) == FilterPlace::AllGradients && !is_muon(c);
}

/// lr·ρ, ρ by the scale.
double adamw_rate(const StepCase& c) {
  return std::pow(10.0, -c.lr) * (c.lr_scale == 0 ? 1 : unmatched_adamw_lr_ratio);
}

/// What AdamW gets of a gradient.
at::Tensor adamw_gradient(const StepCase& c, const at::Tensor& gradient) {
  if (!filters_adamw(c)) return gradient;
  test::reference::MatrixRule rule;
  set_split(rule, c);
  return test::reference::split_off_outliers(gradient.reshape({gradient.size(0), -1}), rule)
      .reshape(gradient.sizes());
}

std::vector<Follower> followers_of(const StepCase& c, const at::Tensor& parameter) {
  std::vector<Follower> list;
  for (const at::Tensor& matrix : cut(c, parameter.detach().to(at::kDouble))) {
    Follower f{{matrix.clone()}, {}};
    f.rule.lr = std::pow(10.0, -c.lr);
    f.rule.weight_decay = 0.01 * c.weight_decay;
    f.rule.momentum = 0.01 * c.momentum;
    f.rule.ema = c.ema;
    f.rule.nesterov = c.nesterov;
    f.rule.scale = static_cast<test::reference::Scale>(c.lr_scale);
    set_split(f.rule, c);
    f.rule.split_gradient = place_of(c) != FilterPlace::Momentum && !is_muon(c);
    const at::ScalarType compute = c.dtype == at::kDouble ? at::kDouble : at::kFloat;
    const Precision precision = test::precision_of(compute);
    const Quintics schedule = is_muon(c) ? CoefficientSet::jordan().quintics(1, 1, 5)
                                         : shipped_quintics(c.schedule, precision);
    f.rule.schedule = test::triples(schedule);
    f.rule.start =
        is_muon(c) ? test::reference::Start::FrobeniusFloor : test::reference::Start::Schatten8;
    const IterationPlan plan =
        plan_iteration(matrix.size(0), matrix.size(1), schedule, precision,
                       is_muon(c) ? Form::Direct : static_cast<Form>(c.form));
    f.u = test::unit_roundoff(compute);
    f.slope = test::slope_of(schedule);
    f.path = test::direction_bound(f.u, f.slope, test::steepest_run(plan, schedule));
    list.push_back(std::move(f));
  }
  return list;
}

}  // namespace

TEST_CASE("generated steps: finite, and where the reference goes", "[property][generated]") {
  test::Sharpness matrices[3], others;
  int64_t parameters_followed = 0;
  test::check_property("steps", [&] {
    const StepCase c = *step_cases();
    if (!fits(c)) return;
    const auto parameters = parameters_of(c);
    // A balance would lift errors of short rows and columns as far as those are short.
    const auto optimizer = optimizer_of(c, parameters, /*update_beta=*/0);
    std::vector<at::Tensor> starts;
    for (const at::Tensor& p : parameters) starts.push_back(p.detach().clone());
    train(c, *optimizer, parameters, 0, c.steps);
    // Each step rounds the parameter, the factor of its decay and their product.
    const double rounding = 4 * static_cast<double>(c.steps) * test::unit_roundoff(c.dtype);
    for (size_t i = 0; i < parameters.size(); ++i) {
      const at::Tensor after = parameters[i].detach().to(at::kDouble);
      expect(after.isfinite().all().item<bool>(), "parameter ", i, " is not finite");
      if (empty(c)) continue;
      ++parameters_followed;
      if (is_adamw(c)) {
        test::reference::AdamW reference{starts[i].to(at::kDouble)};
        for (int64_t t = 0; t < c.steps; ++t) {
          const at::Tensor gradient = gradient_of(c, static_cast<int64_t>(i), t).to(at::kDouble);
          reference.step(adamw_gradient(c, gradient), adamw_rate(c), 0.9, 0.95, 1e-8,
                         0.01 * c.weight_decay);
        }
        const double error = (after - reference.parameter).abs().max().item<double>();
        // Its directions are of size one, give or take; ten roundings each. Thresholds have those of
        // Follower, which both moments get.
        const double split = filters_adamw(c) ? 8 + 12 * static_cast<double>(c.passes) : 0;
        const double bound =
            rounding * std::max(starts[i].abs().max().item<double>(),
                                reference.parameter.abs().max().item<double>()) +
            (20 + 2 * split) * static_cast<double>(c.steps) * std::pow(10.0, -c.lr) *
                test::unit_roundoff(c.dtype == at::kDouble ? at::kDouble : at::kFloat);
        others.add(error, bound);
        expect(error <= bound, "AdamW: an error of ", error, ", expected at most ", bound);
        continue;
      }
      auto followers = followers_of(c, starts[i]);
      for (int64_t t = 0; t < c.steps; ++t) {
        const auto gradients = cut(c, gradient_of(c, static_cast<int64_t>(i), t).to(at::kDouble));
        for (size_t f = 0; f < followers.size(); ++f) followers[f].step(gradients[f]);
      }
      const auto results = cut(c, after);
      for (size_t f = 0; f < followers.size(); ++f) {
        const at::Tensor& expected = followers[f].reference.parameter;
        const double error = (results[f] - expected).norm().item<double>();
        const double bound = followers[f].error +
                             rounding * std::max(expected.norm().item<double>(),
                                                 starts[i].to(at::kDouble).norm().item<double>());
        matrices[c.dtype == at::kDouble ? 0 : c.dtype == at::kFloat ? 1 : 2].add(error, bound);
        expect(error <= bound, "matrix ", f, " of parameter ", i, ": an error of ", error,
               ", expected at most ", bound);
      }
    }
  });
  WARN(parameters_followed << " parameters followed; largest error / bound: float64 "
                           << matrices[0].largest() << ", float32 " << matrices[1].largest()
                           << ", bfloat16 " << matrices[2].largest() << ", AdamW "
                           << others.largest());
}

TEST_CASE("generated steps: twice, and saved and resumed, the same bits", "[property][generated]") {
  test::check_property("bits", [] {
    const StepCase c = *step_cases();
    if (!fits(c)) return;
    const auto run = [&](bool interrupted) {
      const auto parameters = parameters_of(c);
      auto optimizer = optimizer_of(c, parameters, kBalance);
      train(c, *optimizer, parameters, 0, 2);
      if (interrupted) {
        std::stringstream file;
        auto other = optimizer_of(c, parameters, kBalance);
        if (is_muon(c)) {
          root_optim::save(static_cast<Muon&>(*optimizer), file);
          root_optim::load(static_cast<Muon&>(*other), file);
        } else {
          root_optim::save(static_cast<Root&>(*optimizer), file);
          root_optim::load(static_cast<Root&>(*other), file);
        }
        optimizer = std::move(other);
      }
      train(c, *optimizer, parameters, 2, 4);
      return parameters;
    };
    const auto once = run(false), twice = run(false), resumed = run(true);
    for (size_t i = 0; i < once.size(); ++i) {
      expect(once[i].isfinite().all().item<bool>(), "parameter ", i, " is not finite");
      expect(at::equal(once[i], twice[i]), "parameter ", i, ": two runs differ");
      expect(at::equal(once[i], resumed[i]), "parameter ", i, ": the resumed run differs");
    }
  });
}

TEST_CASE("generated steps: what is not finite stays where it is", "[property][generated]") {
  test::check_property("faults", [] {
    const StepCase c = *step_cases();
    const int which = *test::any_in(0, 2);
    if (!fits(c) || empty(c)) return;
    const NonFinite policy = fault_policy_of(c);
    // The last gradient of the first parameter has an entry of its own, if there is one.
    const auto run = [&](std::optional<double> entry, std::vector<at::Tensor>* before) {
      const auto parameters = parameters_of(c);
      const auto optimizer = optimizer_of(c, parameters, kBalance);
      train(c, *optimizer, parameters, 0, c.steps - 1);
      if (before != nullptr) {
        for (const at::Tensor& p : parameters) before->push_back(p.detach().clone());
      }
      for (size_t i = 0; i < parameters.size(); ++i) {
        at::Tensor gradient = gradient_of(c, static_cast<int64_t>(i), c.steps - 1);
        if (i == 0 && entry) gradient.select(0, 0).fill_(*entry);
        parameters[i].mutable_grad() = gradient;
      }
      optimizer->step();
      return parameters;
    };
    constexpr double inf = std::numeric_limits<double>::infinity();
    const double bad[] = {inf, -inf, std::numeric_limits<double>::quiet_NaN()};
    std::vector<at::Tensor> before;
    const auto parameters = run(bad[which], &before);
    const bool zero = policy == NonFinite::Zero;
    const auto expected = run(zero ? std::optional<double>(0.0) : std::nullopt, nullptr);
    for (size_t i = 0; i < parameters.size(); ++i) {
      const bool skips = policy == NonFinite::Skip || policy == NonFinite::SkipGroup;
      if (skips && (i == 0 || (policy == NonFinite::SkipGroup && is_adamw(c)))) {
        expect(at::equal(parameters[i], before[i]), "parameter ", i, " was not skipped");
      } else if (i > 0 || zero) {
        expect(at::equal(parameters[i], expected[i]), "parameter ", i, " is touched");
      }
    }
  });
}
