// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
#include "model.hpp"
#include "ranks.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <root_optim/distributed.hpp>
#include <string>
#include <vector>

using namespace root_optim;
using test::bits_of;
using test::contains;
using test::message_of;
using test::Model;
using test::on_all_ranks;
using test::take_steps;
namespace fs = std::filesystem;

namespace {

/// A folder of its own for a test, gone afterwards.
struct Folder {
  std::string path;
  explicit Folder(const std::string& name) : path("root_optim_test_" + name) {
    fs::remove_all(path);
  }
  ~Folder() { fs::remove_all(path); }

  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& entry : fs::directory_iterator(path)) {
      all.push_back(entry.path().filename().string());
    }
    std::sort(all.begin(), all.end());
    return all;
  }
  std::string file(const std::string& name) const { return (fs::path(path) / name).string(); }
};

/// Three steps on `ranks` ranks, saved.
/// @return the values of the parameters
std::vector<at::Tensor> save_three_steps(int ranks, const std::string& folder,
                                         const RootOptions& options = {}) {
  std::vector<at::Tensor> values;
  on_all_ranks(ranks, [&](int rank, const test::Group& group) {
    Model model;
    Root optimizer(model.groups(options));
    distribute(optimizer, group);
    take_steps(model, optimizer, 0, 3);
    save_sharded(optimizer, folder, 3);
    if (rank > 0) return;
    for (const at::Tensor& value : model.all()) values.push_back(value.detach().clone());
  });
  return values;
}

void set_values(const Model& model, const std::vector<at::Tensor>& values) {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < values.size(); ++i) model.all()[i].copy_(values[i]);
}

std::string read(const std::string& path) { return root_optim::detail::read_all(path, "test"); }

void write(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

}  // namespace

TEST_CASE("files of N ranks go on with M, bit by bit") {
  Model whole;
  Root one(whole.groups(RootOptions()));
  take_steps(whole, one, 0, 3);
  const std::string at_three = test::saved(one);
  take_steps(whole, one, 3, 5);
  const std::string expected = bits_of(whole.all()), at_five = test::saved(one);

  for (const int from : {1, 2, 3, 4}) {
    const Folder folder("sharded");
    const std::vector<at::Tensor> values = save_three_steps(from, folder.path);
    CHECK(folder.names().size() == static_cast<size_t>(from) + 1);
    {
      Model model;
      Root alone(model.groups(RootOptions()));
      CHECK(load_sharded(alone, folder.path) == 3);
      CHECK((test::saved(alone) == at_three));
    }
    for (const int to : {1, 2, 3, 4}) {
      INFO(from << " ranks, then " << to);
      std::vector<std::string> bits(static_cast<size_t>(to));
      std::string again;
      on_all_ranks(to, [&](int rank, const test::Group& group) {
        Model model;
        Root optimizer(model.groups(RootOptions().lr(1)));  // the file has another
        set_values(model, values);
        distribute(optimizer, group);
        TORCH_CHECK(load_sharded(optimizer, folder.path) == 3);
        take_steps(model, optimizer, 3, 5);
        consolidate(optimizer, to - 1);
        if (rank == to - 1) again = test::saved(optimizer);
        bits[static_cast<size_t>(rank)] = bits_of(model.all());
      });
      for (const std::string& rank : bits) CHECK((rank == expected));
      CHECK((again == at_five));
    }
  }
}

TEST_CASE("all that state has is in the files: masters, moments of rows, counters, cut and whole") {
  const auto options = RootOptions().master_weights(true).update_beta(0.9);
  const auto take_bad_steps = [](const Model& model, Root& optimizer) {
    for (int64_t step = 0; step < 3; ++step) {
      model.set_gradients(step);
      const at::NoGradGuard no_grad;
      if (step == 1) model.others.back().mutable_grad()[4000] = NAN;  // of a tensor that is cut
      if (step == 2) model.others[1].mutable_grad().reset();
      optimizer.step();
    }
  };
  Model whole;
  Root one(whole.groups(options));
  take_bad_steps(whole, one);
  const std::string expected = test::saved(one);
  const Folder folder("sharded_all");
  on_all_ranks(3, [&](int, const test::Group& group) {
    Model model;
    Root optimizer(model.groups(options));
    distribute(optimizer, group);
    take_bad_steps(model, optimizer);
    save_sharded(optimizer, folder.path, 3);
  });
  Model model;
  Root alone(model.groups(options));
  load_sharded(alone, folder.path);
  CHECK((test::saved(alone) == expected));
  std::string two;
  on_all_ranks(2, [&](int rank, const test::Group& group) {
    Model shared;
    Root optimizer(shared.groups(options));
    distribute(optimizer, group);
    load_sharded(optimizer, folder.path);
    consolidate(optimizer, 0);
    if (rank == 0) two = test::saved(optimizer);
  });
  CHECK((two == expected));
}

TEST_CASE("an optimizer without state is saved and loaded") {
  const Folder folder("sharded_new");
  on_all_ranks(2, [&](int, const test::Group& group) {
    Model model;
    Root optimizer(model.groups(RootOptions().momentum(0.7)));
    distribute(optimizer, group);
    save_sharded(optimizer, folder.path, 0);
  });
  Model model;
  Root alone(model.groups(RootOptions())), same(model.groups(RootOptions().momentum(0.7)));
  take_steps(model, alone, 0, 1);
  CHECK(load_sharded(alone, folder.path) == 0);
  CHECK((test::saved(alone) == test::saved(same)));
}

TEST_CASE("a save leaves one set, and no file that is not its own is touched") {
  const Folder folder("sharded_sets");
  fs::create_directories(folder.path);
  const std::vector<std::string> others{"model-3.pt", "step-3.pt", "step-x.rank-0-of-2.pt",
                                        "step-5.rank-0-of-2.pt.old"};
  for (const std::string& name : others) write(folder.file(name), "mine");
  // What killed saves leave.
  for (const char* name :
       {"step-9.rank-0-of-7.pt", "step-9.2.rank-3-of-7.pt",
        "step-9.rank-1-of-7.pt.00112233445566ff.partial", "manifest.pt.00112233445566ff.partial"}) {
    write(folder.file(name), "a part");
  }
  std::vector<std::vector<std::string>> names;
  on_all_ranks(2, [&](int rank, const test::Group& group) {
    Model model;
    Root optimizer(model.groups(RootOptions()));
    distribute(optimizer, group);
    for (const int64_t step : {3, 3, 3, 4}) {
      save_sharded(optimizer, folder.path, step);
      save_sharded(optimizer, folder.path + "/of_nothing", 0);  // so that rank 0 has deleted
      if (rank == 0) names.push_back(folder.names());
      save_sharded(optimizer, folder.path + "/of_nothing", 0);
    }
  });
  const auto expect = [&](const std::string& prefix) {
    std::vector<std::string> all = others;
    all.insert(all.end(), {"manifest.pt", "of_nothing", prefix + ".rank-0-of-2.pt",
                           prefix + ".rank-1-of-2.pt"});
    std::sort(all.begin(), all.end());
    return all;
  };
  REQUIRE(names.size() == 4);
  CHECK(names[0] == expect("step-3"));
  CHECK(names[1] == expect("step-3.1"));
  CHECK(names[2] == expect("step-3"));
  CHECK(names[3] == expect("step-4"));
}

TEST_CASE("a scheduler is saved with the files, and loaded") {
  const Folder folder("sharded_scheduler"), without("sharded_without");
  const LrSchedule schedule = LrSchedule::linear(4);
  std::vector<std::string> none(2);
  std::vector<int64_t> steps(2);
  on_all_ranks(2, [&](int rank, const test::Group& group) {
    Model model;
    Root optimizer(model.groups(RootOptions()));
    distribute(optimizer, group);
    LrScheduler scheduler(optimizer, schedule);
    scheduler.step();
    scheduler.step();
    save_sharded(optimizer, scheduler, folder.path, 2);
    save_sharded(optimizer, without.path, 2);
    scheduler.step();
    none[static_cast<size_t>(rank)] =
        message_of([&] { load_sharded(optimizer, scheduler, without.path); });
    load_sharded(optimizer, scheduler, folder.path);
    steps[static_cast<size_t>(rank)] = scheduler.current_step();
  });
  for (size_t rank = 0; rank < 2; ++rank) {
    CHECK(steps[rank] == 2);
    CHECK_THAT(none[rank],
               contains("expected the step and the base learning rates of a scheduler"));
  }
  Model model;
  Root alone(model.groups(RootOptions()));
  CHECK(load_sharded(alone, folder.path) == 2);
}

TEST_CASE("what is missing or damaged is named on every rank, and nothing has changed") {
  const Folder good("sharded_good"), bad("sharded_bad");
  const std::vector<at::Tensor> values = save_three_steps(2, good.path);
  const std::string manifest = "manifest.pt", shard = "step-3.rank-1-of-2.pt";
  const auto cut = [&](const std::string& name, size_t size) {
    write(bad.file(name), read(bad.file(name)).substr(0, size));
  };
  const auto flip = [&](const std::string& name, size_t from_end) {
    std::string bytes = read(bad.file(name));
    char& byte = bytes[bytes.size() - from_end];
    byte = static_cast<char>(byte ^ 1);
    write(bad.file(name), bytes);
  };
  struct Case {
    std::function<void()> damage;
    std::vector<std::string> texts;
  };
  const std::vector<Case> cases{
      {[&] { fs::remove(bad.file(manifest)); }, {"expected a file that can be read", manifest}},
      {[&] { cut(manifest, 500); }, {"do not end as one", manifest}},
      {[&] { cut(manifest, 0); }, {"got an empty file", manifest}},
      {[&] { flip(manifest, 600); }, {"the file is damaged", manifest}},
      {[&] {
         fs::copy_file(bad.file(shard), bad.file(manifest), fs::copy_options::overwrite_existing);
       },
       {"expected a manifest that save_sharded wrote", manifest}},
      {[&] { fs::remove(bad.file(shard)); },
       {"rank 1: ", "expected a file that can be read", shard}},
      {[&] { cut(shard, 5000); }, {"rank 1: ", "got 5000: the file is cut short", shard}},
      {[&] { flip(shard, 5000); },
       {"rank 1: ", "expected the digest", "the file is damaged", shard}},
      {[&] { flip(shard, 1); },
       {"rank 1: ", "expected the digest", "of another checkpoint", shard}},
  };
  for (const Case& one : cases) {
    fs::remove_all(bad.path);
    fs::copy(good.path, bad.path);
    one.damage();
    std::vector<std::string> thrown(2), bits(2);
    std::string before, after, expected;
    on_all_ranks(2, [&](int rank, const test::Group& group) {
      const auto at = static_cast<size_t>(rank);
      Model model;
      Root optimizer(model.groups(RootOptions()));
      distribute(optimizer, group);
      take_steps(model, optimizer, 0, 1);
      consolidate(optimizer, 0);
      if (rank == 0) before = test::saved(optimizer);
      thrown[at] = message_of([&] { load_sharded(optimizer, bad.path); });
      consolidate(optimizer, 0);
      if (rank == 0) after = test::saved(optimizer);
      load_sharded(optimizer, good.path);  // the ranks are in step
      set_values(model, values);
      take_steps(model, optimizer, 3, 4);
      bits[at] = bits_of(model.all());
    });
    INFO(thrown[0]);
    CHECK(thrown[0] == thrown[1]);
    for (const std::string& text : one.texts) CHECK_THAT(thrown[0], contains(text));
    CHECK((before == after));
    CHECK((bits[0] == bits[1]));
    Model model;
    Root alone(model.groups(RootOptions()));
    const std::string empty = test::saved(alone);
    CHECK_THAT(message_of([&] { load_sharded(alone, bad.path); }), contains(one.texts.back()));
    CHECK((test::saved(alone) == empty));
  }
}

TEST_CASE("files of another optimizer are refused on every rank") {
  const Folder folder("sharded_other");
  save_three_steps(3, folder.path);
  std::vector<std::string> fewer(2), named(2), other(2), elsewhere(2);
  on_all_ranks(2, [&](int rank, const test::Group& group) {
    const auto at = static_cast<size_t>(rank);
    Model model;
    const auto refused = [&](auto&& optimizer, std::string& message) {
      distribute(optimizer, group);
      message = message_of([&] { load_sharded(optimizer, folder.path); });
    };
    Model less;
    less.others.pop_back();
    refused(Root(less.groups(RootOptions())), fewer[at]);
    Model shape;
    shape.others[1] = at::zeros({41}).requires_grad_();
    refused(Root(shape.groups(RootOptions())), named[at]);
    refused(Muon(model.groups(MuonOptions())), other[at]);
    Root optimizer(model.groups(RootOptions()));
    distribute(optimizer, group);
    elsewhere[at] =
        message_of([&] { load_sharded(optimizer, rank == 1 ? "no such folder" : folder.path); });
  });
  for (size_t rank = 0; rank < 2; ++rank) {
    CHECK_THAT(fewer[rank], contains("rank 0: root_optim::load: expected 12 parameters in group 1, "
                                     "got 13"));
    CHECK_THAT(named[rank], contains("rank 0: root_optim::load: expected the shape of"));
    CHECK_THAT(other[rank], contains("rank 0: root_optim::"));
    CHECK_THAT(elsewhere[rank],
               contains("rank 1: root_optim::load_sharded: expected a file that can "
                        "be read, got 'no such folder/manifest.pt'"));
  }
}

TEST_CASE("a save that fails on one rank fails on all, and the old files stay") {
  const Folder folder("sharded_fails"), apart("sharded_apart");
  std::vector<std::string> no_folder(2), two_folders(2), steps(2), negative(2), options(2);
  std::vector<std::string> names_before, names_after;
  on_all_ranks(2, [&](int rank, const test::Group& group) {
    const auto at = static_cast<size_t>(rank);
    Model model;
    Root optimizer(model.groups(RootOptions()));
    distribute(optimizer, group);
    take_steps(model, optimizer, 0, 3);
    save_sharded(optimizer, folder.path, 3);
    if (rank == 0) {
      names_before = folder.names();
      write(folder.path + ".file", "no folder");
    }
    const auto save_to = [&](const std::string& path, int64_t step) {
      return message_of([&] { save_sharded(optimizer, path, step); });
    };
    negative[at] = save_to(folder.path, -1);
    no_folder[at] = save_to(rank == 1 ? folder.path + ".file" : folder.path, 4);
    two_folders[at] = save_to(rank == 1 ? apart.path : folder.path, 4);
    steps[at] = save_to(folder.path, 4 + rank);
    if (rank == 1) optimizer.options(0).lr(0.5);
    options[at] = save_to(folder.path, 4);
  });
  names_after = folder.names();
  fs::remove(folder.path + ".file");
  for (size_t rank = 0; rank < 2; ++rank) {
    CHECK_THAT(negative[rank], contains("rank 0: root_optim::save_sharded: expected a step >= 0"));
    CHECK_THAT(no_folder[rank], contains("rank 1: root_optim::save_sharded: expected a folder"));
    CHECK_THAT(two_folders[rank],
               contains("rank 0 does not see 'step-4.rank-1-of-2.pt' of rank 1"));
    CHECK_THAT(steps[rank], contains("expected equal steps to save on all ranks"));
    CHECK_THAT(options[rank], contains("expected equal options on all ranks"));
  }
  CHECK(names_after == names_before);
  CHECK(apart.names().empty());
  Model model;
  Root alone(model.groups(RootOptions()));
  CHECK_THAT(message_of([&] { save_sharded(alone, folder.path, 3); }),
             contains("expected a distributed optimizer, got one of one process"));
  CHECK(load_sharded(alone, folder.path) == 3);
  CHECK_THAT(message_of([&] { load(alone, folder.file("step-3.rank-0-of-2.pt")); }),
             contains("expected a whole checkpoint, got a file of one"));
  CHECK_THAT(message_of([&] { load(alone, folder.file("manifest.pt")); }),
             contains("expected a whole checkpoint, got a file of one"));
}
