// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What the peers' own tests ask of an optimizer, asked of ours: their cases and their bounds, as
// facts. Figures: docs/reliability.md, or this program with "[peer]" -s. Peers, as read:
//   PyTorch C++          pytorch/pytorch, test/cpp/api/optim.cpp and serialize.cpp
//   PyTorch Python       torch 2.13.0, test/test_optim.py with common_optimizers.py, for torch.optim.Muon
//   Emerging-Optimizers  NVIDIA-NeMo/Emerging-Optimizers fd77292, tests/test_orthogonalized_optimizer.py
// XOR is in tests/convergence. The bounds in this file are theirs, unless a row of tolerances.hpp is
// named. Their weights are small, so matrices are asked for by Rule::Orthogonalized.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>
#if __has_include(<torch/optim/schedulers/reduce_on_plateau_scheduler.h>)  // LibTorch 2
#include <torch/optim/schedulers/reduce_on_plateau_scheduler.h>            // not in 2.2's torch.h
#endif

#include <cmath>
#include <fstream>
#include <sstream>

#include "support/devices.hpp"
#include "support/golden.hpp"
#include "support/groups.hpp"
#include "support/optimizer_state.hpp"
#include "support/tolerances.hpp"
#include "support/training.hpp"

using namespace root_optim;
using test::contains;
using test::group;
using test::parameter;
using test::Quantity;
using test::set_gradient;
using test::state_of;
using test::tolerance;

namespace {

using Group = torch::optim::OptimizerParamGroup;
using Tensors = std::vector<at::Tensor>;

/// |actual - expected| <= atol + rtol |expected|, everywhere: the largest left side over right side.
double closeness(const at::Tensor& actual, const at::Tensor& expected, double rtol, double atol) {
  const at::Tensor e = expected.detach().to(at::kDouble);
  const at::Tensor error = (actual.detach().to(at::kDouble) - e).abs();
  return (error / (atol + rtol * e.abs())).max().item<double>();
}

template <class Optimizer>
typename Optimizer::Options matrices(double lr) {
  return typename Optimizer::Options(lr).rule(Rule::Orthogonalized);
}

at::Tensor ten() { return at::full({1}, 10.0); }

/// test_optim.py's problem: sum (W x + b)^2 with W [10, 5], whose strides may have holes.
struct Regression {
  explicit Regression(bool contiguous)
      : weight(contiguous ? test::gaussian({10, 5}, 701)
                          : test::gaussian({10, 5, 2}, 701).select(2, 0)),
        bias(contiguous ? test::gaussian({10}, 702) : test::gaussian({10, 2}, 702).select(1, 0)) {
    weight.set_requires_grad(true);
    bias.set_requires_grad(true);
  }
  at::Tensor loss() const { return (weight.mv(input) + bias).square().sum(); }
  at::Tensor backward(torch::optim::Optimizer& optimizer) const {
    optimizer.zero_grad();
    const at::Tensor value = loss();
    value.backward();
    return value;
  }

  at::Tensor weight, bias;
  at::Tensor input = test::gaussian({5}, 703);
};

/// What common_optimizers.py runs Muon with, and ROOT the same way.
template <class Options>
std::vector<std::pair<std::string, Options>> settings(Options defaults) {
  std::vector<std::pair<std::string, Options>> list{
      {"defaults", defaults},
      {"lr .01", Options(defaults).lr(0.01)},
      {"weight_decay .2", Options(defaults).weight_decay(0.2)},
      {"momentum .8", Options(defaults).momentum(0.8)}};
  return list;
}

std::vector<std::pair<std::string, MuonOptions>> muon_settings() {
  const MuonOptions defaults = MuonOptions().rule(Rule::Orthogonalized);
  auto list = settings(defaults);
  list.emplace_back("ns_steps 6", MuonOptions(defaults).orthogonalizer(NewtonSchulz().steps(6)));
  list.emplace_back("ns_coefficients (3.4, -4.7, 2)",
                    MuonOptions(defaults).orthogonalizer(
                        NewtonSchulz().coefficients(CoefficientSet::repeated({3.4, -4.7, 2.0}))));
  return list;
}

/// A policy that leaves its matrices alone.
struct Identity {
  static constexpr const char* name = "identity";
  at::Tensor operator()(const at::Tensor& x) const { return x; }
};
using Plain = OrthogonalizedOptimizer<NoFilter, Identity>;

Plain::Options plain_options(double lr) {
  return matrices<Plain>(lr).scale(LrScale::Unscaled).nesterov(false);
}

at::Tensor integers(at::IntArrayRef shape, uint64_t seed) {
  return at::randint(-5, 5, shape, at::detail::createCPUGenerator(seed), at::kFloat);
}

}  // namespace

// --- PyTorch C++, optim.cpp ----------------------------------------------------------------------

// ProducesPyTorchValues_AdamW, ..._AdamWWithoutWeightDecay: Python's trajectory, 1001 steps of lr 1
// on a 2-3-1 network in float64, sampled every 100, rtol 1e-3 and atol 5e-4. The rule has no amsgrad.
TEST_CASE("peer: AdamW's exact values", "[peer][adamw]") {
  std::ifstream file(test::golden_path("adamw.txt"));
  REQUIRE(file);
  std::string line;
  std::getline(file, line);
  REQUIRE_THAT(line, contains("torch 2.13.0"));
  int runs = 0, samples = 0;
  double weight_decay = 0;
  for (std::string word; file >> word && word == "weight_decay" && file >> weight_decay; ++runs) {
    INFO("weight decay " << weight_decay);
    Tensors network{
        parameter(at::tensor({-0.2109, -0.4976, -0.1413, -0.3420, -0.2524, 0.6976}, at::kDouble)
                      .reshape({3, 2})),
        parameter(at::tensor({-0.1085, -0.2979, 0.6892}, at::kDouble)),
        parameter(at::tensor({-0.0508, -0.3941, -0.2843}, at::kDouble).reshape({1, 3})),
        parameter(at::tensor({-0.0711}, at::kDouble))};
    Tensors linked;
    for (const at::Tensor& p : network) linked.push_back(parameter(p.detach()));
    const at::Tensor points =
        at::tensor({0.1, 0.2, 0.3, 0.4, 0.5, 0.6}, at::kDouble).reshape({3, 2});
    const auto backward = [&](const Tensors& p) {
      const at::Tensor hidden = at::sigmoid(at::linear(points, p[0], p[1]));
      at::sigmoid(at::linear(hidden, p[2], p[3])).sum().backward();
    };
    const auto flat = [](const Tensors& list) {
      Tensors parts;
      for (const at::Tensor& p : list) parts.push_back(p.detach().flatten());
      return at::cat(parts);
    };
    const auto betas = std::make_tuple(0.9, 0.999);
    Root ours(network, RootOptions(1.0).rule(Rule::AdamW).betas(betas).weight_decay(weight_decay));
    torch::optim::AdamW theirs(
        linked, torch::optim::AdamWOptions(1.0).betas(betas).weight_decay(weight_decay));
    for (int64_t t = 1; t <= 1001; ++t) {
      ours.zero_grad();
      theirs.zero_grad();
      backward(network);
      backward(linked);
      const at::Tensor returned = ours.step(ten);
      theirs.step();
      if (t % 100 != 1) continue;
      CHECK(returned.item<double>() == 10.0);
      ++samples;
      int64_t step = 0;
      REQUIRE((file >> word >> step && word == "step" && step == t));
      at::Tensor expected = at::empty({13}, at::kDouble);
      for (int64_t i = 0; i < 13; ++i) file >> expected.data_ptr<double>()[i];
      REQUIRE(file);
      INFO("step " << t << ": largest difference from Python's AdamW "
                   << (flat(network) - expected).abs().max().item<double>()
                   << ", from the linked torch::optim::AdamW "
                   << (flat(network) - flat(linked)).abs().max().item<double>());
      CHECK(closeness(flat(network), expected, 1e-3, 5e-4) <= 1);
      CHECK(closeness(flat(network), flat(linked), 1e-3, 5e-4) <= 1);
    }
  }
  CHECK(runs == 2);
  CHECK(samples == 22);
}

// OptimizerAccessors.
TEST_CASE("peer: defaults, groups and state are accessible", "[peer][optimizer]") {
  const Tensors p{parameter({10}, 711), parameter({10}, 712), parameter({10}, 713)};
  Root root(p, RootOptions(1.0));
  CHECK((static_cast<RootOptions&>(root.defaults()) == RootOptions(1.0)));
  REQUIRE(root.param_groups().size() == 1);
  auto& listed = root.param_groups()[0].params();
  REQUIRE(listed.size() == 3);
  for (size_t i = 0; i < 3; ++i) CHECK(listed[i].is_same(p[i]));
  CHECK_THROWS_WITH(root.add_param_group(Group(p)),
                    contains("expected every parameter in one group only"));
  set_gradient(p[0], at::ones({10}));
  root.step();
  ParamState& state = state_of(root, p[0]);
  state.step(state.step() + 1);
  CHECK(state.step() == 2);
  const Root& constant = root;
  CHECK(constant.param_groups().size() == 1);
  CHECK(constant.state().size() == 1);
  CHECK((static_cast<const RootOptions&>(constant.defaults()) == RootOptions(1.0)));
}

// OldInterface and AddParameter_LBFGS: parameters added through the interface that LibTorch means to
// remove are optimized. The closure returns 1.
TEST_CASE("peer: the old interface adds parameters", "[peer][optimizer]") {
  const Tensors p{parameter({5, 5}, 714), parameter({2, 3}, 715)};
  const at::Tensor before = p[0].detach().clone();
  Root root(Tensors{}, matrices<Root>(1.0));
  CHECK(root.size() == 0);
  root.add_parameters(p);
  CHECK(root.size() == 2);
  CHECK(root.parameters()[1].is_same(p[1]));
  for (const at::Tensor& tensor : p) set_gradient(tensor, at::ones_like(tensor));
  CHECK_NOTHROW(root.step([] { return at::ones({1}); }));
  CHECK(closeness(p[0], before, 0, 1e-3) > 1);
  torch::nn::Linear linear(3, 4);
  CHECK(Root(linear->parameters()).size() == 2);
}

// ZeroGrad; that it runs under every constructor is in test_optimizer.cpp.
TEST_CASE("peer: zero_grad forgets gradients", "[peer][optimizer]") {
  torch::nn::Linear model(2, 8);
  Root root(model->parameters(), RootOptions(0.1));
  for (const at::Tensor& p : model->parameters()) CHECK_FALSE(p.grad().defined());
  model->forward(at::ones({5, 2})).sum().backward();
  for (const at::Tensor& p : model->parameters()) {
    REQUIRE(p.grad().defined());
    CHECK(p.grad().sum().item<double>() > 0);
  }
  root.zero_grad();
  for (const at::Tensor& p : model->parameters()) {
    // Undefined from LibTorch 2.0 on, zero before.
    CHECK((!p.grad().defined() || p.grad().abs().sum().item<double>() == 0));
  }
}

// ExternalVectorOfParameters: gradients of one. SGD moves every entry by lr = 1 (allclose: rtol 1e-5,
// atol 1e-8), and so does AdamW's first step; a matrix of equal entries stays one, as its polar
// factor is ones / n: lr s / n times what the steps make of the singular value 1.
TEST_CASE("peer: tensors that the caller owns", "[peer][optimizer]") {
  const auto moved = [](auto make) {
    Tensors p{test::gaussian({2, 2}, 716), test::gaussian({3, 3}, 717),
              test::gaussian({4, 4}, 718)};
    Tensors before;
    for (at::Tensor& tensor : p) {
      before.push_back(tensor.clone());
      tensor.mutable_grad() = at::ones_like(tensor);
    }
    auto optimizer = make(p);
    optimizer.step();
    for (size_t i = 0; i < p.size(); ++i) before[i] -= p[i];
    return before;
  };
  const Tensors by_adamw = moved(
      [](const Tensors& p) { return Root(p, RootOptions(1.0).rule(Rule::AdamW).weight_decay(0)); });
  for (const at::Tensor& change : by_adamw) {
    CHECK(closeness(change, at::ones_like(change), 1e-5, 1e-8) <= 1);
  }
  const Tensors by_muon = moved([](const Tensors& p) {
    return Muon(p, matrices<Muon>(1.0).weight_decay(0).scale(LrScale::Unscaled));
  });
  double image = 1;  // of the singular value 1, the only one
  for (const auto& [a, b, c] : CoefficientSet::jordan().quintics(2, 2, 5)) {
    image = a * image + b * std::pow(image, 3) + c * std::pow(image, 5);
  }
  for (const at::Tensor& change : by_muon) {
    const double n = static_cast<double>(change.size(0));
    CHECK(closeness(change, at::full_like(change, image / n), 1e-5, 1e-8) <= 1);
  }
}

// CheckLRChange_StepLR_Adam, CheckLRChange_ReduceLROnPlateau_Adam: 1e-3 in epoch 1, half of it in
// epoch 25, to the last bit but one.
TEST_CASE("peer: schedulers halve the learning rate", "[peer][scheduler]") {
  const auto check = [](Root& root, auto step_scheduler) {
    for (int epoch = 0; epoch <= 25; ++epoch) {
      const double lr = root.param_groups()[0].options().get_lr();
      const double eps = std::numeric_limits<double>::epsilon();
      if (epoch == 1) CHECK(std::abs(lr - 1e-3) < eps);
      if (epoch == 25) CHECK(std::abs(lr - 5e-4) < eps);
      root.step();
      step_scheduler();
    }
  };
  Root by_step({parameter(at::zeros({1}))}, RootOptions(1e-3));
  torch::optim::StepLR step_lr(by_step, /*step_size=*/20, /*gamma=*/0.5);
  check(by_step, [&] { step_lr.step(); });
#if __has_include(<torch/optim/schedulers/reduce_on_plateau_scheduler.h>)  // LibTorch 2
  using Plateau = torch::optim::ReduceLROnPlateauScheduler;
  Root by_plateau({parameter(at::zeros({1}))}, RootOptions(1e-3));
  Plateau plateau(by_plateau, Plateau::SchedulerMode::min, 0.5F, /*patience=*/20);
  check(by_plateau, [&] { plateau.step(5.0F); });
#endif
}

// MergeWithDefaultOptions_NoOptionsInheritance. The tests that merge field by field (LibTorch >= 2.10,
// its own types only) do not apply: here a group's options are complete.
TEST_CASE("peer: groups without options take all defaults", "[peer][optimizer]") {
  const auto defaults = MuonOptions(0.005)
                            .betas(std::make_tuple(0.85, 0.95))
                            .eps(1e-7)
                            .weight_decay(0.08)
                            .momentum(0.7);
  Muon muon({Group({parameter({2, 2}, 719)}), Group({parameter({3, 3}, 720)})}, defaults);
  REQUIRE(muon.param_groups().size() == 2);
  for (auto& g : muon.param_groups()) {
    CHECK((static_cast<const MuonOptions&>(g.options()) == defaults));
  }
}

// --- PyTorch C++, serialize.cpp ------------------------------------------------------------------

namespace {

/// test_serialize_optimizer: three copies of Linear(5, 2). Two steps of the first; one step each of
/// two optimizers of the second; one step, save, load, one step of the third. (Theirs is the sum of
/// outputs for inputs of one: AdamW and a matrix of rank 1 would take the same steps without state.)
template <class Optimizer>
void check_serialization(const typename Optimizer::Options& options, bool bias) {
  using torch::nn::Linear;
  const auto shape = torch::nn::LinearOptions(5, 2).bias(bias);
  const size_t count = bias ? 2 : 1;
  Linear first(shape), second(shape), third(shape);
  const auto copy_first_to = [&](const Linear& model) {
    at::NoGradGuard no_grad;
    const Tensors from = first->parameters(), to = model->parameters();
    for (size_t i = 0; i < count; ++i) at::Tensor(to[i]).copy_(from[i]);
  };
  copy_first_to(second);
  copy_first_to(third);
  Optimizer one(std::vector<Group>{Group(first->parameters())}, options);
  Optimizer two(second->parameters(), options), two_again(second->parameters(), options);
  Optimizer three(third->parameters(), options), three_again(third->parameters(), options);
  const at::Tensor x = test::gaussian({10, 5}, 724).to(at::kFloat);
  const auto step = [&](torch::optim::Optimizer& optimizer, Linear& model) {
    optimizer.zero_grad();
    model->forward(x).square().sum().backward();
    CHECK(optimizer.step(ten).template item<double>() == 10.0);
  };
  step(one, first);
  step(one, first);
  step(two, second);
  step(two_again, second);
  step(three, third);
  std::stringstream file;
  torch::save(three, file);
  torch::load(three_again, file);

  REQUIRE(three_again.param_groups().size() == 1);
  REQUIRE(three_again.state().size() == count);
  REQUIRE(three.state().size() == count);
  CHECK((three_again.options(0) == three.options(0)));
  for (const at::Tensor& p : third->parameters()) {
    CHECK((state_of(three_again, p) == state_of(three, p)));
  }
  step(three_again, third);
  const Tensors a = first->parameters(), b = second->parameters(), c = third->parameters();
  for (size_t i = 0; i < count; ++i) {
    CHECK_THAT(c[i], test::same_as(a[i]));  // theirs: equal norms
    CHECK(a[i].norm().template item<float>() != b[i].norm().template item<float>());
  }
}

}  // namespace

// Optim_SGD with its momentum, Optim_AdamW with its lr .99999 and betas (.999, .1).
TEST_CASE("peer: a loaded optimizer goes on like the saved one", "[peer][checkpoint]") {
  check_serialization<Root>(matrices<Root>(0.1).momentum(0.9), /*bias=*/false);
  check_serialization<Muon>(matrices<Muon>(0.1).momentum(0.9), /*bias=*/false);
  check_serialization<Root>(
      RootOptions(0.99999).betas(std::make_tuple(0.999, 0.1)).rule(Rule::AdamW), /*bias=*/true);
}

// SerializationShouldPreserveIteration_SGD: two steps, saved and loaded, are two steps.
TEST_CASE("peer: the number of steps is saved", "[peer][checkpoint]") {
  const Tensors p{parameter({2, 2}, 721), parameter({3, 3}, 722)};
  Root root(p, matrices<Root>(1.0)), loaded(p, matrices<Root>(1.0));
  test::train(root, p, 0, 2);
  CHECK(loaded.state().empty());
  std::stringstream file;
  torch::save(root, file);
  torch::load(loaded, file);
  for (const at::Tensor& tensor : p) {
    CHECK(state_of(root, tensor).step() == 2);
    CHECK(state_of(loaded, tensor).step() == 2);
  }
}

// The "bc compatibility check" of Optim_AdamW reads the archive of PyTorch before 1.5. It is another
// optimizer's: refused, and nothing has changed.
TEST_CASE("peer: an archive in LibTorch's old format is refused", "[peer][checkpoint][errors]") {
  const at::Tensor p = parameter({5, 2}, 723);
  Root root({p}, matrices<Root>(0.1));
  test::train(root, {p}, 0, 1);
  std::stringstream before, old, after;
  torch::save(root, before);
  torch::serialize::OutputArchive archive;
  archive.write("step_buffers/size", at::scalar_tensor(1, at::kLong));
  archive.write("step_buffers/0", at::scalar_tensor(1, at::kLong), /*is_buffer=*/true);
  for (const std::string name : {"exp_average_buffers", "exp_average_sq_buffers"}) {
    archive.write(name + "/size", at::scalar_tensor(1, at::kLong));
    archive.write(name + "/0", at::ones({5, 2}), /*is_buffer=*/true);
  }
  archive.save_to(old);
  std::stringstream again(old.str());
  CHECK_THROWS_AS(torch::load(root, old), c10::Error);
  CHECK_THROWS_AS(root_optim::load(root, again), c10::Error);
  torch::save(root, after);
  CHECK(before.str() == after.str());
}

// --- PyTorch Python, test_optim.py for torch.optim.Muon ------------------------------------------

// What optim_inputs_func_muon lists, against torch.optim.Muon itself: as shipped, and with its
// iteration in float32 (tests/golden/generate.py; bounds and their reasons: tolerances.hpp).
TEST_CASE("peer: torch.optim.Muon's trajectory at its own test's settings", "[peer][muon]") {
  const test::GoldenFile file("muon_inputs.txt");
  CHECK(file.trajectories.size() == 12);  // six settings, two dtypes
  for (const test::Trajectory& trajectory : file.trajectories) {
    const bool in_bfloat16 = trajectory.options.at("compute") == "bfloat16";
    const auto recorded = in_bfloat16 ? at::kBFloat16 : at::kFloat;
    const test::GoldenInputs& inputs = file.inputs.at(trajectory.inputs);
    const Quintic triple{trajectory.number("a"), trajectory.number("b"), trajectory.number("c")};
    const auto options =
        matrices<Muon>(trajectory.number("lr"))
            .weight_decay(trajectory.number("weight_decay"))
            .momentum(trajectory.number("momentum"))
            .orthogonalizer(NewtonSchulz()
                                .coefficients(CoefficientSet::repeated(triple))
                                .steps(static_cast<int64_t>(trajectory.number("steps"))));
    const at::Tensor p = parameter(inputs.parameter.to(at::kFloat));
    Muon muon({p}, options);
    for (size_t t = 1; t <= inputs.gradients.size(); ++t) {
      set_gradient(p, inputs.gradients[t - 1]);
      muon.step();
      const auto sample = trajectory.samples.find(static_cast<int64_t>(t));
      if (sample == trajectory.samples.end()) continue;
      const double step_length = options.lr() * lr_scale(options.scale(), 10, 5);
      const auto bound = tolerance(Quantity::GoldenMuon, recorded);
      const double error = (p.detach().to(at::kDouble) - sample->second).abs().max().item<double>();
      INFO(trajectory.name << ", step " << t << ": error over lr s " << error / step_length);
      CHECK(error <= bound.bound * step_length * std::sqrt(static_cast<double>(t)));
    }
  }
}

// test_forloop_goes_right_direction: twenty steps, with and without a scheduler, dense and strided.
TEST_CASE("peer: twenty steps go in the right direction", "[peer][optimizer]") {
  const bool contiguous = GENERATE(true, false), scheduled = GENERATE(false, true);
  const auto check = [&](const std::string& name, auto make) {
    const Regression problem(contiguous);
    auto optimizer = make(problem);
    torch::optim::StepLR scheduler(optimizer, /*step_size=*/10, /*gamma=*/0.9);
    const double start = problem.backward(optimizer).template item<double>();
    for (int t = 0; t < 20; ++t) {
      problem.backward(optimizer);
      optimizer.step();
      if (scheduled) scheduler.step();
    }
    INFO(name << (contiguous ? "" : ", strided") << (scheduled ? ", scheduled" : ""));
    CHECK(problem.backward(optimizer).template item<double>() < start);
  };
  for (const auto& [name, options] : muon_settings()) {
    check("Muon, " + name, [&o = options](const Regression& p) { return Muon({p.weight}, o); });
  }
  const auto rule = Rule::Orthogonalized;
  for (const auto& [name, options] : settings(RootOptions().rule(rule))) {
    check("Root, " + name, [&o = options](const Regression& p) { return Root({p.weight}, o); });
  }
  for (const auto& [name, options] : settings(RootOptions().rule(Rule::AdamW))) {
    check("AdamW, " + name, [&o = options](const Regression& p) {
      return Root({p.weight, p.bias}, o);
    });
  }
}

// test_param_groups_weight_decay, test_param_group_with_lrscheduler_goes_right_direction: the weight
// and the bias in groups of their own, with their own weight decay or learning rate.
TEST_CASE("peer: two groups go in the right direction", "[peer][optimizer]") {
  const auto check = [](const RootOptions& bias_options) {
    const Regression problem(true);
    Root root(std::vector<Group>{Group({problem.weight}), group({problem.bias}, bias_options)},
              RootOptions().rule(Rule::Auto));
    torch::optim::StepLR scheduler(root, /*step_size=*/10, /*gamma=*/0.9);
    const double start = problem.backward(root).item<double>();
    for (int t = 0; t < 20; ++t) {
      root.step([&] { return problem.backward(root); });
      scheduler.step();
    }
    CHECK(problem.loss().item<double>() < start);
  };
  check(RootOptions().weight_decay(0));
  check(RootOptions(0.01));
}

// test_step_is_noop_when_params_have_no_grad (2 x 3, not differentiable), test_step_is_noop_for_
// zero_grads (5 x 1, without weight decay): not one bit changes.
TEST_CASE("peer: a step without a gradient, or with zero, is none", "[peer][optimizer]") {
  const auto one = [] { return at::ones({1}); };
  const Tensors without{test::gaussian({2, 3}, 731), test::gaussian({2, 3}, 732)};
  const at::Tensor with = parameter({5, 1}, 733);
  const at::Tensor first = without[0].clone(), second = without[1].clone();
  const at::Tensor third = with.detach().clone();
  const auto check = [&](auto optimizer_type, const auto& options) {
    using Optimizer = typename decltype(optimizer_type)::type;
    Optimizer untouched(without, options);
    CHECK(untouched.step(one).template item<double>() == 1.0);
    auto no_decay = options;
    Optimizer zero({with}, no_decay.weight_decay(0));
    with.mutable_grad() = at::zeros_like(with);
    for (int t = 0; t < 3; ++t) zero.step(one);
  };
  struct MuonType {
    using type = Muon;
  };
  struct RootType {
    using type = Root;
  };
  for (const auto& setting : muon_settings()) check(MuonType(), setting.second);
  for (const Rule rule : {Rule::Orthogonalized, Rule::AdamW}) {
    for (const auto& setting : settings(RootOptions().rule(rule)))
      check(RootType(), setting.second);
  }
  CHECK_THAT(without[0], test::same_as(first));
  CHECK_THAT(without[1], test::same_as(second));
  CHECK_THAT(with, test::same_as(third));
}

// optim_error_inputs_func_muon, the errors that all optimizers share, and the checks of
// torch/optim/_muon.py. Not errors here: a tensor twice in one list (a warning there, counts once
// here), a parameter of rank 3 (flattened). Not possible in C++: a learning rate that is a tensor of
// two elements, parameters that are no list, two or four coefficients, a gradient of another rank.
TEST_CASE("peer: what torch.optim.Muon refuses", "[peer][errors]") {
  const at::Tensor p = parameter({2, 3}, 741);
  const auto refused = [&](const MuonOptions& options, const std::string& message) {
    CHECK_THROWS_WITH(Muon({p}, options), contains(message));
  };
  refused(MuonOptions(-1e-3), "expected lr to be finite in float32 and >= 0, got -0.001");
  refused(MuonOptions().momentum(-0.5), "expected 0 <= momentum < 1, got -0.5");
  refused(MuonOptions().weight_decay(-0.1),
          "expected weight_decay to be finite in float32 and >= 0, got -0.1");
  refused(MuonOptions().scale(static_cast<LrScale>(99)), "expected scale");
  refused(MuonOptions().orthogonalizer(NewtonSchulz().steps(100)), "got 100");
  CHECK_THROWS_WITH(Muon({at::ones({2, 3}, at::kComplexFloat)}), contains("of dtype ComplexFloat"));
  CHECK_THROWS_WITH(Muon({parameter({3}, 742)}, matrices<Muon>(1e-3)),
                    contains("expected rank >= 2 under Rule::Orthogonalized"));
  CHECK_THROWS_WITH(Muon({Group({p}), Group({p})}), contains("in an earlier group too"));
  CHECK(Muon({p, p}).param_groups()[0].params().size() == 1);

  const at::Tensor sparse = parameter({2, 3}, 743);
  sparse.mutable_grad() = at::ones({2, 3}, at::kDouble).to_sparse();
  Muon with_sparse({sparse}, matrices<Muon>(1e-3));
  CHECK_THROWS_WITH(with_sparse.step(), contains("expected a strided gradient, got layout Sparse"));

  const at::Tensor cube = parameter({2, 3, 4}, 744);
  const at::Tensor before = cube.detach().clone();
  Muon with_cube({cube}, matrices<Muon>(1e-3));
  set_gradient(cube, before);
  CHECK_NOTHROW(with_cube.step());
  CHECK_FALSE(at::equal(cube.detach(), before));
}

// --- Emerging-Optimizers -------------------------------------------------------------------------

// OrthogonalizedOptimizerTest.test_orthogonalized_optimizer_core_matches_sgd and ..._with_momentum:
// without the orthogonalizer, the optimizer is SGD bit by bit on integers. EMA momentum of lr 2 and
// 1/2 is SGD's of lr 1 and 1/2.
TEST_CASE("peer: without its policies the optimizer is SGD", "[peer][optimizer]") {
  const std::vector<std::vector<int64_t>> shapes{{5, 7}, {33, 65}, {127, 257}};
  for (const auto& shape : shapes) {
    INFO(c10::IntArrayRef(shape));
    const auto compare = [&](const Plain::Options& options,
                             const torch::optim::SGDOptions& sgd_options, int steps) {
      const at::Tensor ours = parameter(integers(shape, 751));
      const at::Tensor theirs = parameter(ours.detach());
      Plain plain({ours}, options);
      torch::optim::SGD sgd({theirs}, sgd_options);
      for (int t = 0; t < steps; ++t) {
        const at::Tensor gradient = integers(shape, static_cast<uint64_t>(752 + t));
        set_gradient(ours, gradient);
        set_gradient(theirs, gradient);
        plain.step();
        sgd.step();
      }
      CHECK_THAT(ours, test::same_as(theirs));
    };
    compare(plain_options(2).momentum(0).weight_decay(0.5),
            torch::optim::SGDOptions(2).weight_decay(0.5), 1);
    compare(plain_options(2).momentum(0.5).momentum_form(MomentumForm::Ema).weight_decay(0),
            torch::optim::SGDOptions(1).momentum(0.5), 5);
    compare(plain_options(1).momentum(0.5).momentum_form(MomentumForm::Sum).weight_decay(0),
            torch::optim::SGDOptions(1).momentum(0.5), 5);
  }
}

// OrthogonalizedOptimizerTest.test_smoke, MuonTest.test_smoke: odd shapes, integers, every precision
// of products; theirs only run, ours must also stay finite and move.
TEST_CASE("peer: odd shapes in every precision", "[peer][optimizer]") {
  const std::vector<std::vector<int64_t>> shapes{{5, 7}, {33, 65}, {127, 257}};
  for (const auto& shape : shapes) {
    for (const bool nesterov : {false, true}) {
      for (const at::ScalarType compute : {at::kDouble, at::kFloat, at::kBFloat16}) {
        if (compute == at::kBFloat16 && !test::bfloat16_products_hold(at::kCPU)) continue;
        INFO(c10::IntArrayRef(shape) << ", nesterov " << nesterov << ", " << compute);
        const at::Tensor p = parameter(integers(shape, 761));
        const at::Tensor before = p.detach().clone();
        set_gradient(p, integers(shape, 762));
        Muon muon({p},
                  matrices<Muon>(2).momentum(0).weight_decay(0.5).nesterov(nesterov).orthogonalizer(
                      NewtonSchulz().compute_dtype(compute)));
        muon.step();
        CHECK(p.isfinite().all().item<bool>());
        CHECK_FALSE(at::equal(p.detach(), before));
      }
    }
  }
}

// MuonTest.test_use_independent_wd with the decay that this library has: lr 0 decays nothing, and a
// zero gradient leaves (1 - lr lambda) p, exactly for powers of two.
TEST_CASE("peer: weight decay is decoupled", "[peer][optimizer]") {
  const at::Tensor start = integers({32, 32}, 763);
  const auto after = [&](double lr, const at::Tensor& gradient) {
    const at::Tensor p = parameter(start);
    Muon muon({p}, matrices<Muon>(lr).momentum(0).weight_decay(0.25));
    set_gradient(p, gradient);
    muon.step();
    return p.detach();
  };
  CHECK_THAT(after(0, integers({32, 32}, 764)), test::same_as(start));
  CHECK_THAT(after(0.5, at::zeros({32, 32})), test::same_as(start * 0.875));
}
