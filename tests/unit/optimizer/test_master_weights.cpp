// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Float32 master weights of parameters in half precision: the stage alone; a master is the weight of the
// float32 run, bit for bit; who writes the parameter wins; and what a run in bfloat16 loses without.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "support/devices.hpp"
#include "support/optimizer_state.hpp"
#include "support/saved.hpp"
#include "support/tolerances.hpp"
#include "support/training.hpp"
#include "support/warnings.hpp"

using namespace root_optim;
using test::contains;
using test::load_from;
using test::on;
using test::parameter;
using test::same_as;
using test::saved;
using test::state_of;

namespace {

using Tensors = std::vector<at::Tensor>;

/// A gradient that half precision holds, so that parameters of every dtype get the same.
at::Tensor gradient_of(at::IntArrayRef sizes, int64_t t, at::ScalarType half) {
  if (sizes.empty()) return test::gaussian({1}, 100 + static_cast<uint64_t>(t))[0].to(half);
  return test::gradient_of(sizes, t).to(half);
}

/// The same parameters twice: in half precision with masters, and in float32.
struct Pair {
  Pair(const Tensors& values, at::ScalarType dtype, RootOptions options) : half(dtype) {
    for (const at::Tensor& value : values) {
      low.push_back(parameter(value.to(dtype)));
      full.push_back(parameter(value.to(dtype).to(at::kFloat)));
    }
    masters = std::make_unique<Root>(low, RootOptions(options).master_weights(true));
    plain = std::make_unique<Root>(full, options);
  }

  void set_gradients(int64_t t) {
    for (size_t i = 0; i < low.size(); ++i) {
      const at::Tensor gradient = gradient_of(low[i].sizes(), t, half);
      test::set_gradient(low[i], gradient);
      test::set_gradient(full[i], gradient);
    }
  }

  void train(int64_t first, int64_t last) {
    for (int64_t t = first + 1; t <= last; ++t) {
      set_gradients(t);
      masters->step();
      plain->step();
    }
  }

  at::Tensor master(size_t i) { return state_of(*masters, low[i]).master(); }

  void check() {
    for (size_t i = 0; i < low.size(); ++i) {
      INFO("parameter " << i << " of shape " << low[i].sizes());
      if (low[i].numel() == 0) continue;
      CHECK_THAT(master(i), same_as(full[i].detach()));
      CHECK_THAT(low[i].detach(), same_as(full[i].detach().to(half)));
    }
  }

  at::ScalarType half;
  Tensors low, full;
  std::unique_ptr<Root> masters, plain;
};

at::Tensor values(at::IntArrayRef sizes, uint64_t seed) {
  if (sizes.empty()) return test::gaussian({1}, seed)[0].mul(0.05);
  return test::gaussian(sizes, seed).mul(0.05);
}

/// Matrices, two of one shape, convolutions, vectors, a number, and what is hard to step.
Tensors all_shapes() {
  return {values({16, 24}, 1), values({16, 24}, 2), values({24, 16}, 3), values({8, 4, 3, 3}, 4),
          values({24}, 5),     values({}, 6),       values({1, 40}, 7),  values({40, 1}, 8),
          values({2, 2}, 9),   values({0, 16}, 10), values({0}, 11)};
}

}  // namespace

TEST_CASE("a weight is its master unless somebody wrote the parameter", "[master_weights]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType half = GENERATE(at::kBFloat16, at::kHalf);
  const float nan = std::numeric_limits<float>::quiet_NaN(),
              inf = std::numeric_limits<float>::infinity();
  // Left alone; written; by half a unit in the last place; NaN on either side; ±0; infinite.
  const at::Tensor master =
      at::tensor({1.001F, 1.001F, 1.F, 1.F, nan, 0.F, 1e-9F, inf, 1e30F}).to(device);
  at::Tensor p = master.to(half);
  p[1] = 2;
  p[3] = nan;
  p[4] = 3;
  p[5] = -0.F;
  const at::Tensor expected =
      at::tensor({1.001F, 2.F, 1.F, nan, 3.F, -0.F, 1e-9F, inf, 1e30F}).to(device);
  const at::Tensor weight = current_weight(p, master);
  CHECK(weight.scalar_type() == at::kFloat);
  CHECK_THAT(weight.isnan(), same_as(expected.isnan()));
  CHECK_THAT(weight.nan_to_num(), same_as(expected.nan_to_num()));
  CHECK(std::signbit(weight[5].item<float>()));

  const at::Tensor matrix = at::rand({6, 5}, on(device, at::kFloat)), low = matrix.to(half);
  CHECK_THAT(current_weight(low.t(), matrix.t()), same_as(matrix.t()));
  CHECK_THAT(current_weight(low.narrow(1, 1, 3), matrix.narrow(1, 1, 3).contiguous()),
             same_as(matrix.narrow(1, 1, 3)));
  CHECK(current_weight(low.narrow(0, 0, 0), matrix.narrow(0, 0, 0)).sizes() ==
        at::IntArrayRef({0, 5}));
  CHECK(current_weight(low[0][0], matrix[0][0]).dim() == 0);
}

TEST_CASE("current_weight names what it cannot take", "[master_weights][errors]") {
  const at::Tensor w = at::ones({2, 3});
  CHECK_THROWS_WITH(current_weight(at::ones({3, 2}, at::kHalf), w),
                    contains("root_optim::current_weight: expected a parameter in bfloat16 or "
                             "float16 and a master of its shape [3, 2] in float32, got Half, and "
                             "[2, 3] in Float"));
  CHECK_THROWS_WITH(current_weight(w, w), contains("got Float, and [2, 3] in Float"));
  CHECK_THROWS_WITH(current_weight(w.to(at::kHalf), w.to(at::kDouble)),
                    contains("got Half, and [2, 3] in Double"));
}

TEST_CASE("a master is the weight of the float32 run, bit for bit", "[master_weights]") {
  const at::ScalarType half = GENERATE(at::kBFloat16, at::kHalf);
  INFO(half);
  const RootOptions base = RootOptions(1e-3).batch_bytes(0);
  const std::vector<std::pair<const char*, RootOptions>> cases{
      {"default", base},
      {"no Nesterov, EMA", RootOptions(base).nesterov(false).momentum_form(MomentumForm::Ema)},
      {"no decay", RootOptions(base).weight_decay(0)},
      {"another decay, ratio", RootOptions(base).adamw_weight_decay(0.5).adamw_lr_ratio(0.25)},
      {"AdamW", RootOptions(base).rule(Rule::AdamW)},
      {"all filtered", RootOptions(base).filter_place(FilterPlace::AllGradients)},
      {"momentum filtered", RootOptions(base).filter_place(FilterPlace::Momentum)},
      {"balanced", RootOptions(base).update_beta(0.5)},
      {"gate", RootOptions(base).gate(1.4)},
      {"warm-up", RootOptions(base).momentum_warmup(3)},
      {"quintics", RootOptions(base).orthogonalizer(
                       AdaNewton().iteration(Iteration::NewtonSchulz).form(Form::Gram))},
      {"Zero", RootOptions(base).non_finite(NonFinite::Zero)},
      {"Propagate", RootOptions(base).non_finite(NonFinite::Propagate)},
      {"Raise", RootOptions(base).non_finite(NonFinite::Raise)},
      {"SkipGroup", RootOptions(base).non_finite(NonFinite::SkipGroup)},
      {"all of a shape together", RootOptions(base).batch_bytes(int64_t{1} << 30)},
      {"lr 0", RootOptions(base).lr(0)}};
  for (const auto& [name, options] : cases) {
    INFO(name);
    Pair pair(all_shapes(), half, options);
    pair.train(0, 6);
    pair.check();
  }
}

TEST_CASE("masters in every layout", "[master_weights]") {
  for (const MatrixLayout& layout :
       {MatrixLayout().split_rows(3), MatrixLayout().split_rows({32, 8, 8}),
        MatrixLayout().out_dim(1), MatrixLayout().batch(true),
        MatrixLayout().split_rows(2).out_dim(1)}) {
    INFO(to_string(layout));
    Pair pair({values({48, 24, 8}, 1), values({48, 24, 8}, 2)}, at::kBFloat16,
              RootOptions(1e-3)
                  .rule(Rule::Orthogonalized)
                  .layout(layout)
                  .batch_bytes(GENERATE(int64_t{0}, int64_t{1} << 30)));
    pair.train(0, 3);
    pair.check();
  }
}

TEST_CASE("masters of parameters that are not contiguous", "[master_weights]") {
  const Rule rule = GENERATE(Rule::Orthogonalized, Rule::AdamW);
  const at::Tensor wide = values({24, 40}, 1);
  Pair pair({wide.t(), values({16, 8, 3, 3}, 2).to(at::MemoryFormat::ChannelsLast)}, at::kBFloat16,
            RootOptions(1e-3).rule(rule));
  const at::Tensor low = wide.to(at::kBFloat16), full = low.to(at::kFloat);  // with gaps
  pair.low.push_back(low.narrow(1, 4, 16).detach().requires_grad_(true));
  pair.full.push_back(full.narrow(1, 4, 16).detach().requires_grad_(true));
  pair.masters->add_param_group(Root::Group({pair.low.back()}));
  pair.plain->add_param_group(Root::Group({pair.full.back()}));
  pair.masters->options(1).master_weights(true).rule(rule);
  pair.plain->options(1).rule(rule);
  REQUIRE_FALSE(pair.low.back().is_contiguous());
  pair.train(0, 4);
  // The kernel of AdamW takes contiguous tensors alone, and the master is one where the parameter is not.
  for (size_t i = 0; i < pair.low.size(); ++i) {
    const at::Tensor master = pair.master(i);
    CHECK_THAT(master, test::close_to(pair.full[i].detach(),
                                      test::tolerance(test::Quantity::AdamWStep, at::kFloat)));
    CHECK_THAT(pair.low[i].detach(), same_as(master.to(at::kBFloat16)));
  }
  CHECK_THAT(low.narrow(1, 0, 4), same_as(wide.narrow(1, 0, 4).to(at::kBFloat16)));
}

namespace {

/// A linear layer with a norm behind it, fitted to another one: weight, bias and gain in any dtype, everything
/// else in float32.
struct Fit {
  explicit Fit(at::ScalarType dtype, const RootOptions& options)
      : start{values({32, 64}, 1).to(at::kBFloat16), values({32}, 2).to(at::kBFloat16),
              at::ones({32}, at::kBFloat16)} {
    for (const at::Tensor& value : start) parameters.push_back(parameter(value.to(dtype)));
    optimizer = std::make_unique<Root>(parameters, options);
  }

  static at::Tensor output(const Tensors& of, const at::Tensor& x) {
    const at::Tensor y = x.matmul(of[0].to(at::kFloat).t()) + of[1].to(at::kFloat);
    return y * y.square().mean(1, true).add(1e-5).rsqrt() * of[2].to(at::kFloat);
  }

  void step(int64_t t) {
    static const Tensors teacher{values({32, 64}, 3).to(at::kFloat), values({32}, 4).to(at::kFloat),
                                 test::gaussian({32}, 5).mul(0.5).add(1).to(at::kFloat)};
    const at::Tensor x = test::gaussian({16, 64}, 100 + static_cast<uint64_t>(t)).to(at::kFloat);
    optimizer->zero_grad();
    (output(parameters, x) - output(teacher, x)).square().mean().backward();
    optimizer->step();
  }

  Tensors start, parameters;
  std::unique_ptr<Root> optimizer;
};

}  // namespace

TEST_CASE("a bfloat16 run with masters follows the float32 run, one without stalls",
          "[master_weights]") {
  const RootOptions options(1e-4);
  Fit full(at::kFloat, options), without(at::kBFloat16, options),
      with(at::kBFloat16, RootOptions(options).master_weights(true));
  Tensors changed;
  for (const at::Tensor& p : without.parameters) changed.push_back(at::zeros_like(p, at::kBool));
  for (int64_t t = 1; t <= 300; ++t) {
    for (Fit* fit : {&full, &without, &with}) fit->step(t);
    for (size_t i = 0; i < 3; ++i) {
      changed[i].logical_or_(without.parameters[i].detach().ne(without.start[i]));
    }
  }
  for (size_t i = 0; i < 3; ++i) {
    const at::Tensor from = full.start[i].to(at::kFloat), to = full.parameters[i].detach();
    const auto distance = [&](const at::Tensor& w) {
      return ((w.detach().to(at::kFloat) - to).norm() / (to - from).norm()).item<double>();
    };
    const double master = distance(state_of(*with.optimizer, with.parameters[i]).master()),
                 rounded = distance(with.parameters[i]), lost = distance(without.parameters[i]),
                 share = changed[i].to(at::kFloat).mean().item<double>();
    INFO("parameter " << i << ": distances " << master << ", " << rounded << " and " << lost
                      << ", share " << share);
    // In units of the way that the float32 run went; measured for weight, bias and gain with LibTorch 2.13.0:
    CHECK(master < 0.01);                 // 8.5e-4, 3.4e-4, 6.9e-5
    CHECK(rounded < 0.07);                // .014, .008, .035: p is rounded to 8 bits
    CHECK(lost > 0.5);                    // .90, .84, 1
    CHECK(share < (i < 2 ? 0.6 : 0.01));  // of the entries ever changed: .20, .44, 0
  }
}

TEST_CASE("who writes the parameter wins, entry by entry", "[master_weights]") {
  const at::ScalarType half = GENERATE(at::kBFloat16, at::kHalf);
  const Rule rule = GENERATE(Rule::Orthogonalized, Rule::AdamW);
  Pair pair({values({16, 24}, 1), values({16, 24}, 2)}, half, RootOptions(1e-3).rule(rule));
  pair.train(0, 3);
  {
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < 2; ++i) {
      // Loads, averages and clippings write p; the same in float32, where p was changed alone.
      const at::Tensor before = pair.low[i].detach().clone();
      pair.low[i].copy_(
          pair.low[i].to(at::kFloat).clamp_(-0.06, 0.06));  // LibTorch 1 has none for float16
      pair.low[i][0].fill_(0.25);
      pair.low[i][1][2] = before[1][2];  // written, but nothing else
      const at::Tensor written = pair.low[i].ne(before);
      REQUIRE(written.any().item<bool>());
      REQUIRE_FALSE(written.all().item<bool>());
      pair.full[i].copy_(at::where(written, pair.low[i].to(at::kFloat), pair.full[i]));
    }
  }
  pair.train(3, 6);
  pair.check();

  // Away and back, as an average for an evaluation is: nothing is lost.
  {
    const at::NoGradGuard no_grad;
    const at::Tensor kept = pair.low[0].detach().clone();
    pair.low[0].zero_();
    pair.low[0].copy_(kept);
  }
  pair.train(6, 8);
  pair.check();
}

TEST_CASE("a skipped step changes neither the parameter nor its master", "[master_weights]") {
  const NonFinite policy = GENERATE(NonFinite::Skip, NonFinite::SkipGroup);
  const int64_t steps = GENERATE(0, 2);  // before; the first step also makes the master
  const float bad =
      GENERATE(std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity());
  Pair pair(all_shapes(), at::kBFloat16,
            RootOptions(1e-3).non_finite(policy).batch_bytes(int64_t{1} << 30));
  pair.train(0, steps);
  Tensors low, masters;
  for (const at::Tensor& p : pair.low) low.push_back(p.detach().clone());
  for (size_t i = 0; i < low.size(); ++i) {
    masters.push_back(steps > 0 && low[i].numel() > 0 ? pair.master(i).clone()
                                                      : low[i].to(at::kFloat));
  }
  pair.set_gradients(steps + 1);
  for (const size_t i :
       std::vector<size_t>{1, 4, 8}) {  // one of two alike, a vector, a small matrix
    pair.low[i].mutable_grad().flatten()[0] = bad;
    pair.full[i].mutable_grad().flatten()[0] = bad;
  }
  {
    const test::Warnings quiet;
    pair.masters->step();
    pair.plain->step();
  }
  pair.check();
  for (const size_t i : std::vector<size_t>{1, 4, 8}) {
    CHECK_THAT(pair.low[i].detach(), same_as(low[i]));
    CHECK_THAT(pair.master(i), same_as(masters[i]));
  }
  pair.train(steps + 1, steps + 3);
  pair.check();
}

TEST_CASE("a parameter that NaN has reached goes on from what is written", "[master_weights]") {
  Pair pair({values({16, 24}, 1), values({24}, 2)}, at::kBFloat16,
            RootOptions(1e-3).non_finite(NonFinite::Propagate));
  pair.train(0, 2);
  pair.set_gradients(3);
  for (const at::Tensor& p : pair.low) p.mutable_grad().fill_(std::nan(""));
  pair.masters->step();
  for (size_t i = 0; i < 2; ++i) {
    CHECK(pair.low[i].isnan().all().item<bool>());
    CHECK(pair.master(i).isnan().all().item<bool>());
    const at::NoGradGuard no_grad;
    pair.low[i].fill_(0.5);
    pair.masters->forget(pair.low[i]);  // the moments are NaN, too
  }
  pair.train(3, 4);
  for (size_t i = 0; i < 2; ++i) {
    CHECK(pair.low[i].isfinite().all().item<bool>());
    CHECK(pair.master(i).sub(0.5).abs().max().item<double>() < 0.01);
  }
}

TEST_CASE("the option on a parameter in float32 or float64 changes nothing", "[master_weights]") {
  const at::ScalarType dtype = GENERATE(at::kFloat, at::kDouble);
  Tensors with, without;
  for (const at::Tensor& value : all_shapes()) {
    with.push_back(parameter(value.to(dtype)));
    without.push_back(parameter(value.to(dtype)));
  }
  Root one(with, RootOptions(1e-3).master_weights(true)), two(without, RootOptions(1e-3));
  for (int64_t t = 1; t <= 3; ++t) {
    for (Tensors* all : {&with, &without}) {
      for (const at::Tensor& p : *all) {
        test::set_gradient(p, gradient_of(p.sizes(), t, at::kBFloat16));
      }
    }
    one.step();
    two.step();
  }
  for (size_t i = 0; i < with.size(); ++i) {
    CHECK_THAT(with[i].detach(), same_as(without[i].detach()));
    if (with[i].numel() > 0) CHECK_FALSE(state_of(one, with[i]).master().defined());
  }
}

TEST_CASE("masters turned on and off midway", "[master_weights]") {
  const Rule rule = GENERATE(Rule::Orthogonalized, Rule::AdamW);
  const at::Tensor value = values({16, 24}, 1).to(at::kBFloat16);
  const at::Tensor switched = parameter(value), never = parameter(value);
  const RootOptions options = RootOptions(1e-3).rule(rule);
  Root one(Tensors{switched}, options), two(Tensors{never}, options);
  const auto step = [](Root& root, const at::Tensor& p, int64_t t) {
    test::set_gradient(p, gradient_of(p.sizes(), t, at::kBFloat16));
    root.step();
  };
  for (int64_t t = 1; t <= 2; ++t) {
    step(one, switched, t);
    step(two, never, t);
  }
  CHECK_FALSE(state_of(one, switched).master().defined());
  // On: the master begins as the parameter, so that a step of this size goes into it, rounded or not.
  one.options(0).master_weights(true);
  step(one, switched, 3);
  step(two, never, 3);
  CHECK_THAT(switched.detach(),
             test::close_to(never.detach().to(at::kDouble),
                            test::tolerance(test::Quantity::OneRounding, at::kBFloat16)));
  CHECK_THAT(switched.detach(), same_as(state_of(one, switched).master().to(at::kBFloat16)));
  // Off: the master goes, and the step is that of the parameter.
  one.options(0).master_weights(false);
  {
    const at::NoGradGuard no_grad;
    never.copy_(switched);
  }
  step(one, switched, 4);
  step(two, never, 4);
  CHECK_FALSE(state_of(one, switched).master().defined());
  CHECK_THAT(switched.detach(), same_as(never.detach()));
}

TEST_CASE("masters are saved, and training goes on to the same bits", "[master_weights]") {
  const auto copies = [](const Tensors& of) {
    Tensors result;
    for (const at::Tensor& p : of) result.push_back(parameter(p.detach()));
    return result;
  };
  const RootOptions options = RootOptions(1e-3).names({"a", "b", "c"});
  Pair pair({values({16, 24}, 1), values({16, 24}, 2), values({24}, 3)}, at::kBFloat16, options);
  pair.train(0, 3);
  const std::string file = saved(*pair.masters);
  const Tensors at_save = copies(pair.low);
  pair.train(3, 5);
  const auto go_on = [](Root& root, const Tensors& parameters, int64_t first, int64_t last) {
    for (int64_t t = first + 1; t <= last; ++t) {
      for (const at::Tensor& p : parameters) {
        test::set_gradient(p, gradient_of(p.sizes(), t, at::kBFloat16));
      }
      root.step();
    }
  };
  for (const bool strict : {true, false}) {
    INFO((strict ? "strict" : "by name"));
    const Tensors again = copies(at_save);
    Root root(again, RootOptions(options).master_weights(true));
    load_from(root, file, LoadOptions().strict(strict));
    CHECK(saved(root) == file);
    go_on(root, again, 3, 5);
    for (size_t i = 0; i < 3; ++i) {
      CHECK_THAT(again[i].detach(), same_as(pair.low[i].detach()));
      CHECK_THAT(state_of(root, again[i]).master(), same_as(pair.master(i)));
    }
  }

  SECTION("the option is the code's: without it the file's masters go") {
    const Tensors again = copies(at_save);
    Root root(again, options);
    load_from(root, file);
    CHECK_FALSE(root.options(0).master_weights());
    go_on(root, again, 3, 4);
    CHECK_FALSE(state_of(root, again[0]).master().defined());
  }
  SECTION("with it, a file without masters begins them as the parameters") {
    const Tensors low = copies(at_save), again = copies(at_save);
    Root without(low, options), root(again, RootOptions(options).master_weights(true));
    go_on(without, low, 3, 4);
    load_from(root, saved(without));
    CHECK(root.options(0).master_weights());
    {
      const at::NoGradGuard no_grad;
      for (size_t i = 0; i < 3; ++i) again[i].copy_(low[i]);
    }
    const Tensors full{parameter(low[0].detach().to(at::kFloat)),
                       parameter(low[1].detach().to(at::kFloat)),
                       parameter(low[2].detach().to(at::kFloat))};
    Root plain(full, options);
    load_from(plain, saved(without));
    go_on(root, again, 4, 5);
    go_on(plain, full, 4, 5);
    for (size_t i = 0; i < 3; ++i) {
      CHECK_THAT(state_of(root, again[i]).master(), same_as(full[i].detach()));
    }
  }
  SECTION("a model in float32 takes a file with masters, and has none") {
    Tensors full;
    for (const at::Tensor& p : at_save) full.push_back(parameter(p.detach().to(at::kFloat)));
    Root root(full, RootOptions(options).master_weights(true));
    load_from(root, file);
    go_on(root, full, 3, 4);
    CHECK_FALSE(state_of(root, full[0]).master().defined());
  }
}

TEST_CASE("masters of parameters that change their dtype", "[master_weights]") {
  const Rule rule = GENERATE(Rule::Orthogonalized, Rule::AdamW);
  const at::ScalarType to = GENERATE(at::kFloat, at::kDouble, at::kHalf);
  const RootOptions options = RootOptions(1e-3).rule(rule);
  Pair pair({values({16, 24}, 1)}, at::kBFloat16, options);
  pair.train(0, 3);
  const at::Tensor low = pair.low[0];
  low.mutable_grad() = at::Tensor();
  low.set_data(low.detach().to(to));  // as Module::to
  pair.low[0].mutable_grad() = gradient_of({16, 24}, 4, at::kBFloat16).to(to);
  const at::Tensor old = pair.master(0).clone(), before = low.detach().clone();
  pair.masters->step();
  CHECK(low.isfinite().all().item<bool>());
  const at::Tensor master = pair.master(0);
  REQUIRE(master.defined() == (to == at::kHalf));
  if (!master.defined()) return;
  CHECK_THAT(low.detach(), same_as(master.to(to)));
  // Where the new rounding is another, the parameter is what counts.
  const at::Tensor start = current_weight(before, old);
  CHECK((master - start).abs().max().item<double>() < 4e-3);
}

TEST_CASE("a clone of a master, a forgotten one, one of another shape", "[master_weights]") {
  Pair pair({values({16, 24}, 1)}, at::kBFloat16, RootOptions(1e-3));
  pair.train(0, 2);
  ParamState& state = state_of(*pair.masters, pair.low[0]);
  const auto copy = state.clone();
  auto& clone = static_cast<ParamState&>(*copy);
  CHECK(clone == state);
  clone.master().add_(1);
  CHECK_FALSE(clone == state);
  pair.masters->release_workspace();
  pair.train(2, 3);
  pair.check();

  const at::Tensor before = pair.low[0].detach().clone();
  state.master(at::zeros({24, 16}));
  pair.set_gradients(4);
  CHECK_THROWS_WITH(pair.masters->step(), contains("expected state of the parameter's shape, got "
                                                   "[24, 16] as master"));
  CHECK_THAT(pair.low[0].detach(), same_as(before));
  pair.masters->forget(pair.low[0]);
  pair.masters->step();
  CHECK_THAT(pair.low[0].detach(), same_as(pair.master(0).to(at::kBFloat16)));
}

TEST_CASE("masters under capturable", "[master_weights]") {
  const Rule rule = GENERATE(Rule::Orthogonalized, Rule::AdamW);
  const auto options = RootOptions(1e-3).rule(rule).capturable(true);
  Pair pair({values({16, 24}, 1), values({24, 16}, 2)}, at::kBFloat16, options);
  pair.train(0, 2);
  pair.masters->options(0).set_lr(5e-4);
  pair.plain->options(0).set_lr(5e-4);
  pair.train(2, 4);
  pair.check();
}

TEST_CASE("the matrices of the coming step do not depend on masters", "[master_weights]") {
  Pair pair({values({16, 24}, 1)}, at::kBFloat16, RootOptions(1e-3));
  pair.train(0, 2);
  pair.set_gradients(3);
  const auto with = next_matrices(*pair.masters), without = next_matrices(*pair.plain);
  REQUIRE(with.size() == 1);
  REQUIRE(without.size() == 1);
  CHECK_THAT(with[0].body, same_as(without[0].body));
  CHECK_THAT(with[0].unsplit, same_as(without[0].unsplit));
  CHECK(pair.master(0).equal(pair.full[0]));  // and they change nothing
}
