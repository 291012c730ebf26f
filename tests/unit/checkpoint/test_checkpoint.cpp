// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Save, load, continue: the same bits as without the interruption, on a fresh optimizer of the same
// model; and what a checkpoint of another model, program or file does.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <cstdio>
#include <ios>
#include <istream>
#include <sstream>
#include <stdexcept>
#include <streambuf>

#include "support/devices.hpp"
#include "support/optimizer_state.hpp"
#include "support/saved.hpp"
#include "support/tolerances.hpp"
#include "support/training.hpp"

using namespace root_optim;
using test::contains;
using test::load_from;
using test::on;
using test::parameter;
using test::saved;
using test::train;

namespace {

using Group = torch::optim::OptimizerParamGroup;
using Tensors = std::vector<at::Tensor>;

/// Parameters of every kind, and an optimizer with two groups over them.
template <class Optimizer>
struct Model {
  using Options = typename Optimizer::Options;

  explicit Model(at::TensorOptions where = at::kFloat, Options defaults = Options(0.05),
                 Options special = Options(0.02).weight_decay(0.3).nesterov(false).layout(
                     MatrixLayout().split_rows(3)))
      : parameters{parameter({16, 24}, 1, where), parameter({16, 24}, 2, where),
                   parameter({24}, 3, where), parameter({24, 16}, 4, where),
                   parameter({8, 4, 3, 3}, 5, where)},
        optimizer(std::vector<Group>{Group(Tensors(parameters.begin(), parameters.begin() + 3)),
                                     Group(Tensors(parameters.begin() + 3, parameters.begin() + 4),
                                           std::make_unique<Options>(special)),
                                     Group(Tensors(parameters.begin() + 4, parameters.end()))},
                  defaults) {}

  Model(const Model&) = delete;

  void set_parameters(const Model& other) {
    at::NoGradGuard no_grad;
    for (size_t i = 0; i < parameters.size(); ++i) parameters[i].copy_(other.parameters[i]);
  }
  const Options& options(size_t group) const { return optimizer.options(group); }
  ParamState& state(size_t i) { return test::state_of(optimizer, parameters[i]); }

  Tensors parameters;
  Optimizer optimizer;
};

/// Everything an optimizer knows, for "nothing has changed".
template <class Optimizer>
void check_equal(Model<Optimizer>& a, Model<Optimizer>& b) {
  for (size_t i = 0; i < a.parameters.size(); ++i) {
    INFO("parameter " << i);
    CHECK_THAT(a.parameters[i], test::same_as(b.parameters[i]));
    const auto key_a = root_optim::detail::state_key(a.parameters[i]);
    const auto key_b = root_optim::detail::state_key(b.parameters[i]);
    const bool has_state = a.optimizer.state().count(key_a) != 0;
    REQUIRE(has_state == (b.optimizer.state().count(key_b) != 0));
    if (!has_state) continue;
    CHECK((a.state(i) == b.state(i)));
  }
  for (size_t g = 0; g < a.optimizer.param_groups().size(); ++g) {
    CHECK((a.options(g) == b.options(g)));
  }
}

template <class Optimizer>
void check_resume(at::TensorOptions where, bool with_torch_save) {
  INFO(where.dtype() << " on " << where.device() << (with_torch_save ? ", torch::save" : ""));
  Model<Optimizer> uninterrupted(where), first(where), second(where);
  train(uninterrupted.optimizer, uninterrupted.parameters, 0, 8);
  train(first.optimizer, first.parameters, 0, 4);

  std::stringstream file;
  if (with_torch_save) {
    torch::save(first.optimizer, file);
    torch::load(second.optimizer, file);
  } else {
    root_optim::save(first.optimizer, file);
    root_optim::load(second.optimizer, file);
  }
  second.set_parameters(first);
  check_equal(first, second);
  train(second.optimizer, second.parameters, 4, 8);
  check_equal(uninterrupted, second);
}

}  // namespace

TEST_CASE("save, load, continue equals uninterrupted, bit by bit", "[checkpoint]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat, at::kBFloat16, at::kHalf);
  const bool with_torch_save = GENERATE(false, true);
  check_resume<Root>(on(device, dtype), with_torch_save);
  check_resume<Muon>(on(device, dtype), with_torch_save);
}

TEST_CASE("a file by path", "[checkpoint]") {
  const std::string path = "root_optim_test_checkpoint.pt";  // in the build's working directory
  Model<Root> first, second;
  train(first.optimizer, first.parameters, 0, 2);
  root_optim::save(first.optimizer, path);
  root_optim::load(second.optimizer, path);
  second.set_parameters(first);
  check_equal(first, second);
  std::remove(path.c_str());
  CHECK_THROWS_AS(root_optim::load(second.optimizer, path), std::exception);
  check_equal(first, second);
}

TEST_CASE("options come back on every version of LibTorch", "[checkpoint]") {
  using Options = RootOptions;
  const auto unusual = Options(0.7)
                           .momentum(0.5)
                           .filter(SoftThreshold().relative_to_rms(2))
                           .orthogonalizer(AdaNewton().steps(6))
                           .betas(std::make_tuple(0.5, 0.25))
                           .names({"conv.weight"});
  Model<Root> first(at::kFloat, Options(0.9), Options(unusual).names({}));
  first.optimizer.param_groups()[2].options().set_lr(0.123);  // as a scheduler would
  train(first.optimizer, first.parameters, 0, 1);
  Model<Root> second(at::kFloat, Options(0.05), Options(0.02));
  load_from(second.optimizer, saved(first.optimizer));
  CHECK((second.options(0) == Options(0.9)));
  CHECK((second.options(1) == Options(unusual).names({})));
  CHECK(second.options(2).lr() == 0.123);
}

TEST_CASE("what loading does with an option that the code has otherwise", "[checkpoint][errors]") {
  const Tensors wide{parameter({24, 16}, 1, at::kFloat)}, vectors{parameter({24}, 2, at::kFloat)};
  const auto loaded = [](const Tensors& parameters, const RootOptions& written,
                         const RootOptions& own) {
    Root first(parameters, written), second(parameters, own);
    train(first, parameters, 0, 1);
    const RootOptions before = own;
    try {
      load_from(second, saved(first));
    } catch (const c10::Error&) {
      CHECK((second.options(0) == before));
      CHECK(second.state().empty());
      throw;
    }
    return second.options(0);
  };
  const RootOptions plain(0.05);
  // Structure: refused, on both sides, with what to do.
  const auto blocks = RootOptions(plain).layout(MatrixLayout().split_rows(3));
  const auto names = RootOptions(plain).names({"conv.weight"});
  CHECK_THROWS_WITH(loaded(wide, plain, RootOptions(names).layout(MatrixLayout().split_rows(3))),
                    contains("expected layout '3 row blocks' for parameter 'conv.weight' (group 0, "
                             "index 0, shape [24, 16]), got 'matrix' in the checkpoint: build"));
  CHECK_THROWS_WITH(loaded(wide, blocks, plain), contains("expected layout 'matrix'"));
  CHECK_THROWS_WITH(
      loaded(wide, plain, RootOptions(plain).rule(Rule::AdamW)),
      contains("expected rule adamw for parameter (group 0, index 0, shape [24, 16]), "
               "got orthogonalized in the checkpoint"));
  CHECK_THROWS_WITH(loaded(wide, RootOptions(plain).rule(Rule::AdamW), plain),
                    contains("expected rule orthogonalized"));
  CHECK_THROWS_WITH(
      loaded(wide, plain, RootOptions(plain).momentum_form(MomentumForm::Ema)),
      contains("expected momentum_form ema for parameter (group 0, index 0, shape [24, "
               "16]), got sum in the checkpoint"));
  // Rules are compared as they are resolved; the code's stays.
  CHECK(loaded(wide, plain, RootOptions(plain).rule(Rule::Orthogonalized)).rule() ==
        Rule::Orthogonalized);
  CHECK(loaded(wide, RootOptions(plain).rule(Rule::Orthogonalized), plain).rule() == Rule::Auto);
  CHECK(loaded(vectors, plain, RootOptions(plain).rule(Rule::AdamW)).rule() == Rule::AdamW);
  // Names: the code's where it has some, else the checkpoint's.
  CHECK(loaded(wide, plain, names).names() == names.names());
  CHECK(loaded(wide, names, plain).names() == names.names());
  // Everything else is restored, but for what belongs to the machine.
  const auto other = RootOptions(0.25)
                         .momentum(0.5)
                         .nesterov(false)
                         .weight_decay(0.25)
                         .scale(LrScale::Spectral)
                         .filter(SoftThreshold().scaled(2, 1))
                         .filter_place(FilterPlace::Momentum)
                         .orthogonalizer(AdaNewton().steps(4))
                         .betas(std::make_tuple(0.5, 0.25))
                         .eps(0.5)
                         .non_finite(NonFinite::Zero);
  const RootOptions result = loaded(wide, other, RootOptions(plain).batch_bytes(77));
  CHECK((result == other));
  CHECK(result.batch_bytes() == 77);
}

TEST_CASE("a checkpoint before the first step, and into a used optimizer", "[checkpoint]") {
  Model<Root> fresh, used;
  const std::string untouched = saved(fresh.optimizer);
  train(used.optimizer, used.parameters, 0, 3);
  load_from(used.optimizer, untouched);
  CHECK(used.optimizer.state().empty());  // no momentum of the past
  used.set_parameters(fresh);
  train(used.optimizer, used.parameters, 0, 2);
  train(fresh.optimizer, fresh.parameters, 0, 2);
  check_equal(fresh, used);
}

TEST_CASE("state moves to the parameter's device and dtype of state", "[checkpoint]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  Model<Root> single(at::kFloat), dbl(on(device, at::kDouble));
  train(single.optimizer, single.parameters, 0, 2);
  load_from(dbl.optimizer, saved(single.optimizer));
  const auto states = [](Model<Root>& model) {
    return Tensors{model.state(0).momentum_buffer(), model.state(2).exp_avg(),
                   model.state(2).exp_avg_sq()};
  };
  const Tensors converted = states(dbl), original = states(single);
  for (size_t i = 0; i < original.size(); ++i) {
    CHECK(converted[i].scalar_type() == at::kDouble);
    CHECK(converted[i].device() == dbl.parameters[0].device());
    CHECK_THAT(converted[i].to(at::kCPU, at::kFloat), test::same_as(original[i]));
  }
}

TEST_CASE("loaded state requires no gradient, whatever the file says", "[checkpoint]") {
  Model<Root> model, loaded;
  train(model.optimizer, model.parameters, 0, 2);
  const std::string clean = saved(model.optimizer);
  model.state(0).momentum_buffer().requires_grad_();
  model.state(2).exp_avg_sq().requires_grad_();
  const std::string marked = saved(model.optimizer);
  CHECK(marked != clean);
  load_from(loaded.optimizer, marked);
  CHECK_FALSE(loaded.state(0).momentum_buffer().requires_grad());
  CHECK_FALSE(loaded.state(2).exp_avg_sq().requires_grad());
  CHECK(saved(loaded.optimizer) == clean);
}

TEST_CASE("a checkpoint holds values, not addresses", "[checkpoint]") {
  Model<Root> a, b;
  train(a.optimizer, a.parameters, 0, 2);
  train(b.optimizer, b.parameters, 0, 2);
  CHECK(saved(a.optimizer) == saved(b.optimizer));
  // A loaded optimizer shares no memory with the one that was saved.
  load_from(b.optimizer, saved(a.optimizer));
  train(b.optimizer, b.parameters, 2, 4);
  Model<Root> c;
  train(c.optimizer, c.parameters, 0, 2);
  check_equal(a, c);
}

TEST_CASE("a checkpoint of something else is refused and changes nothing", "[checkpoint][errors]") {
  Model<Root> model, twin;
  train(model.optimizer, model.parameters, 0, 2);
  train(twin.optimizer, twin.parameters, 0, 2);
  const auto refused = [&](const std::string& content, const std::string& message) {
    INFO(message);
    CHECK_THROWS_WITH(load_from(model.optimizer, content), contains(message));
    check_equal(twin, model);
  };
  const auto content_of = [](const std::vector<Group>& groups, int64_t steps = 1) {
    Root root(groups);
    for (const auto& group : root.param_groups()) train(root, group.params(), 0, steps);
    return saved(root);
  };
  const at::Tensor w = parameter({16, 24}, 6), b = parameter({24}, 7),
                   k = parameter({8, 4, 3, 3}, 8);

  refused(content_of({Group({w})}), "expected 3 parameter groups, got 1");
  refused(content_of({Group({w}), Group({b}), Group({k})}),
          "expected 3 parameters in group 0, got 1");
  refused(content_of(
              {Group({w, parameter({16, 23}, 9), b}), Group({parameter({24, 16}, 9)}), Group({k})}),
          "expected the shape of parameter (group 0, index 1, shape [16, 24]), got [16, 23]");

  Model<Muon> muon;
  refused(saved(muon.optimizer), "expected filter 'soft_threshold', got 'no_filter'");

  std::ostringstream adamw_file;
  torch::optim::AdamW adamw({w});
  torch::save(adamw, adamw_file);
  refused(adamw_file.str(), "expected a checkpoint written by root_optim, got another archive");

  std::ostringstream module_file;
  torch::save(torch::nn::Linear(2, 2), module_file);
  refused(module_file.str(), "expected a checkpoint written by root_optim, got another archive");
}

TEST_CASE("content that no optimizer has is refused and changes nothing", "[checkpoint][errors]") {
  // Written with a good checksum: what is refused is what it says.
  Model<Root> model, twin;
  for (Model<Root>* each : {&model, &twin}) train(each->optimizer, each->parameters, 0, 2);
  torch::serialize::OutputArchive written;
  model.optimizer.save(written);
  std::stringstream file;
  written.save_to(file);
  torch::serialize::InputArchive archive;
  archive.load_from(file);
  const Checkpoint checkpoint = root_optim::detail::read_checkpoint(archive).groups;
  const auto refused = [&](const std::string& message, auto change) {
    Checkpoint changed = checkpoint;
    change(changed);
    torch::serialize::OutputArchive out;
    root_optim::detail::write_checkpoint(out, changed);
    std::stringstream content;
    out.save_to(content);
    CHECK_THROWS_WITH(root_optim::load(model.optimizer, content), contains(message));
    check_equal(twin, model);
  };
  const auto first = [](Checkpoint& changed) -> ParamState& { return changed[0].params[0].state; };
  refused("expected state that float32 can hold, got 1e+100 for parameter (group 0, index 0",
          [&](auto& c) {
            first(c).momentum_buffer() = at::full({16, 24}, 1e100, at::kDouble);
          });
  refused("expected state of a real floating-point dtype, got ComplexFloat for parameter (group 0",
          [&](auto& c) {
            first(c).momentum_buffer() = at::ones({16, 24}, at::kComplexFloat);
          });
  refused("expected state of a real floating-point dtype, got Long", [&](auto& c) {
    first(c).momentum_buffer() = at::ones({16, 24}, at::kLong);
  });
  refused("expected state of the shape of parameter (group 0, index 0", [&](auto& c) {
    first(c).momentum_buffer() = at::ones({16, 23});
  });
  refused(
      "expected a momentum or two moments of parameter (group 0, index 0, shape [16, 24]) after "
      "-5 steps",
      [&](auto& c) { first(c).step(-5); });
  refused("expected a momentum or two moments of",
          [&](auto& c) { first(c).momentum_buffer() = at::Tensor(); });
  refused("expected a momentum or two moments of parameter (group 0, index 2",
          [&](auto& c) { c[0].params[2].state.exp_avg_sq() = at::Tensor(); });
  refused(
      "expected a counter of at most 2 steps of parameter (group 0, index 0, shape [16, 24]), "
      "got 3",
      [&](auto& c) { first(c).skipped() = at::full({}, 3, at::kLong); });
  refused("expected one int64 as a counter of",
          [&](auto& c) { first(c).non_finite() = at::ones({2}, at::kLong); });
  refused("expected lr to be finite in float32 and >= 0, got -1, in group 1",
          [](auto& c) { c[1].options.set("lr", -1.0); });

  torch::serialize::OutputArchive newer;
  newer.write("root_optim_format", c10::IValue(root_optim::detail::checkpoint_format + 1));
  std::stringstream content;
  newer.save_to(content);
  CHECK_THROWS_WITH(root_optim::load(model.optimizer, content),
                    contains("expected a format from 1 to 5, got 6 (written by a newer version)"));
  check_equal(twin, model);
}

TEST_CASE("streams that fail get an error of this library", "[checkpoint][errors]") {
  struct Gone : std::streambuf {
    int_type underflow() override { throw std::runtime_error("connection lost"); }
    int_type overflow(int_type) override { throw std::runtime_error("connection lost"); }
  };
  Model<Root> model, twin;
  Gone buffer;
  std::iostream stream(&buffer);
  CHECK_THROWS_AS(root_optim::load(model.optimizer, stream), c10::Error);
  CHECK_THROWS_WITH(root_optim::load(model.optimizer, stream),
                    contains("expected a stream that can be read, got 'connection lost'"));
  CHECK_THROWS_WITH(root_optim::save(model.optimizer, stream),
                    contains("expected a stream that takes"));
  std::iostream throwing(&buffer);
  throwing.exceptions(std::ios::badbit | std::ios::failbit);
  CHECK_THROWS_AS(root_optim::save(model.optimizer, throwing), c10::Error);
  std::stringstream failed(saved(model.optimizer));
  failed.setstate(std::ios::failbit);
  CHECK_THROWS_WITH(root_optim::load(model.optimizer, failed), contains("got one that has failed"));
  check_equal(twin, model);
}

TEST_CASE("a checkpoint that is loaded in inference mode can be trained on", "[checkpoint]") {
  Model<Root> model, loaded;
  train(model.optimizer, model.parameters, 0, 2);
  const std::string content = saved(model.optimizer);
  loaded.set_parameters(model);
  {
    const c10::InferenceMode inference;
    load_from(loaded.optimizer, content);
  }
  train(model.optimizer, model.parameters, 2, 4);
  train(loaded.optimizer, loaded.parameters, 2, 4);
  check_equal(model, loaded);
}

TEST_CASE("names that disagree are refused", "[checkpoint][errors]") {
  const auto named = [](const std::vector<std::string>& names) {
    return std::vector<Group>{Group({parameter({16, 24}, 1), parameter({16, 24}, 2)},
                                    std::make_unique<RootOptions>(RootOptions().names(names)))};
  };
  Root saved_from(named({"a", "b"})), same(named({"a", "b"})), swapped(named({"b", "a"})),
      unnamed(named({}));
  const std::string content = saved(saved_from);
  CHECK_NOTHROW(load_from(same, content));
  CHECK_NOTHROW(load_from(unnamed, content));
  CHECK_THROWS_WITH(load_from(swapped, content),
                    contains("expected the state of parameter 'b' (group 0, index 0, shape "
                             "[16, 24]), got that of 'a'"));
}

TEST_CASE("a damaged file throws and changes nothing", "[checkpoint][errors]") {
  Model<Root> model, twin;
  train(model.optimizer, model.parameters, 0, 2);
  train(twin.optimizer, twin.parameters, 0, 2);
  const std::string content = saved(model.optimizer);
  for (const std::string& damaged :
       {std::string(), std::string("not an archive"), content.substr(0, content.size() / 2),
        content.substr(content.size() / 2)}) {
    INFO(damaged.size() << " of " << content.size() << " bytes");
    CHECK_THROWS_AS(load_from(model.optimizer, damaged), std::exception);
    check_equal(twin, model);
  }
}

TEST_CASE("a tensor that leaves its storage is refused", "[checkpoint][errors]") {
  // Six floats, read with shape, strides and offset that say something else.
  const auto said = [](std::vector<int64_t> sizes, std::vector<int64_t> strides, int64_t offset) {
    at::Tensor tensor = at::ones({6});
    tensor.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides);
    tensor.unsafeGetTensorImpl()->set_storage_offset(offset);
    return tensor;
  };
  const int64_t huge = int64_t{1} << 62;
  for (const at::Tensor& good :
       {said({2, 3}, {3, 1}, 0), said({3, 2}, {1, 3}, 0), said({2}, {1}, 4), said({}, {}, 5),
        said({4, 100}, {1, 0}, 2), said({0, 9}, {9, 1}, 0), at::ones({0})}) {
    INFO(good.sizes() << ", strides " << good.strides());
    CHECK(root_optim::detail::lies_in_storage(good));
  }
  for (const at::Tensor& bad :
       {said({2, 4}, {4, 1}, 0), said({2, 3}, {4, 1}, 0), said({2, 3}, {3, 1}, 1), said({}, {}, 6),
        said({2, 3}, {3, -1}, 2), said({}, {}, -1), said({3}, {huge}, 0), said({2}, {1}, huge)}) {
    INFO(bad.sizes() << ", strides " << bad.strides());
    CHECK_FALSE(root_optim::detail::lies_in_storage(bad));
    ParamState state;
    state.step(1).exp_avg(bad);
    std::stringstream file;
    torch::serialize::OutputArchive out;
    state.serialize(out);
    out.save_to(file);
    torch::serialize::InputArchive in;
    // Newer readers of LibTorch refuse such a tensor themselves.
    CHECK_THROWS_AS((in.load_from(file), ParamState().serialize(in)), c10::Error);
  }
}
