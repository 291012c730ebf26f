// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The gate of an optimizer that ranks share.
#include "model.hpp"
#include "ranks.hpp"
#include "sharded_model.hpp"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <root_optim/distributed.hpp>
#include <stdexcept>
#include <string>
#include <vector>

using namespace root_optim;
using test::bits_of;
using test::Model;
using test::on_all_ranks;

namespace {

constexpr int64_t last = 9;

/// Of steps 6 to 8 the first and the last are struck, since two in a row never are.
double length_of(int64_t step) { return step < 6 ? 1 : step == 7 ? 1.5 : 4; }

void set_gradients(const Model& model, int64_t step) {
  model.set_gradients(step);
  for (const at::Tensor& parameter : model.all()) parameter.grad().mul_(length_of(step));
}

template <class Optimizer>
void uneven_steps(const Model& model, Optimizer& optimizer, int64_t first, int64_t end) {
  for (int64_t step = first; step < end; ++step) {
    set_gradients(model, step);
    optimizer.step();
  }
}

RootOptions gated() { return RootOptions(0.02).gate(1.4); }

std::string gate_bits(const GateState& state) {
  return test::bits_of({state.norms, state.run, state.strikes});
}

template <class Optimizer>
void set_gate(Optimizer& optimizer, double gate) {
  for (size_t g = 0; g < optimizer.param_groups().size(); ++g) optimizer.options(g).gate(gate);
}

}  // namespace

TEST_CASE("a gate over ranks has the bits of one process") {
  constexpr double inf = std::numeric_limits<double>::infinity();
  const RootOptions options = GENERATE(
      gated(), gated().filter_place(FilterPlace::AllGradients),
      gated().non_finite(NonFinite::SkipGroup), gated().non_finite(NonFinite::Zero).batch_bytes(0),
      gated().filter_place(FilterPlace::Momentum).master_weights(true));
  const int64_t bucket_bytes = options.batch_bytes() ? 8000 : 64 << 20;
  const auto run = [&](Model& model, Root& optimizer) {
    for (int64_t step = 0; step < last; ++step) {
      set_gradients(model, step);
      if (step == 4) model.matrices[2].mutable_grad().view(-1)[3] = inf;
      if (step == 4) model.others.back().mutable_grad()[5000] = -inf;
      if (step == 5) model.matrices[3].mutable_grad().reset();
      if (step == 5) model.others[0].mutable_grad().reset();
      optimizer.step();
    }
  };
  Model model;
  Root one(model.groups(options));
  run(model, one);
  CHECK(one.gate_state().strikes.item<int64_t>() == 2);
  const std::string expected = bits_of(model.all()), file = test::saved(one);
  for (const int size : {1, 2, 3, 4}) {
    INFO(size << " ranks");
    std::string got;
    on_all_ranks(size, [&](int rank, const test::Group& group) {
      Model own;
      Root optimizer(own.groups(options));
      distribute(optimizer, group, DistributedOptions().bucket_bytes(bucket_bytes));
      run(own, optimizer);
      TORCH_CHECK(bits_of(own.all()) == expected, "parameters");
      TORCH_CHECK(gate_bits(optimizer.gate_state()) == gate_bits(one.gate_state()), "gate");
      consolidate(optimizer, 0);
      if (rank == 0) got = test::saved(optimizer);
    });
    CHECK((got == file));
  }
}

TEST_CASE("a gate over gradients that owners alone have is the same on all ranks") {
  const bool cut = GENERATE(false, true);
  const auto make = [cut] {
    Model model;
    if (!cut) model.others.resize(model.others.size() - 2);
    return model;
  };
  Model model = make();
  Root one(model.groups(gated()));
  uneven_steps(model, one, 0, last);
  for (const int size : {2, 4}) {
    INFO(size << " ranks, cut: " << cut);
    std::vector<std::string> bits(static_cast<size_t>(size)), states(bits.size());
    std::vector<double> off(bits.size());
    on_all_ranks(size, [&](int rank, const test::Group& group) {
      Model own = make();
      Root optimizer(own.groups(gated()));
      distribute(optimizer, group);
      OwnerReducer reducer(optimizer);
      for (int64_t step = 0; step < last; ++step) {
        set_gradients(
            own, step);  // which rank 0 has, as many times as there are ranks: the mean is exact
        for (const at::Tensor& parameter : own.all()) parameter.grad().mul_(rank == 0 ? size : 0);
        reducer.reduce();
        optimizer.step();
      }
      const auto at = static_cast<size_t>(rank);
      bits[at] = bits_of(own.all());
      states[at] = gate_bits(optimizer.gate_state());
      off[at] = optimizer.gate_state()
                    .norms.div(one.gate_state().norms)
                    .sub(1)
                    .abs()
                    .nan_to_num(0)  // norms that are none yet
                    .max()
                    .item<double>();
      TORCH_CHECK(optimizer.gate_state().strikes.item<int64_t>() == 2);
    });
    for (size_t rank = 0; rank < bits.size(); ++rank) {
      CHECK((bits[rank] == bits[0]));
      CHECK((states[rank] == states[0]));
      CHECK(off[rank] < 1e-15);  // measured: 2.2e-16 with tensors that are cut
      if (!cut) CHECK((states[rank] == gate_bits(one.gate_state())));
      if (!cut) CHECK((bits[rank] == bits_of(model.all())));
    }
  }
}

TEST_CASE("a gate over shards is that of one process") {
  // Without a cut, bit by bit.
  const FilterPlace place = GENERATE(FilterPlace::Gradient, FilterPlace::AllGradients);
  const auto run = [&](const test::ShardedModel& model, Root& optimizer) {
    for (int64_t step = 0; step < last; ++step) {
      model.set_gradients(step);
      for (const at::Tensor& parameter : model.own) parameter.grad().mul_(length_of(step));
      optimizer.step();
    }
  };
  const test::ShardedModel whole(0, 1, test::Split::Even);
  Root one(whole.groups(gated().filter_place(place)));
  run(whole, one);
  for (const int size : {2, 3}) {
    INFO(size << " ranks");
    std::vector<std::string> states(static_cast<size_t>(size));
    on_all_ranks(size, [&](int rank, const test::Group& group) {
      const test::ShardedModel model(rank, size, test::Split::Uneven);
      Root optimizer(model.groups(gated().filter_place(place)));
      distribute(optimizer, group, model.layouts());
      run(model, optimizer);
      states[static_cast<size_t>(rank)] = gate_bits(optimizer.gate_state());
      TORCH_CHECK(optimizer.gate_state().strikes.item<int64_t>() == 2);
      TORCH_CHECK(at::allclose(optimizer.gate_state().norms, one.gate_state().norms, 1e-15, 0));
      TORCH_CHECK(place == FilterPlace::Gradient ||
                  bits_of(model.own) == model.bits_of_parts(whole));
    });
    for (const std::string& state : states) {
      CHECK((state == (place == FilterPlace::Gradient ? states[0] : gate_bits(one.gate_state()))));
    }
  }
}

TEST_CASE("a checkpoint has the gate of N ranks, and M go on with it") {
  const std::string folder = "root_optim_test_gate";
  Model model;
  Root one(model.groups(gated()));
  uneven_steps(model, one, 0, 7);
  const std::string at_seven = test::saved(one);
  std::vector<at::Tensor> values;
  for (const at::Tensor& value : model.all()) values.push_back(value.detach().clone());
  uneven_steps(model, one, 7, last);
  const std::string expected = test::saved(one);
  for (const int from : {1, 3}) {
    std::string consolidated;
    on_all_ranks(from, [&](int rank, const test::Group& group) {
      Model own;
      Root optimizer(own.groups(gated()));
      distribute(optimizer, group);
      uneven_steps(own, optimizer, 0, 7);
      save_sharded(optimizer, folder, 7);
      consolidate(optimizer, from - 1);
      if (rank == from - 1) consolidated = test::saved(optimizer);
    });
    CHECK((consolidated == at_seven));
    for (const int to : {1, 2, 4}) {
      for (const bool sharded : {false, true}) {
        INFO(from << " ranks, then " << to << ", sharded: " << sharded);
        std::string again;
        on_all_ranks(to, [&](int rank, const test::Group& group) {
          Model own;
          Root optimizer(own.groups(RootOptions()));
          const at::NoGradGuard no_grad;
          for (size_t i = 0; i < values.size(); ++i) own.all()[i].copy_(values[i]);
          distribute(optimizer, group);
          if (sharded) {
            load_sharded(optimizer, folder);
          } else {
            test::load_from(optimizer, consolidated);
          }
          uneven_steps(own, optimizer, 7, last);
          consolidate(optimizer, 0);
          if (rank == 0) again = test::saved(optimizer);
        });
        CHECK((again == expected));
      }
    }
    std::filesystem::remove_all(folder);
  }
}

TEST_CASE("a gate that differs between ranks or groups is refused on all") {
  SECTION("what it has seen") {
    for (const std::string& one : test::on_ranks(2, [](int rank, const test::Group&group) {
           Model model;
           Root optimizer(model.groups(RootOptions().lr(0)));
           set_gate(optimizer, rank == 1 ? 1.4 : 0);
           uneven_steps(model, optimizer, 0, 1);
           set_gate(optimizer, 1.4);
           distribute(optimizer, group);
         })) {
      CHECK_THAT(one, test::contains("state, by its checksum"));
    }
  }
  SECTION("groups") {
    for (const std::string& one : test::on_ranks(2, [](int, const test::Group& group) {
           Model model;
           Root optimizer(model.groups(RootOptions()));
           distribute(optimizer, group);
           optimizer.options(1).gate(1.4);
           uneven_steps(model, optimizer, 0, 1);
         })) {
      CHECK_THAT(one, test::contains("rank 0: root_optim::step: expected one gate in all groups"));
    }
  }
}

namespace {

thread_local bool throws = false;

/// Throws in the thread that asks for it.
struct Unlucky {
  static constexpr const char* name = "unlucky";
  at::Tensor operator()(const at::Tensor& x) const {
    if (throws) throw std::runtime_error("out of luck");
    return x.sign();
  }
};

}  // namespace

TEST_CASE(
    "a step that fails on one rank has not been one for the gate, and one without it ends it") {
  using Optimizer = OrthogonalizedOptimizer<NoFilter, Unlucky>;
  on_all_ranks(3, [&](int rank, const test::Group& group) {
    Model model;
    Optimizer optimizer(model.groups(Optimizer::Options().gate(1.4)));
    distribute(optimizer, group);
    uneven_steps(model, optimizer, 0, 2);
    const std::string before = gate_bits(optimizer.gate_state());
    throws = rank == 1;
    const std::string message = test::message_of([&] { uneven_steps(model, optimizer, 2, 3); });
    throws = false;
    TORCH_CHECK(message == "rank 1: out of luck", message);
    TORCH_CHECK(gate_bits(optimizer.gate_state()) == before);
    uneven_steps(model, optimizer, 2, 3);
    TORCH_CHECK(gate_bits(optimizer.gate_state()) != before);
    for (at::Tensor parameter : model.all()) parameter.mutable_grad().reset();
    set_gate(optimizer, 0);
    optimizer.step();  // of nothing
    TORCH_CHECK(optimizer.gate_state().norms.defined());
    uneven_steps(model, optimizer, 3, 4);
    TORCH_CHECK(!optimizer.gate_state().norms.defined());
  });
}
