// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The optimizer as a citizen of LibTorch: constructors, groups, state, learning-rate schedulers,
// closures, dtypes, strides, layouts, converted models. What a step computes is in
// test_reference.cpp, errors are in test_optimizer_errors.cpp.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include "support/devices.hpp"
#include "support/groups.hpp"
#include "support/optimizer_state.hpp"
#include "support/tolerances.hpp"
#include "support/training.hpp"

using namespace root_optim;
using test::group;
using test::on;
using test::parameter;
using test::Quantity;
using test::set_gradient;
using test::state_of;
using test::tolerance;
using test::train;

namespace {

using Group = torch::optim::OptimizerParamGroup;

bool has_state(torch::optim::Optimizer& optimizer, const at::Tensor& p) {
  return optimizer.state().find(root_optim::detail::state_key(p)) != optimizer.state().end();
}

/// The values of a parameter after `steps` steps of an optimizer of its own.
template <class Optimizer = Root>
at::Tensor trained(const at::Tensor& start, const typename Optimizer::Options& options,
                   int64_t steps = 3) {
  const at::Tensor p = parameter(start);
  Optimizer optimizer({p}, options);
  train(optimizer, {p}, 0, steps);
  return p.detach();
}

const at::Tensor kMatrix = test::gaussian({16, 24}, 81);

}  // namespace

// --- constructors
// ------------------------------------------------------------------------------------

TEST_CASE("every constructor form of torch::optim::AdamW works", "[optimizer][constructors]") {
  torch::nn::Linear module(24, 16);
  const at::Tensor a = parameter(kMatrix), b = parameter(kMatrix);
  const auto lr_of = [](torch::optim::Optimizer& o) {
    return o.param_groups()[0].options().get_lr();
  };

  Root from_module(module->parameters());
  CHECK(from_module.param_groups()[0].params().size() == 2);
  Root from_module_and_options(module->parameters(), RootOptions(0.5));
  CHECK(lr_of(from_module_and_options) == 0.5);
  Root from_list({a, b});
  CHECK(lr_of(from_list) == 1e-3);
  Root from_list_and_number({a, b}, 0.25);  // options convert from a learning rate
  CHECK(lr_of(from_list_and_number) == 0.25);
  Root from_groups({Group({a}), Group({b})}, RootOptions(0.125));
  CHECK(from_groups.param_groups().size() == 2);
  CHECK(lr_of(from_groups) == 0.125);
  const std::vector<Group> groups{Group({a}), group({b}, RootOptions(0.75))};
  Root from_const_groups(groups);
  CHECK(from_const_groups.options(1).lr() == 0.75);
  const std::unique_ptr<torch::optim::Optimizer> base =
      std::make_unique<Muon>(std::vector<at::Tensor>{a});
  CHECK(lr_of(*base) == 1e-3);
  Root empty(std::vector<at::Tensor>{});
  CHECK_NOTHROW(empty.step());
}

// --- groups
// ------------------------------------------------------------------------------------------

TEST_CASE("groups keep their complete options", "[optimizer][groups]") {
  // LibTorch >= 2.10 replaces the options of groups of types that it does not know.
  const at::Tensor a = parameter(kMatrix), b = parameter(kMatrix), c = parameter(kMatrix);
  const auto special = RootOptions(0.5)
                           .momentum(0.5)
                           .weight_decay(0.25)
                           .nesterov(false)
                           .filter(SoftThreshold().quantile(0.5))
                           .orthogonalizer(AdaNewton().steps(7))
                           .rule(Rule::Orthogonalized)
                           .layout(MatrixLayout().split_rows(2))
                           .names({"b"});
  // A group that states the constructor's defaults keeps them, too: nothing is merged.
  Root root({Group({a}), group({b}, special), group({c}, RootOptions())},
            RootOptions(0.125).weight_decay(0));
  CHECK((root.options(0) == RootOptions(0.125).weight_decay(0)));
  CHECK((root.options(1) == special));
  CHECK((root.options(2) == RootOptions()));

  train(root, {a, b, c}, 0, 3);
  CHECK_THAT(a, test::same_as(trained(kMatrix, RootOptions(0.125).weight_decay(0))));
  CHECK_THAT(b, test::same_as(trained(kMatrix, RootOptions(special).names({}))));
  CHECK_THAT(c, test::same_as(trained(kMatrix, RootOptions())));
}

TEST_CASE("a group can be added later", "[optimizer][groups]") {
  const at::Tensor a = parameter(kMatrix), b = parameter(kMatrix);
  Root root({a}, RootOptions(0.125));
  train(root, {a}, 0, 2);
  root.add_param_group(group({b}, RootOptions(0.5)));
  CHECK(root.options(1).lr() == 0.5);
  const at::Tensor gradient = test::gradient_of(b.sizes(), 1);
  set_gradient(b, gradient);
  a.mutable_grad() = at::Tensor();
  root.step();
  CHECK_THAT(b, test::same_as(trained(kMatrix, RootOptions(0.5), 1)));
  CHECK_THAT(a, test::same_as(trained(kMatrix, RootOptions(0.125), 2)));
}

TEST_CASE("a group added through torch::optim::Optimizer& is refused",
          "[optimizer][groups][errors]") {
  const at::Tensor a = parameter(kMatrix), b = parameter(kMatrix);
  Root root({a});
  torch::optim::Optimizer& base = root;
  base.add_param_group(group({b}, RootOptions(0.5)));
  set_gradient(a, kMatrix);
  CHECK_THROWS_WITH(
      root.step(),
      test::contains("expected the 1 groups added through this optimizer's own "
                     "add_param_group, got 2; a group added through torch::optim::Optimizer&"));
  CHECK_THAT(a, test::same_as(kMatrix));
}

TEST_CASE("the same tensor twice in one list counts once", "[optimizer][groups]") {
  const at::Tensor tied = parameter(kMatrix), other = parameter(kMatrix);
  Root root({tied, other, tied});
  CHECK(root.param_groups()[0].params().size() == 2);
  train(root, {tied, other}, 0, 2);
  CHECK_THAT(tied, test::same_as(trained(kMatrix, RootOptions(), 2)));

  Root named({group({tied, other, tied}, RootOptions().names({"head", "w", "embedding"}))});
  CHECK(named.options(0).names() == std::vector<std::string>{"head", "w"});
}

// --- routing of flat lists
// ---------------------------------------------------------------------------

TEST_CASE("Auto takes matrices of rank >= 2 that suit and leaves the rest to AdamW",
          "[optimizer][rule]") {
  const auto goes_to_matrix_rule = [](at::IntArrayRef shape, Rule rule = Rule::Auto) {
    const at::Tensor p = parameter(shape, 82);
    Root root({p}, RootOptions().rule(rule));
    train(root, {p}, 0, 1);
    const ParamState& state = state_of(root, p);
    CHECK(state.momentum_buffer().defined() != state.exp_avg().defined());
    CHECK(state.exp_avg().defined() == state.exp_avg_sq().defined());
    return state.momentum_buffer().defined();
  };
  CHECK(goes_to_matrix_rule({16, 24}));
  CHECK(goes_to_matrix_rule({8, 8}));
  CHECK(goes_to_matrix_rule({16, 4, 3, 3}));
  CHECK(goes_to_matrix_rule({8, 2048}));
  CHECK_FALSE(goes_to_matrix_rule({24}));
  CHECK_FALSE(goes_to_matrix_rule({}));
  CHECK_FALSE(goes_to_matrix_rule({7, 24}));
  CHECK_FALSE(goes_to_matrix_rule({8, 2049}));      // aspect > 256
  CHECK_FALSE(goes_to_matrix_rule({16, 1, 5, 5}));  // a depthwise kernel
  // The explicit rules override the shape.
  CHECK(goes_to_matrix_rule({2, 3}, Rule::Orthogonalized));
  CHECK(goes_to_matrix_rule({16, 1, 5, 5}, Rule::Orthogonalized));
  CHECK_FALSE(goes_to_matrix_rule({16, 24}, Rule::AdamW));
}

// --- layouts
// -----------------------------------------------------------------------------------------

TEST_CASE("split blocks are matrices of their own", "[optimizer][layout]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::Tensor fused = parameter(test::gaussian({32, 12}, 83).to(device));
  const auto check = [&](const MatrixLayout& layout, const std::vector<int64_t>& sizes) {
    const at::Tensor p = parameter(fused.detach());
    Root root({p}, RootOptions().layout(layout));
    std::vector<at::Tensor> parts;
    for (const at::Tensor& part : fused.detach().split_with_sizes(sizes)) {
      parts.push_back(parameter(part.contiguous()));
    }
    Root separate(parts);
    for (int64_t t = 1; t <= 3; ++t) {
      const at::Tensor gradient = test::gradient_of(fused.sizes(), t);
      set_gradient(p, gradient);
      const auto part_gradients = gradient.split_with_sizes(sizes);
      for (size_t i = 0; i < parts.size(); ++i) set_gradient(parts[i], part_gradients[i]);
      root.step();
      separate.step();
    }
    INFO(to_string(layout));
    CHECK_THAT(p,
               test::close_to(at::cat(parts), tolerance(Quantity::StepVsReference, at::kDouble)));
  };
  check(MatrixLayout().split_rows(2), {16, 16});
  check(MatrixLayout().split_rows(4), {8, 8, 8, 8});
  check(MatrixLayout().split_rows({8, 16, 8}), {8, 16, 8});
  check(MatrixLayout().split_rows(std::vector<int64_t>{32}), {32});  // {32} alone would be a count
}

TEST_CASE("rank > 2 is flattened, batched or turned", "[optimizer][layout]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::Tensor start = test::gaussian({12, 10, 3, 3}, 84).to(device);
  // `as_matrix` takes a tensor of the parameter's shape to what is orthogonalized; trains that.
  const auto check = [&](const at::Tensor& value, const MatrixLayout& layout, auto as_matrices) {
    const at::Tensor p = parameter(value);
    Root root({p}, RootOptions().rule(Rule::Orthogonalized).layout(layout));
    std::vector<at::Tensor> matrices;
    for (const at::Tensor& m : as_matrices(value)) matrices.push_back(parameter(m.contiguous()));
    Root separate(matrices, RootOptions().rule(Rule::Orthogonalized));
    for (int64_t t = 1; t <= 3; ++t) {
      const at::Tensor gradient = test::gradient_of(value.sizes(), t);
      set_gradient(p, gradient);
      const std::vector<at::Tensor> gradients = as_matrices(gradient);
      for (size_t i = 0; i < matrices.size(); ++i) set_gradient(matrices[i], gradients[i]);
      root.step();
      separate.step();
    }
    INFO(to_string(layout));
    const std::vector<at::Tensor> result = as_matrices(p.detach());
    for (size_t i = 0; i < matrices.size(); ++i) {
      CHECK_THAT(result[i],
                 test::close_to(matrices[i], tolerance(Quantity::StepVsReference, at::kDouble)));
    }
  };
  using Tensors = std::vector<at::Tensor>;
  check(start, MatrixLayout(), [](const at::Tensor& t) { return Tensors{t.reshape({12, 90})}; });
  check(start, MatrixLayout().out_dim(1), [](const at::Tensor& t) {
    return Tensors{t.transpose(0, 1).reshape({10, 108})};
  });
  check(start, MatrixLayout().split_rows(3).out_dim(1), [](const at::Tensor& t) {
    Tensors blocks;
    for (const at::Tensor& b : t.chunk(3)) blocks.push_back(b.transpose(0, 1).reshape({10, 36}));
    return blocks;
  });
  check(start, MatrixLayout().split_rows({4, 8}), [](const at::Tensor& t) {
    return Tensors{t.narrow(0, 0, 4).reshape({4, 90}), t.narrow(0, 4, 8).reshape({8, 90})};
  });
  check(start.reshape({6, 2, 10, 9}), MatrixLayout().batch(true), [](const at::Tensor& t) {
    return t.reshape({12, 10, 9}).unbind();
  });
}

// --- steps
// -------------------------------------------------------------------------------------------

TEST_CASE("a parameter without a gradient stays, and gets no state", "[optimizer][step]") {
  const at::Tensor used = parameter(kMatrix), unused = parameter(kMatrix);
  Root root({used, unused});
  set_gradient(used, kMatrix);
  root.step();
  CHECK_THAT(unused, test::same_as(kMatrix));
  CHECK_FALSE(has_state(root, unused));
  CHECK(state_of(root, used).step() == 1);
  CHECK_FALSE(at::equal(used, kMatrix));
}

TEST_CASE("zero_grad does what LibTorch's does", "[optimizer][step]") {
  const at::Tensor p = parameter(kMatrix);
  Root root({p});
  set_gradient(p, kMatrix.clone());
  root.zero_grad();  // undefined, or zeroed in place with LibTorch 1.13
  CHECK((!p.grad().defined() || p.grad().abs().max().item<double>() == 0));
}

template <class Optimizer, class Policy>
void check_zero_gradient(const at::Tensor& start, const Policy& policy) {
  const at::Tensor p = parameter(start);
  Optimizer optimizer({p},
                      typename Optimizer::Options(0.5).weight_decay(0.25).orthogonalizer(policy));
  set_gradient(p, at::zeros_like(start));
  optimizer.step();
  CHECK_THAT(p,
             test::close_to(start * 0.875, tolerance(Quantity::OneRounding, start.scalar_type())));
}

TEST_CASE("a zero gradient from the start decays weights and nothing else", "[optimizer][step]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  const at::ScalarType compute = GENERATE(at::kDouble, at::kFloat, at::kBFloat16);
  const at::Tensor start = kMatrix.to(on(device, dtype));
  check_zero_gradient<Root>(start, AdaNewton().compute_dtype(compute));
  check_zero_gradient<Muon>(start, NewtonSchulz().compute_dtype(compute));
  check_zero_gradient<RootPaper>(start, root_paper().orthogonalizer().compute_dtype(compute));
}

TEST_CASE("the closure runs once, with gradients enabled, and its loss is returned",
          "[optimizer][step]") {
  const at::Tensor p = parameter(kMatrix);
  Root root({p}, RootOptions(0.1));
  int calls = 0;
  at::NoGradGuard no_grad;
  const at::Tensor loss = root.step([&] {
    ++calls;
    CHECK(at::GradMode::is_enabled());
    root.zero_grad();
    const at::Tensor value = (p * p).sum();
    value.backward();
    return value;
  });
  CHECK(calls == 1);
  CHECK_FALSE(at::GradMode::is_enabled());
  CHECK(loss.item<double>() == (kMatrix * kMatrix).sum().item<double>());
  CHECK_FALSE(at::equal(p, kMatrix));
  CHECK_FALSE(root.step().defined());
}

TEST_CASE("a step leaves gradients, graph and global settings alone", "[optimizer][step]") {
  const at::Tensor p = parameter(kMatrix);
  const at::Tensor gradient = test::gradient_of(p.sizes(), 1);
  set_gradient(p, gradient);
  torch::manual_seed(5);
  const at::Tensor expected_random = at::rand({4});
  const int threads = at::get_num_threads();
  const bool tf32 = at::globalContext().allowTF32CuBLAS();
  torch::manual_seed(5);
  Root root({p});
  root.step();
  CHECK_THAT(at::rand({4}), test::same_as(expected_random));
  CHECK(at::get_num_threads() == threads);
  CHECK(at::globalContext().allowTF32CuBLAS() == tf32);
  CHECK(at::GradMode::is_enabled());
  CHECK_THAT(p.grad(), test::same_as(gradient));
  CHECK(p.requires_grad());
  CHECK(p.is_leaf());
  CHECK_FALSE(state_of(root, p).momentum_buffer().requires_grad());
}

TEST_CASE("two runs give the same bits", "[optimizer][step]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::Tensor start = kMatrix.to(on(device, at::kFloat));
  CHECK_THAT(trained<Root>(start, {}, 5), test::same_as(trained<Root>(start, {}, 5)));
  CHECK_THAT(trained<Muon>(start, {}, 5), test::same_as(trained<Muon>(start, {}, 5)));
}

TEST_CASE("parameters of one shape are independent of their neighbors", "[optimizer][step]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  std::vector<at::Tensor> together, starts;
  for (uint64_t i = 0; i < 5; ++i) {
    starts.push_back(test::gaussian({16, 24}, 90 + i).to(device));
    together.push_back(parameter(starts.back()));
  }
  const auto gradient = [](size_t i, int64_t t) {
    return test::gradient_of({16, 24}, 100 * static_cast<int64_t>(i) + t) *
           std::pow(10.0, 3.0 * static_cast<double>(i) - 6);
  };
  Root root(together);
  for (int64_t t = 1; t <= 4; ++t) {
    for (size_t i = 0; i < 5; ++i) set_gradient(together[i], gradient(i, t));
    if (t == 3) together[2].mutable_grad() = at::Tensor();  // one misses a step
    root.step();
  }
  for (size_t i = 0; i < 5; ++i) {
    const at::Tensor alone = parameter(starts[i]);
    Root single({alone});
    for (int64_t t = 1; t <= 4; ++t) {
      set_gradient(alone, gradient(i, t));
      if (t == 3 && i == 2) alone.mutable_grad() = at::Tensor();
      single.step();
    }
    CHECK(state_of(root, together[i]).step() == (i == 2 ? 3 : 4));
    CHECK_THAT(together[i],
               test::close_to(alone, tolerance(Quantity::StepVsReference, at::kDouble)));
  }
}

// --- learning rate
// -----------------------------------------------------------------------------------

TEST_CASE("a scheduler sets the learning rate of every group", "[optimizer][scheduler]") {
  const at::Tensor a = parameter(kMatrix), b = parameter(kMatrix), bias = parameter({24}, 85);
  Root root({Group({a, bias}), group({b}, RootOptions(0.5))}, RootOptions(0.125));
  torch::optim::StepLR scheduler(root, /*step_size=*/2, /*gamma=*/0.5);
  std::vector<double> rates;
  for (int64_t t = 0; t < 6; ++t) {
    train(root, {a, bias, b}, t, t + 1);
    scheduler.step();
    rates.push_back(root.options(1).lr());
  }
  CHECK(root.options(0).lr() == rates.back() / 4);
  CHECK(rates.back() < 0.5);

  // The rate that was set is the rate that is used: replay with one optimizer per step's rate.
  const at::Tensor replayed = parameter(kMatrix);
  Root manual({replayed}, RootOptions(0.5));
  double rate = 0.5;
  for (int64_t t = 0; t < 6; ++t) {
    manual.param_groups()[0].options().set_lr(rate);
    train(manual, {replayed}, t, t + 1);
    rate = rates[static_cast<size_t>(t)];
  }
  CHECK_THAT(b, test::same_as(replayed));
}

// --- dtypes, strides, devices
// ------------------------------------------------------------------------

TEST_CASE("state is float64 for float64 parameters and float32 for any other",
          "[optimizer][dtype]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat, at::kHalf, at::kBFloat16);
  const at::ScalarType state_dtype = dtype == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor w = parameter(kMatrix.to(on(device, dtype)));
  const at::Tensor bias = parameter({24}, 86, on(device, dtype));
  Root root({w, bias});
  train(root, {w, bias}, 0, 2);
  for (const at::Tensor& tensor :
       {state_of(root, w).momentum_buffer(), state_of(root, bias).exp_avg(),
        state_of(root, bias).exp_avg_sq()}) {
    CHECK(tensor.scalar_type() == state_dtype);
    CHECK(tensor.device() == w.device());
  }
  CHECK(state_of(root, w).momentum_buffer().sizes() == w.sizes());
  CHECK(w.scalar_type() == dtype);
}

TEST_CASE("half-precision parameters take a float32 step and are rounded once",
          "[optimizer][dtype]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kHalf, at::kBFloat16);
  const std::vector<std::vector<int64_t>> shapes{{16, 24}, {24}};
  for (const std::vector<int64_t>& shape : shapes) {
    const at::Tensor half = parameter(shape, 87, on(device, dtype));
    const at::Tensor single = parameter(half.detach().to(at::kFloat));
    Root on_half({half}, RootOptions(0.05)), on_single({single}, RootOptions(0.05));
    for (int64_t t = 1; t <= 4; ++t) {
      const at::Tensor gradient = test::gradient_of(shape, t).to(dtype);
      set_gradient(half, gradient);
      set_gradient(single, gradient);
      at::NoGradGuard no_grad;
      single.copy_(half.detach());  // both start this step from the rounded parameter
      on_half.step();
      on_single.step();
      CHECK_THAT(half, test::same_as(single.detach().to(dtype)));
    }
  }
}

TEST_CASE("strides do not matter", "[optimizer][strides]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const auto check = [&](const at::Tensor& view, auto stride_of_gradient) {
    const at::Tensor strided = parameter(view);
    const at::Tensor plain = parameter(view.contiguous());
    REQUIRE(plain.is_contiguous());
    REQUIRE_FALSE(strided.is_contiguous());
    Root on_strided({strided}), on_plain({plain});
    for (int64_t t = 1; t <= 3; ++t) {
      const at::Tensor gradient = test::gradient_of(view.sizes(), t).to(device);
      strided.mutable_grad() = stride_of_gradient(gradient);
      set_gradient(plain, gradient);
      on_strided.step();
      on_plain.step();
    }
    CHECK(strided.strides() == view.strides());
    CHECK_THAT(strided, test::close_to(plain, tolerance(Quantity::StepVsReference, at::kDouble)));
  };
  const auto same = [](const at::Tensor& g) { return g; };
  const auto transposed = [](const at::Tensor& g) {
    return g.transpose(0, 1).contiguous().transpose(0, 1);
  };
  const at::Tensor wide = test::gaussian({24, 16}, 88).to(device).t();
  check(wide, same);
  check(wide, transposed);
  const at::Tensor image = test::gaussian({16, 8, 3, 3}, 89).to(device);
  check(image.contiguous(at::MemoryFormat::ChannelsLast), same);
  check(image.contiguous(at::MemoryFormat::ChannelsLast), transposed);
}

TEST_CASE("a parameter that is a view of a larger tensor", "[optimizer][strides]") {
  const at::Tensor base = test::gaussian({32, 48}, 91);
  const at::Tensor inside = base.slice(0, 0, 32, 2).slice(1, 0, 48, 2).requires_grad_(true);
  const at::Tensor start = inside.detach().clone();
  const at::Tensor outside = base.slice(0, 1, 32, 2).clone();
  Root root({inside});
  train(root, {inside}, 0, 3);
  CHECK_THAT(inside,
             test::close_to(trained(start, {}), tolerance(Quantity::StepVsReference, at::kDouble)));
  CHECK_THAT(base.slice(0, 1, 32, 2), test::same_as(outside));
}

TEST_CASE("empty parameters are skipped", "[optimizer][step]") {
  const at::Tensor rows = parameter({0, 16}, 92), cols = parameter({16, 0}, 93),
                   vector = parameter({0}, 94), full = parameter(kMatrix);
  const Rule rule = GENERATE(Rule::Auto, Rule::AdamW);
  Root root({rows, cols, vector, full}, RootOptions().rule(rule));
  CHECK_NOTHROW(train(root, {rows, cols, vector, full}, 0, 2));
  CHECK(state_of(root, full).step() == 2);
  Root explicitly({parameter({0, 16}, 92)}, RootOptions().rule(Rule::Orthogonalized));
  CHECK_NOTHROW(explicitly.step());
}

TEST_CASE("state follows a model that is converted", "[optimizer][dtype]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  torch::nn::Linear model(24, 16);
  model->to(device);
  Root root(model->parameters(), RootOptions(0.05).filter_place(FilterPlace::Momentum));
  const auto step = [&](int64_t t) {
    for (const at::Tensor& p : model->parameters())
      set_gradient(p, test::gradient_of(p.sizes(), t));
    root.step();
  };
  step(1);
  const at::Tensor momentum = state_of(root, model->weight).momentum_buffer().clone();
  model->to(at::kDouble);
  for (const at::Tensor& p : model->parameters()) p.mutable_grad() = at::Tensor();
  step(2);
  const ParamState& state = state_of(root, model->weight);
  CHECK(state.step() == 2);
  CHECK(state.momentum_buffer().scalar_type() == at::kDouble);
  const at::Tensor gradient = test::gradient_of({16, 24}, 2);
  CHECK_THAT(
      state.momentum_buffer(),
      test::close_to(momentum.to(at::kCPU, at::kDouble) * RootOptions().momentum() + gradient,
                     tolerance(Quantity::Momentum, at::kDouble)));
  CHECK(state_of(root, model->bias).exp_avg().scalar_type() == at::kDouble);
}

TEST_CASE("one optimizer holds parameters on several devices and of several dtypes",
          "[optimizer][dtype]") {
  auto devices = test::devices();
  devices.emplace_back(at::kMeta);
  std::vector<at::Tensor> parameters, alone;
  for (const at::Device device : devices) {
    for (const at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
      parameters.push_back(parameter(kMatrix.to(on(device, dtype))));
    }
  }
  Root root(parameters);
  CHECK_NOTHROW(train(root, parameters, 0, 3));
  for (const at::Tensor& p : parameters) {
    CHECK(state_of(root, p).momentum_buffer().device() == p.device());
    if (!p.is_meta()) CHECK_THAT(p, test::same_as(trained(kMatrix.to(p.options()), {})));
  }
}
