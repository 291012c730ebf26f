// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
#include "model.hpp"
#include "ranks.hpp"
#include "unreliable.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <root_optim/calibration.hpp>
#include <root_optim/distributed.hpp>
#include <stdexcept>
#include <string>
#include <vector>

using namespace root_optim;
using test::bits_of;
using test::calls_before_throwing;
using test::Model;
using test::on_all_ranks;
using test::Uncertain;
using test::UncertainOptions;

namespace {

/// What one process makes of some steps: the bits of all parameters, and the file.
struct Expected {
  std::string bits, file;
};
template <class Optimizer, class Options>
Expected one_process(const Options& options, int64_t steps) {
  Model model;
  Optimizer optimizer(model.groups(options));
  for (int64_t step = 0; step < steps; ++step) {
    model.set_gradients(step);
    optimizer.step();
  }
  return {bits_of(model.all()), test::saved(optimizer)};
}

/// A momentum that differs from step to step.
RootOptions rising() { return RootOptions().momentum_start(.5).momentum_warmup(6); }

template <class Optimizer, class Options>
void check_equal_bits(const Options& options, const DistributedOptions& distributed = {}) {
  const Expected expected = one_process<Optimizer>(options, 4);
  for (const int size : {1, 2, 3, 4}) {
    std::vector<std::string> bits(static_cast<size_t>(size)), files(bits.size());
    on_all_ranks(size, [&](int rank, const test::Group& group) {
      Model model;
      Optimizer optimizer(model.groups(options));
      distribute(optimizer, group, distributed);
      for (int64_t step = 0; step < 4; ++step) {
        model.set_gradients(step);
        optimizer.step();
      }
      consolidate(optimizer, size - 1);
      if (rank == size - 1) files[static_cast<size_t>(rank)] = test::saved(optimizer);
      bits[static_cast<size_t>(rank)] = bits_of(model.all());
    });
    INFO(size << " ranks");
    for (const std::string& one : bits) CHECK((one == expected.bits));
    CHECK((files.back() == expected.file));
  }
}

}  // namespace

TEST_CASE("ranks have the bits of one process") {
  SECTION("Root") { check_equal_bits<Root>(RootOptions()); }
  SECTION("matrices one by one") { check_equal_bits<Muon>(MuonOptions(1e-2).batch_bytes(0)); }
  SECTION("balanced updates, the filter on all gradients") {
    check_equal_bits<Root>(RootOptions().update_beta(.9).filter_place(FilterPlace::AllGradients));
  }
  SECTION("master weights") { check_equal_bits<Root>(RootOptions().master_weights(true)); }
  SECTION("a rising momentum") { check_equal_bits<Root>(rising()); }
  SECTION("every item in a bucket of its own") {
    check_equal_bits<Root>(RootOptions(), DistributedOptions().bucket_bytes(1));
  }
  SECTION("one bucket") {
    check_equal_bits<Root>(RootOptions(), DistributedOptions().bucket_bytes(int64_t{1} << 40));
  }
}

TEST_CASE("ranks may have nothing to do") {
  const auto run = [](const auto& share) {
    std::vector<at::Tensor> parameters{at::ones({16, 24}).requires_grad_()};
    Root optimizer(parameters);
    share(optimizer);
    for (int step = 0; step < 3; ++step) {
      parameters[0].mutable_grad() = at::arange(16. * 24).sub(100. * step).reshape({16, 24});
      optimizer.step();
    }
    return bits_of(parameters);
  };
  const std::string expected = run([](Root&) {});
  on_all_ranks(4, [&](int, const test::Group& group) {
    const std::string bits = run([&](Root& optimizer) { distribute(optimizer, group); });
    TORCH_CHECK(bits == expected);
  });
}

TEST_CASE("parameters without a gradient stay as they are") {
  const RootOptions options = GENERATE(RootOptions(), rising());
  const auto run = [&](const auto& share) {
    Model model;
    Root optimizer(model.groups(options));
    share(optimizer);
    for (int64_t step = 0; step < 5; ++step) {
      model.set_gradients(step);
      const std::vector<at::Tensor> all = model.all();
      for (size_t i = 0; i < all.size(); ++i) {  // others each time, in the fourth step all
        at::Tensor parameter = all[i];
        if ((i + static_cast<size_t>(step)) % 3 == 0 || step == 3) parameter.mutable_grad().reset();
      }
      optimizer.step();
    }
    return bits_of(model.all());
  };
  const std::string expected = run([](Root&) {});
  for (const int size : {2, 3}) {
    on_all_ranks(size, [&](int, const test::Group& group) {
      const std::string bits = run([&](Root& optimizer) {
        distribute(optimizer, group, DistributedOptions().bucket_bytes(4000));
      });
      TORCH_CHECK(bits == expected);
    });
  }
}

TEST_CASE("gradients that are not finite are treated as one process treats them") {
  constexpr double inf = std::numeric_limits<double>::infinity();
  const NonFinite policy =
      GENERATE(NonFinite::Skip, NonFinite::SkipGroup, NonFinite::Zero, NonFinite::Propagate);
  const auto run = [&](const auto& share, const auto& save) {
    Model model;
    Root optimizer(model.groups(RootOptions().non_finite(policy)));
    share(optimizer);
    for (int64_t step = 0; step < 4; ++step) {
      model.set_gradients(step);
      if (step == 1) model.matrices[2].mutable_grad().view(-1)[3] = inf;
      if (step == 1) model.others.back().mutable_grad()[5000] = -inf;
      if (step == 2) model.others[3].mutable_grad().view(-1)[3] = inf;
      if (step == 3) model.others[4].mutable_grad().mul_(1e25);  // overflows when it is squared
      optimizer.step();
    }
    return bits_of(model.all()) + save(optimizer);
  };
  const std::string expected =
      run([](Root&) {}, [](Root& optimizer) { return test::saved(optimizer); });
  for (const int size : {2, 3, 4}) {
    std::string got;
    on_all_ranks(size, [&](int rank, const test::Group& group) {
      const std::string one = run([&](Root& optimizer) { distribute(optimizer, group); },
                                  [&](Root& optimizer) {
                                    consolidate(optimizer, 0);
                                    return rank == 0 ? test::saved(optimizer) : "";
                                  });
      if (rank == 0) got = one;
    });
    INFO(size << " ranks");
    CHECK((got == expected));
  }
}

TEST_CASE("NonFinite::Raise throws on every rank, before anything changes") {
  std::vector<std::string> before(3), after(3);
  const std::vector<std::string> thrown =
      test::on_ranks(3, [&](int rank, const test::Group& group) {
        Model model;
        Root optimizer(model.groups(RootOptions().non_finite(NonFinite::Raise)));
        distribute(optimizer, group);
        const auto at = static_cast<size_t>(rank);
        before[at] = bits_of(model.all());
        model.set_gradients(0);
        model.others[2].mutable_grad().view(-1)[0] = std::numeric_limits<double>::quiet_NaN();
        try {
          optimizer.step();
        } catch (...) {
          after[at] = bits_of(model.all());
          throw;
        }
      });
  for (size_t rank = 0; rank < 3; ++rank) {
    CHECK_THAT(thrown[rank],
               test::contains("rank 0: root_optim::step: expected a finite gradient"));
    CHECK(thrown[rank] == thrown[0]);
    CHECK((before[rank] == after[rank]));
  }
}

TEST_CASE("a rank that fails to compute makes all throw, and no bucket is committed in part") {
  const int failing = GENERATE(0, 1, 2), call = GENERATE(0, 1);
  const bool one_bucket = GENERATE(false, true);
  const auto distributed =
      DistributedOptions().bucket_bytes(one_bucket ? int64_t{1} << 40 : int64_t{8000});
  const Expected expected = one_process<Uncertain>(UncertainOptions().batch_bytes(0), 3);
  std::vector<std::string> thrown(3), between(3), bits(3);
  std::string before;
  on_all_ranks(3, [&](int rank, const test::Group& group) {
    const auto at = static_cast<size_t>(rank);
    Model model;
    Uncertain optimizer(model.groups(UncertainOptions().batch_bytes(0)));
    distribute(optimizer, group, distributed);
    for (int64_t step = 0; step < 3; ++step) {
      model.set_gradients(step);
      if (step == 1) {  // fails once, then is taken again
        if (rank == 0) before = bits_of(model.all());
        calls_before_throwing = rank == failing ? call : -1;
        try {
          optimizer.step();
        } catch (const c10::Error& error) {
          thrown[at] = error.what_without_backtrace();
        }
        calls_before_throwing = -1;
        between[at] = bits_of(model.all());
        if (!one_bucket) break;  // parts of the step are taken
      }
      optimizer.step();
    }
    bits[at] = bits_of(model.all());
  });
  for (size_t rank = 0; rank < 3; ++rank) {
    CHECK(thrown[rank] == "rank " + std::to_string(failing) + ": out of luck");
    CHECK((between[rank] == between[0]));
    if (one_bucket) {
      CHECK((between[rank] == before));
      CHECK((bits[rank] == expected.bits));
    }
  }
}

TEST_CASE("ranks that differ are refused, all with the message that says where") {
  // In each case rank 1 differs.
  struct Case {
    const char* message;
    RootOptions options;
    int64_t seed, bucket_bytes;
    bool without_group;
  };
  const DistributedOptions defaults;
  const int64_t bytes = defaults.bucket_bytes();
  std::vector<std::string> names;
  for (size_t i = 0; i < Model().matrices.size(); ++i) names.push_back("w" + std::to_string(i));
  const std::vector<Case> cases = {
      {"lr: ", RootOptions(2e-3), 1, bytes, false},
      {"momentum: ", RootOptions().momentum(.9), 1, bytes, false},
      {"filter.value: ", RootOptions().filter(SoftThreshold().scaled(4, 3)), 1, bytes, false},
      {"batch_bytes: ", RootOptions().batch_bytes(0), 1, bytes, false},
      {"master_weights: ", RootOptions().master_weights(true), 1, bytes, false},
      {"bucket_bytes: ", RootOptions(), 1, 1000, false},
      {"values of parameter (group 0, index 0, shape [24, 40])", RootOptions(), 2, bytes, false},
      {"number of groups: ", RootOptions(), 1, bytes, true},
  };
  for (const Case& other : cases) {
    const std::vector<std::string> thrown =
        test::on_ranks(3, [&](int rank, const test::Group& group) {
          const bool differs = rank == 1;
          Model model(differs ? other.seed : 1);
          auto groups = model.groups(differs ? other.options : RootOptions());
          if (differs && other.without_group) groups.pop_back();
          Root optimizer(groups);
          distribute(optimizer, group,
                     DistributedOptions().bucket_bytes(differs ? other.bucket_bytes : bytes));
        });
    for (const std::string& one : thrown) {
      INFO(other.message);
      CHECK_THAT(one, test::contains("root_optim::distribute: expected the same on every rank"));
      CHECK_THAT(one, test::contains(other.message));
      CHECK_THAT(one, test::contains("on rank 1"));
      CHECK(one == thrown[0]);
    }
  }
  SECTION("names") {
    for (const std::string& one : test::on_ranks(2, [&](int rank, const test::Group&group) {
           Model model;
           std::vector<std::string> own = names;
           if (rank == 1) own[2] = "another";
           Root optimizer(model.matrices, RootOptions().names(own));
           distribute(optimizer, group);
         })) {
      CHECK_THAT(one, test::contains("'w2' [24, 40] Float cpu"));
      CHECK_THAT(one, test::contains("'another' [24, 40] Float cpu"));
    }
  }
  SECTION("state") {
    for (const std::string& one : test::on_ranks(2, [&](int rank, const test::Group&group) {
           Model model;
           Root optimizer(model.groups(RootOptions().lr(0)));
           model.set_gradients(0);
           if (rank == 1) optimizer.step();
           distribute(optimizer, group);
         })) {
      CHECK_THAT(one, test::contains("state, by its checksum"));
    }
  }
  SECTION("threads") {
    for (const std::string& one : test::on_ranks(2, [&](int rank, const test::Group&group) {
           Model model;
           Root optimizer(model.groups(RootOptions()));
           at::set_num_threads(1 + rank);
           distribute(optimizer, group);
         })) {
      CHECK_THAT(one, test::contains("number of threads: 1"));
    }
  }
  SECTION("an optimizer that is distributed already") {
    for (const std::string& one : test::on_ranks(2, [&](int, const test::Group& group) {
           Model model;
           Root optimizer(model.groups(RootOptions()));
           distribute(optimizer, group);
           distribute(optimizer, group);
         })) {
      CHECK_THAT(one, test::contains("expected an optimizer of one process, got a distributed"));
    }
  }
}

TEST_CASE("a step is refused where ranks differ, and the next one goes on") {
  const Expected expected = one_process<Root>(RootOptions(), 2);
  std::vector<std::string> of_options(2), of_gradient(2), of_structure(2), bits(2);
  on_all_ranks(2, [&](int rank, const test::Group& group) {
    const auto at = static_cast<size_t>(rank);
    Model model;
    Root optimizer(model.groups(RootOptions()));
    distribute(optimizer, group);
    const auto refused = [&](std::vector<std::string>& messages) {
      try {
        optimizer.step();
      } catch (const c10::Error& error) {
        messages[at] = error.what_without_backtrace();
      }
    };
    auto& options = static_cast<RootOptions&>(optimizer.param_groups()[0].options());
    model.set_gradients(0);
    if (rank == 1) options.lr(.5);
    refused(of_options);
    options.lr(RootOptions().lr());
    if (rank == 1) model.others[2].mutable_grad().reset();
    refused(of_gradient);
    model.set_gradients(0);
    options.batch_bytes(0);
    refused(of_structure);
    options.batch_bytes(RootOptions().batch_bytes());
    optimizer.step();
    model.set_gradients(1);
    optimizer.step();
    bits[at] = bits_of(model.all());
  });
  for (size_t rank = 0; rank < 2; ++rank) {
    CHECK_THAT(of_options[rank], test::contains("expected equal options on all ranks, got others "
                                                "on rank 1"));
    CHECK_THAT(of_gradient[rank],
               test::contains("expected a gradient on all ranks or on none, got one on rank 0, but "
                              "not on rank 1, of parameter (group 1, index 2"));
    CHECK_THAT(of_structure[rank], test::contains("rank 0: root_optim::step: expected the "
                                                  "parameters, rules, layouts and batch_bytes"));
    CHECK((bits[rank] == expected.bits));
  }
}

TEST_CASE("steps that are to be captured are refused, before and after `distribute`") {
  for (const bool late : {false, true}) {
    for (const std::string& one : test::on_ranks(2, [&](int, const test::Group& group) {
           Model model;
           Root optimizer(model.groups(RootOptions()));
           model.set_gradients(0);
           if (!late) optimizer.options(1).capturable(true);
           distribute(optimizer, group);
           optimizer.options(1).capturable(true);
           optimizer.step();
         })) {
      CHECK_THAT(one, test::contains("`capturable`"));
    }
  }
}

TEST_CASE("a calibrator refuses a distributed optimizer") {
  const std::vector<std::string> thrown = test::on_ranks(1, [&](int, const test::Group& group) {
    Model model;
    Root optimizer(model.matrices);
    distribute(optimizer, group);
    Calibrator<SoftThreshold>(optimizer).step();
  });
  CHECK_THAT(thrown[0],
             test::contains("root_optim::Calibrator: expected an optimizer of one process"));
}

TEST_CASE("a group cannot be added to a distributed optimizer") {
  const std::vector<std::string> thrown = test::on_ranks(1, [&](int, const test::Group& group) {
    Model model;
    Root optimizer(model.matrices);
    distribute(optimizer, group);
    optimizer.add_param_group(torch::optim::OptimizerParamGroup(model.others));
  });
  CHECK_THAT(thrown[0], test::contains("root_optim::add_param_group: expected all groups before"));
}

TEST_CASE("schedulers and closures work as with one process") {
  const auto run = [](const auto& share) {
    Model model;
    Root optimizer(model.groups(RootOptions()));
    share(optimizer);
    LrScheduler scheduler(optimizer, LrSchedule::cosine(6));
    double sum = 0;
    for (int64_t step = 0; step < 6; ++step) {
      const at::Tensor loss = optimizer.step([&] {
        model.set_gradients(step);
        return at::ones({});
      });
      sum += loss.data_ptr<float>()[0];
      scheduler.step();
    }
    return bits_of(model.all()) + std::to_string(sum);
  };
  const std::string expected = run([](Root&) {});
  on_all_ranks(2, [&](int, const test::Group& group) {
    const std::string got = run([&](Root& optimizer) { distribute(optimizer, group); });
    TORCH_CHECK(got == expected);
  });
}

TEST_CASE("only the owner keeps state") {
  const int size = 3;
  std::vector<double> kept(size);
  on_all_ranks(size, [&](int rank, const test::Group& group) {
    Model model;
    Root optimizer(model.groups(RootOptions()));
    distribute(optimizer, group);
    model.set_gradients(0);
    optimizer.step();
    for (const auto& entry : optimizer.state()) {
      const auto& state = static_cast<const ParamState&>(*entry.second);
      for (const ParamState::Slot& slot : ParamState::slot_list()) {
        const at::Tensor& tensor = state.*slot.tensor;
        if (tensor.defined())
          kept[static_cast<size_t>(rank)] += static_cast<double>(tensor.nbytes());
      }
    }
  });
  double sum = 0, most = 0;
  for (const double one : kept) {
    sum += one;
    most = (std::max)(most, one);
  }
  // Measured: .3434 where large tensors of AdamW are cut, else .4044.
  CHECK(most < (ROOT_OPTIM_HAS_FUSED_ADAMW ? .35 : .41) * sum);
}

TEST_CASE("shares cover every unit once, and level the bytes of state") {
  const auto unit = [](bool adamw, int64_t bytes, int64_t rows, int64_t at_once) {
    return root_optim::detail::Unit{{0},   0,     adamw, static_cast<double>(bytes),
                                    bytes, bytes, rows,  at_once};
  };
  const std::vector<root_optim::detail::Unit> units = {
      unit(true, 9000000, 9000, 4), unit(false, 700000, 0, 1), unit(false, 400000, 0, 1),
      unit(true, 50000, 0, 1), unit(true, 3000000, 1500, 16)};
  const int64_t ranks = GENERATE(1, 2, 3, 4, 8);
  const int64_t most = GENERATE(int64_t{1}, int64_t{100000}, int64_t{1} << 40);
  std::vector<int64_t> covered(units.size()), bytes(static_cast<size_t>(ranks));
  for (const root_optim::detail::Share& share : root_optim::detail::shares_of(units, ranks, most)) {
    const root_optim::detail::Unit& of = units[share.unit];
    CHECK(share.first == covered[share.unit]);  // in order, without gaps
    CHECK(share.first % of.rows_at_once == 0);
    covered[share.unit] += share.rows;
    const int64_t share_bytes =
        of.rows == 0 ? of.state_bytes : of.state_bytes / of.rows * share.rows;
    CHECK((of.rows == 0 || share_bytes <= (std::max)(most, int64_t{32000})));  // 16 rows of 2000
    bytes[static_cast<size_t>(share.owner)] += share_bytes;
  }
  for (size_t u = 0; u < units.size(); ++u) CHECK(covered[u] == units[u].rows);
  const auto heaviest = static_cast<double>(*std::max_element(bytes.begin(), bytes.end()));
  // All is 13150000 bytes, and a rank takes at least 700000; a cut is 32000 bytes off at most.
  CHECK(heaviest <= 13150000. / static_cast<double>(ranks) + 32000.);
}

TEST_CASE("every owner of a part of a tensor counts its faults, and forgets it") {
  if (!ROOT_OPTIM_HAS_FUSED_ADAMW) {
    WARN("parts: skipped, LibTorch before 2.4 has no fused AdamW on the CPU, and nothing is cut");
    return;
  }
  std::vector<int64_t> counted(2), entries(2), left(2);
  on_all_ranks(2, [&](int rank, const test::Group& group) {
    at::Tensor parameter = at::ones({100, 60}).requires_grad_();
    Root optimizer({parameter}, RootOptions().rule(Rule::AdamW));
    distribute(optimizer, group);
    parameter.mutable_grad() = at::ones({100, 60});
    optimizer.step();
    parameter.mutable_grad()[99][59] = std::numeric_limits<double>::infinity();
    optimizer.step();
    const auto at = static_cast<size_t>(rank);
    for (const GradientFaults& faults : gradient_faults(optimizer)) counted[at] += faults.skipped;
    entries[at] = static_cast<int64_t>(optimizer.state().size());
    optimizer.forget(parameter);
    left[at] = static_cast<int64_t>(optimizer.state().size());
  });
  CHECK(counted == std::vector<int64_t>{1, 1});
  CHECK((entries[0] > 0 && entries[1] > 0));
  CHECK(left == std::vector<int64_t>{0, 0});
}

TEST_CASE("autograd notices that a tensor which is cut was stepped") {
  on_all_ranks(2, [&](int, const test::Group& group) {
    at::Tensor parameter = at::ones({100, 60}).requires_grad_();
    Root optimizer({parameter}, RootOptions().rule(Rule::AdamW));
    distribute(optimizer, group);
    const at::Tensor kept = parameter.square().sum();
    parameter.mutable_grad() = at::ones({100, 60});
    optimizer.step();
    bool refused = false;
    try {
      kept.backward();
    } catch (const c10::Error&) {
      refused = true;
    }
    TORCH_CHECK(refused);
    TORCH_CHECK(parameter.detach().ne(1).all().item<bool>());
  });
}

TEST_CASE("a rank that leaves early is noticed within the timeout, and further steps are refused") {
  std::vector<std::string> further(3);
  const std::vector<std::string> thrown = test::on_ranks(
      3,
      [&](int rank, const test::Group& group) {
        Model model;
        Root optimizer(model.groups(RootOptions()));
        distribute(optimizer, group);
        model.set_gradients(0);
        optimizer.step();
        if (rank == 2) return;
        try {
          optimizer.step();
        } catch (const c10::Error&) {
          try {
            optimizer.step();
          } catch (const c10::Error& error) {
            further[static_cast<size_t>(rank)] = error.what_without_backtrace();
          }
          throw;
        }
      },
      std::chrono::seconds(2));
  for (size_t rank = 0; rank < 2; ++rank) {
    CHECK_THAT(thrown[rank], test::contains("expected every rank to take part, got, in step 2"));
    CHECK_THAT(further[rank], test::contains("expected ranks in step, got a failure in step 2"));
  }
  CHECK(thrown[2] == "");
}
