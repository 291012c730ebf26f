// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
#include "model.hpp"
#include "ranks.hpp"

#include <cstdint>
#include <root_optim/distributed.hpp>
#include <string>
#include <vector>

using namespace root_optim;
using test::bits_of;
using test::load_from;
using test::message_of;
using test::Model;
using test::on_all_ranks;
using test::take_steps;

TEST_CASE("a checkpoint of N ranks goes on with M") {
  Model whole;
  Root one(whole.groups(RootOptions()));
  take_steps(whole, one, 0, 5);
  const std::string expected = bits_of(whole.all()), expected_file = test::saved(one);

  for (const int from : {1, 3}) {
    std::string file;
    std::vector<at::Tensor> values;
    on_all_ranks(from, [&](int rank, const test::Group& group) {
      Model model;
      Root optimizer(model.groups(RootOptions()));
      distribute(optimizer, group);
      take_steps(model, optimizer, 0, 3);
      consolidate(optimizer, 0);
      if (rank > 0) return;
      file = test::saved(optimizer);
      for (const at::Tensor& value : model.all()) values.push_back(value.detach().clone());
    });
    for (const int to : {1, 2, 4}) {
      for (const bool before : {false, true}) {  // loaded before `distribute`, or after
        INFO(from << " ranks, then " << to << (before ? ", loaded before" : ", loaded after"));
        std::vector<std::string> bits(static_cast<size_t>(to));
        std::string again;
        on_all_ranks(to, [&](int rank, const test::Group& group) {
          Model model;
          Root optimizer(model.groups(RootOptions()));
          const at::NoGradGuard no_grad;
          for (size_t i = 0; i < values.size(); ++i) model.all()[i].copy_(values[i]);
          if (before) load_from(optimizer, file);
          distribute(optimizer, group);
          if (!before) load_from(optimizer, file);
          take_steps(model, optimizer, 3, 5);
          consolidate(optimizer, to - 1);
          if (rank == to - 1) again = test::saved(optimizer);
          bits[static_cast<size_t>(rank)] = bits_of(model.all());
        });
        for (const std::string& rank : bits) CHECK((rank == expected));
        CHECK((again == expected_file));
      }
    }
  }
}

TEST_CASE("state that is not consolidated is not saved, and nobody waits") {
  std::vector<std::string> never(2), elsewhere(2), stale(2), released(2);
  on_all_ranks(2, [&](int rank, const test::Group& group) {
    const auto at = static_cast<size_t>(rank);
    Model model;
    Root optimizer(model.groups(RootOptions()));
    distribute(optimizer, group);
    take_steps(model, optimizer, 0, 1);
    if (rank == 0) never[0] = message_of([&] { test::saved(optimizer); });
    consolidate(optimizer, 0);
    elsewhere[at] = message_of([&] { test::saved(optimizer); });
    take_steps(model, optimizer, 1, 2);
    stale[at] = message_of([&] { test::saved(optimizer); });
    consolidate(optimizer, 0);
    optimizer.release_workspace();
    released[at] = message_of([&] { test::saved(optimizer); });
    take_steps(model, optimizer, 2, 3);
  });
  const auto refused = test::contains("root_optim::save: expected `consolidate` on all ranks");
  CHECK_THAT(never[0], refused);
  CHECK(elsewhere[0] == "");
  CHECK_THAT(elsewhere[1], refused);
  for (size_t rank = 0; rank < 2; ++rank) {
    CHECK_THAT(stale[rank], refused);
    CHECK_THAT(released[rank], refused);
  }
}

TEST_CASE("consolidating is refused on all ranks for different targets, and for none") {
  std::vector<std::string> different(2), none(2);
  on_all_ranks(2, [&](int rank, const test::Group& group) {
    const auto at = static_cast<size_t>(rank);
    Model model;
    Root optimizer(model.groups(RootOptions()));
    distribute(optimizer, group);
    different[at] = message_of([&] { consolidate(optimizer, rank); });
    none[at] = message_of([&] { consolidate(optimizer, 2); });
    take_steps(model, optimizer, 0, 1);
  });
  for (size_t rank = 0; rank < 2; ++rank) {
    CHECK_THAT(different[rank], test::contains("expected equal targets of `consolidate`"));
    CHECK_THAT(none[rank], test::contains("expected a rank below 2, got 2"));
  }
  Root alone(Model().matrices);
  CHECK_THAT(message_of([&] { consolidate(alone, 0); }),
             test::contains("expected a distributed optimizer, got one of one process"));
}

TEST_CASE("a checkpoint that one rank alone loads is noticed by all") {
  Model whole;
  Root one(whole.groups(RootOptions()));
  take_steps(whole, one, 0, 2);
  const std::string file = test::saved(one);
  std::vector<std::string> thrown(2), bits(2);
  on_all_ranks(2, [&](int rank, const test::Group& group) {
    const auto at = static_cast<size_t>(rank);
    Model model;
    Root optimizer(model.groups(RootOptions()));
    distribute(optimizer, group);
    if (rank == 1) load_from(optimizer, file);
    model.set_gradients(0);
    thrown[at] = message_of([&] { optimizer.step(); });
    load_from(optimizer, file);
    take_steps(model, optimizer, 0, 1);
    bits[at] = bits_of(model.all());
  });
  for (const std::string& message : thrown) {
    CHECK_THAT(message, test::contains("expected equal checkpoints to have been loaded on all"));
  }
  CHECK((bits[0] == bits[1]));
}
