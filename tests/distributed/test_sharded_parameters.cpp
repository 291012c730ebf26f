// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
#include "ranks.hpp"
#include "sharded_model.hpp"
#include "unreliable.hpp"

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <root_optim/distributed.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using namespace root_optim;
using test::bits_of;
using test::calls_before_throwing;
using test::on_all_ranks;
using test::ShardedModel;
using test::Split;
using test::Uncertain;
using test::UncertainOptions;

namespace {

/// What one process makes of some steps.
struct OneProcess {
  ShardedModel model{0, 1, Split::Even};
  std::string file;
};
template <class Optimizer, class Options>
OneProcess one_process(const Options& options, int64_t steps) {
  OneProcess result;
  Optimizer optimizer(result.model.groups(options));
  for (int64_t step = 0; step < steps; ++step) {
    result.model.set_gradients(step);
    optimizer.step();
  }
  result.file = test::saved(optimizer);
  return result;
}

template <class Optimizer, class Options>
void check_equal_bits(const Options& options, const DistributedOptions& distributed = {}) {
  const OneProcess expected = one_process<Optimizer>(options, 3);
  for (const int size : {1, 2, 3, 4}) {
    for (const Split split : {Split::Even, Split::Uneven, Split::LastAlone}) {
      std::string file;
      on_all_ranks(size, [&](int rank, const test::Group& group) {
        ShardedModel model(rank, size, split);
        Optimizer optimizer(model.groups(options));
        distribute(optimizer, group, model.layouts(distributed));
        for (int64_t step = 0; step < 3; ++step) {
          model.set_gradients(step);
          optimizer.step();
        }
        consolidate(optimizer, size - 1);
        if (rank == size - 1) file = test::saved(optimizer);
        TORCH_CHECK(bits_of(model.own) == model.bits_of_parts(expected.model), "other bits");
      });
      INFO(size << " ranks, split " << static_cast<int>(split));
      CHECK((file == expected.file));
    }
  }
}

}  // namespace

TEST_CASE("shards have the bits of one process's parameters, and its file") {
  SECTION("Root") { check_equal_bits<Root>(RootOptions()); }
  SECTION("matrices one by one") { check_equal_bits<Muon>(MuonOptions(1e-2).batch_bytes(0)); }
  SECTION("balanced updates, the filter on all gradients") {
    check_equal_bits<Root>(RootOptions().update_beta(.9).filter_place(FilterPlace::AllGradients));
  }
  SECTION("momentum that rises") {
    check_equal_bits<Root>(RootOptions().momentum_start(.5).momentum_warmup(6));
  }
  SECTION("master weights") { check_equal_bits<Root>(RootOptions().master_weights(true)); }
  SECTION("every item in a bucket of its own") {
    check_equal_bits<Root>(RootOptions(), DistributedOptions().bucket_bytes(1));
  }
  SECTION("one bucket") {
    check_equal_bits<Root>(RootOptions(), DistributedOptions().bucket_bytes(int64_t{1} << 40));
  }
}

TEST_CASE("gradients that are not finite are treated alike in shards") {
  constexpr double inf = std::numeric_limits<double>::infinity();
  const NonFinite policy =
      GENERATE(NonFinite::Skip, NonFinite::SkipGroup, NonFinite::Zero, NonFinite::Propagate);
  const auto run = [&](const ShardedModel& model, const auto& share) {
    auto optimizer = std::make_unique<Root>(model.groups(RootOptions().non_finite(policy)));
    share(*optimizer);
    for (int64_t step = 0; step < 4; ++step) {
      model.set_gradients(step);
      if (step == 1) model.set_gradient(0, {20, 3}, inf);     // a matrix
      if (step == 1) model.set_gradient(13, {99, 59}, -inf);  // one that is cut, at its end
      if (step == 2) model.set_gradient(14, {3, 7}, inf);     // one that is cut, by columns
      if (step == 3) model.set_gradient(10, {39}, inf);       // one that is not cut
      if (step == 3) model.set_gradient(11, {1}, 1e30);       // overflows when it is squared
      optimizer->step();
    }
    return optimizer;
  };
  const ShardedModel whole(0, 1, Split::Even);
  const std::string expected = test::saved(*run(whole, [](Root&) {}));
  for (const int size : {2, 3, 4}) {
    std::string file;
    on_all_ranks(size, [&](int rank, const test::Group& group) {
      const ShardedModel model(rank, size, Split::Uneven);
      const auto optimizer =
          run(model, [&](Root& root) { distribute(root, group, model.layouts()); });
      consolidate(*optimizer, 0);
      if (rank == 0) file = test::saved(*optimizer);
      TORCH_CHECK(bits_of(model.own) == model.bits_of_parts(whole), "other bits");
    });
    INFO(size << " ranks");
    CHECK((file == expected));
  }
}

TEST_CASE("a shard's gradient that is refused is refused on every rank, and nothing changes") {
  const ShardedModel whole(0, 1, Split::Even);
  Root alone(whole.groups(RootOptions()));
  whole.set_gradients(1);
  alone.step();
  std::vector<std::string> raised(3), missing(3), dtype(3);
  on_all_ranks(3, [&](int rank, const test::Group& group) {
    const auto at = static_cast<size_t>(rank);
    const ShardedModel model(rank, 3, Split::Uneven);
    Root optimizer(model.groups(RootOptions()));
    distribute(optimizer, group, model.layouts());
    const std::string before = bits_of(model.own);
    const auto refused = [&] { return test::message_of([&] { optimizer.step(); }); };

    model.set_gradients(0);
    optimizer.options(1).non_finite(NonFinite::Raise);
    model.set_gradient(13, {99, 59}, std::numeric_limits<double>::quiet_NaN());
    raised[at] = refused();
    optimizer.options(1).non_finite(NonFinite::Skip);

    model.set_gradients(0);
    if (rank == 2) at::Tensor(model.own[2]).mutable_grad().reset();
    missing[at] = refused();

    model.set_gradients(0);
    if (rank == 1) {
      at::Tensor(model.own[0]).mutable_grad() = at::ones_like(model.own[0], at::kDouble);
    }
    dtype[at] = refused();
    TORCH_CHECK(bits_of(model.own) == before, "something changed");

    model.set_gradients(1);  // the shards of the first rank are empty, and need no gradient
    if (rank == 0) at::Tensor(model.own[2]).mutable_grad().reset();
    optimizer.step();
    TORCH_CHECK(bits_of(model.own) == model.bits_of_parts(whole), "other bits");
  });
  for (size_t rank = 0; rank < 3; ++rank) {
    CHECK_THAT(raised[rank], test::contains("rank 2: root_optim::step: expected a finite gradient, "
                                            "got Inf or NaN for parameter (group 1, index 4"));
    CHECK_THAT(missing[rank],
               test::contains("expected a gradient of one dtype for all shards or for none, got "
                              "another on rank 2 than on rank 1, or none on one of them, of "
                              "parameter (group 0, index 2, shape [24, 40])"));
    CHECK_THAT(dtype[rank], test::contains("another on rank 2 than on rank 1"));
  }
}

TEST_CASE("shards without a gradient stay as they are") {
  const auto run = [](const ShardedModel& model, const auto& share) {
    Root optimizer(model.groups(RootOptions()));
    share(optimizer);
    for (int64_t step = 0; step < 4; ++step) {
      model.set_gradients(step);
      for (size_t i = 0; i < model.own.size(); ++i) {
        at::Tensor parameter = model.own[i];
        if ((i + static_cast<size_t>(step)) % 3 == 0 || step == 2) parameter.mutable_grad().reset();
      }
      optimizer.step();
    }
  };
  const ShardedModel whole(0, 1, Split::Even);
  run(whole, [](Root&) {});
  for (const int size : {2, 3}) {
    on_all_ranks(size, [&](int rank, const test::Group& group) {
      const ShardedModel model(rank, size, Split::Uneven);
      run(model, [&](Root& optimizer) {
        distribute(optimizer, group, model.layouts(DistributedOptions().bucket_bytes(4000)));
      });
      TORCH_CHECK(bits_of(model.own) == model.bits_of_parts(whole), "other bits");
    });
  }
}

TEST_CASE("a rank that fails to compute leaves all shards as they were") {
  const int failing = GENERATE(0, 1, 2);
  const auto options = UncertainOptions().batch_bytes(0);
  const OneProcess expected = one_process<Uncertain>(options, 3);
  on_all_ranks(3, [&](int rank, const test::Group& group) {
    const ShardedModel model(rank, 3, Split::Uneven);
    Uncertain optimizer(model.groups(options));
    distribute(optimizer, group,
               model.layouts(DistributedOptions().bucket_bytes(int64_t{1} << 40)));
    for (int64_t step = 0; step < 3; ++step) {
      model.set_gradients(step);
      if (step == 1) {  // fails once, then is taken again
        const std::string before = bits_of(model.own);
        calls_before_throwing = rank == failing ? 1 : -1;
        const std::string thrown = test::message_of([&] { optimizer.step(); });
        calls_before_throwing = -1;
        TORCH_CHECK(thrown == "rank " + std::to_string(failing) + ": out of luck", thrown);
        TORCH_CHECK(bits_of(model.own) == before, "something changed");
      }
      optimizer.step();
    }
    TORCH_CHECK(bits_of(model.own) == model.bits_of_parts(expected.model), "other bits");
  });
}

TEST_CASE("shards that do not make a whole are refused on every rank") {
  using Change = std::function<void(int, std::vector<at::Tensor>&, DistributedOptions&)>;
  const auto shard = [](int64_t rows, int64_t cols) {
    return at::ones({rows, cols}).requires_grad_();
  };
  const std::vector<std::pair<const char*, Change>> cases = {
      {"expected shards that are together 9 along dimension 0 of parameter (group 0, index 0, "
       "shape [9, 6]), got 4 + 4 on the ranks",
       [&](int, auto& own, auto& options) { options.sharded(own[0], ShardedLayout::rows(9)); }},
      {"expected the same on every rank, got 'shards, group 0, parameter 0: of [8, 6] along "
       "dimension 0, Float' on rank 0 and 'shards, group 0, parameter 0: of [8, 5] along dimension "
       "0, Float' on rank 1",
       [&](int rank, auto& own, auto& options) {
         if (rank == 1) own[0] = shard(4, 5);
         options.sharded(own[0], ShardedLayout::rows(8));
       }},
      {"expected the same on every rank, got 'shards, group 0, parameter 0: of [4, 12] along "
       "dimension 1, Float' on rank 0 and 'shards, group 0, parameter 0: of [8, 6] along dimension "
       "0, Float' on rank 1",
       [&](int rank, auto& own, auto& options) {
         options.sharded(own[0], rank == 1 ? ShardedLayout::rows(8) : ShardedLayout::columns(12));
       }},
      {"got 'shards, group 0, parameter 0: of [8, 6] along dimension 0, Float' on rank 0 and "
       "'nothing more' on rank 1",
       [&](int rank, auto& own, auto& options) {
         if (rank == 0) options.sharded(own[0], ShardedLayout::rows(8));
       }},
      {"rank 1: root_optim::distribute: expected a ShardedLayout for parameters of the optimizer, "
       "got 2, of which 1 are",
       [&](int rank, auto& own, auto& options) {
         options.sharded(own[0], ShardedLayout::rows(8));
         if (rank == 1) options.sharded(shard(4, 6), ShardedLayout::rows(8));
       }},
      {"rank 0: root_optim::distribute: expected one ShardedLayout of parameter (group 0, index 0, "
       "shape [4, 6]), got 2",
       [&](int, auto& own, auto& options) {
         options.sharded(own[0], ShardedLayout::rows(8)).sharded(own[0], ShardedLayout::rows(8));
       }},
      {"rank 0: root_optim::distribute: expected a ShardedLayout along a dimension of parameter "
       "(group 0, index 0, shape [4, 6]), got 2",
       [&](int, auto& own, auto& options) { options.sharded(own[0], ShardedLayout::along(2, 8)); }},
      {"'group 0, parameter 1: [4, 6] Float cpu' on rank 0 and 'group 0, parameter 1: [3, 6] Float "
       "cpu' on rank 1",  // a shard that is not said to be one
       [&](int rank, auto& own, auto& options) {
         if (rank == 1) own[1] = shard(3, 6);
         options.sharded(own[0], ShardedLayout::rows(8));
       }},
  };
  for (const auto& [message, change] : cases) {
    const std::vector<std::string> thrown =
        test::on_ranks(2, [&, &alter = change](int rank, const test::Group& group) {
          std::vector<at::Tensor> own{shard(4, 6), shard(4, 6)};
          DistributedOptions options;
          alter(rank, own, options);
          Root optimizer(own);
          distribute(optimizer, group, options);
        });
    for (const std::string& one : thrown) {
      CHECK_THAT(one, test::contains(message));
      CHECK(one == thrown[0]);
    }
  }
  CHECK_THAT(test::message_of([] { ShardedLayout::along(-1, 3); }),
             test::contains("expected a dimension >= 0 and a size >= 0, got -1 and 3"));
  const std::vector<std::string> thrown = test::on_ranks(2, [&](int, const test::Group& group) {
    std::vector<at::Tensor> own{shard(4, 6)};
    Root optimizer(own);
    own[0].mutable_grad() = at::ones({4, 6});
    optimizer.step();
    distribute(optimizer, group, DistributedOptions().sharded(own[0], ShardedLayout::rows(8)));
  });
  for (const std::string& one : thrown) {
    CHECK_THAT(one, test::contains("expected no state yet of the shard parameter"));
  }
}

TEST_CASE("checkpoints of shards go on with other numbers of ranks and other splits") {
  const OneProcess at_two = one_process<Root>(RootOptions(), 2),
                   at_four = one_process<Root>(RootOptions(), 4);
  const auto go_on = [&](const ShardedModel& model, Root& optimizer, const auto& load_it) {
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < model.own.size(); ++i) {
      model.own[i].copy_(
          model.part_of(at_two.model.own[i].detach(), ShardedModel::params()[i].dim));
    }
    load_it(optimizer);
    for (int64_t step = 2; step < 4; ++step) {
      model.set_gradients(step);
      optimizer.step();
    }
    TORCH_CHECK(bits_of(model.own) == model.bits_of_parts(at_four.model), "other bits");
  };
  for (const int from : {1, 3}) {
    const std::string folder = "root_optim_test_shards";
    std::filesystem::remove_all(folder);
    on_all_ranks(from, [&](int rank, const test::Group& group) {
      const ShardedModel model(rank, from, Split::Uneven);
      Root optimizer(model.groups(RootOptions()));
      distribute(optimizer, group, model.layouts());
      for (int64_t step = 0; step < 2; ++step) {
        model.set_gradients(step);
        optimizer.step();
      }
      save_sharded(optimizer, folder, 2);
    });
    for (const int to : {1, 2, 4}) {
      for (const bool of_ranks : {false, true}) {
        INFO(from << " ranks, then " << to << (of_ranks ? ", from one file a rank" : ""));
        std::string file;
        on_all_ranks(to, [&](int rank, const test::Group& group) {
          const ShardedModel model(rank, to, Split::Even);
          Root optimizer(model.groups(RootOptions().lr(1)));  // the file has another
          distribute(optimizer, group, model.layouts());
          go_on(model, optimizer, [&](Root& root) {
            std::istringstream whole(at_two.file);
            of_ranks ? static_cast<void>(load_sharded(root, folder)) : load(root, whole);
          });
          consolidate(optimizer, 0);
          if (rank == 0) file = test::saved(optimizer);
        });
        CHECK((file == at_four.file));
      }
    }
    const ShardedModel alone(0, 1, Split::Even);  // one process that has all
    Root optimizer(alone.groups(RootOptions()));
    go_on(alone, optimizer, [&](Root& root) { load_sharded(root, folder); });
    CHECK((test::saved(optimizer) == at_four.file));
    std::filesystem::remove_all(folder);
  }
}

TEST_CASE("a whole parameter has memory during a step alone, and its faults are its shard's") {
  on_all_ranks(2, [&](int rank, const test::Group& group) {
    at::Tensor shard = at::ones({rank == 0 ? 20 : 12, 24}).requires_grad_();
    Root optimizer({shard});
    distribute(optimizer, group, DistributedOptions().sharded(shard, ShardedLayout::rows(32)));
    const auto* shared = root_optim::detail::shared_of(optimizer);
    const at::Tensor& whole = shared->shards().params()[0].whole;
    const auto check_empty = [&] {
      TORCH_CHECK(whole.sizes() == at::IntArrayRef({32, 24}) && whole.storage().nbytes() == 0 &&
                  !whole.grad().defined());
    };
    check_empty();
    const at::Tensor kept = shard.square().sum();
    shard.mutable_grad() = at::arange(24. * static_cast<double>(shard.size(0))).view_as(shard);
    optimizer.step();
    check_empty();
    bool refused = false;  // autograd notices that the shard was written
    try {
      kept.backward();
    } catch (const c10::Error&) {
      refused = true;
    }
    TORCH_CHECK(refused && shard.detach().ne(1).all().item<bool>());

    if (rank == 1) shard.mutable_grad()[3][3] = std::numeric_limits<double>::infinity();
    optimizer.step();
    check_empty();
    int64_t skipped = 0;
    for (const GradientFaults& faults : gradient_faults(optimizer)) skipped += faults.skipped;
    TORCH_CHECK(skipped == (rank == 0 ? 1 : 0), "only the owner counts, got ", skipped);
    optimizer.forget(shard);
    TORCH_CHECK(optimizer.state().empty());
  });
}

TEST_CASE("rows of AdamW's tensors are stepped where they are, but for what 64 numbers straddle") {
  if (!ROOT_OPTIM_HAS_FUSED_ADAMW) {
    WARN("parts: skipped, LibTorch before 2.4 has no fused AdamW on the CPU, and nothing is cut");
    return;
  }
  const int size = 3;
  on_all_ranks(size, [&](int rank, const test::Group& group) {
    std::vector<at::Tensor> own;
    for (const int64_t rows : {500, 400 + 100 * rank, rank == 1 ? 0 : 200}) {
      own.push_back(at::ones({rows, 60}).requires_grad_());
    }
    Root optimizer(own, RootOptions().rule(Rule::AdamW));
    distribute(optimizer, group,
               DistributedOptions()
                   .bucket_bytes(40000)
                   .sharded(own[0], ShardedLayout::rows(1500))
                   .sharded(own[1], ShardedLayout::rows(1500))
                   .sharded(own[2], ShardedLayout::rows(400)));
    const auto* shared = root_optim::detail::shared_of(optimizer);
    std::vector<int64_t> travels(3), all(3);
    for (const auto& [position, block] : shared->partition().sharded) {
      for (const root_optim::detail::Slice& slice : block.slices) {
        all[block.param] += slice.size;
        if (slice.holder != block.owner) travels[block.param] += slice.size;
      }
    }
    TORCH_CHECK(all == std::vector<int64_t>({1500, 1500, 400}));
    // 64 numbers end with each 16th row: at most 8 rows at each of two borders
    for (const int64_t rows : travels) TORCH_CHECK(rows <= 16, rows, " rows travel");
  });
}

TEST_CASE(
    "what is stepped where it lies is written for autograd, too, and by a gradient with gaps") {
  std::string bits[2];
  for (const bool gaps : {false, true}) {
    on_all_ranks(2, [&](int rank, const test::Group& group) {
      at::Tensor shard = at::ones({64, 64}).requires_grad_();
      Root optimizer({shard}, RootOptions().rule(Rule::AdamW));
      distribute(optimizer, group, DistributedOptions().sharded(shard, ShardedLayout::rows(128)));
      const at::Tensor kept = shard.square().sum();
      const at::Tensor wide = at::arange(64. * 128).reshape({64, 128});
      shard.mutable_grad() = wide.narrow(1, rank * 64, 64);
      if (!gaps) shard.mutable_grad() = shard.grad().contiguous();
      optimizer.step();
      bool refused = false;
      try {
        kept.backward();
      } catch (const c10::Error&) {
        refused = true;
      }
      TORCH_CHECK(refused && shard.detach().ne(1).all().item<bool>());
      if (rank == 1) bits[gaps ? 1 : 0] = bits_of({shard});
    });
  }
  CHECK((bits[0] == bits[1]));
}

TEST_CASE("messages find each other where ranks have other parts to commit in place") {
  // Each of two matrices has all rows on the rank that does not own it; the third tensor is at home on both.
  const auto run = [](int rank, int ranks, const auto& share) {
    const bool alone = ranks == 1;
    auto generator = at::detail::createCPUGenerator(7);
    const std::vector<at::Tensor> wholes{at::randn({40, 64}, generator),
                                         at::randn({32, 64}, generator),
                                         at::randn({128, 64}, generator)};
    const auto part = [&](size_t i, const at::Tensor& x) {
      if (alone) return x.clone();
      if (i == 2) return x.narrow(0, 64 * rank, 64).clone();
      return x.narrow(0, 0, static_cast<int>(i) == rank ? 0 : x.size(0)).clone();
    };
    std::vector<at::Tensor> own;
    for (size_t i = 0; i < 3; ++i) own.push_back(part(i, wholes[i]).requires_grad_());
    std::vector<torch::optim::OptimizerParamGroup> groups;
    groups.emplace_back(std::vector<at::Tensor>{own[0], own[1]}, std::make_unique<RootOptions>());
    groups.emplace_back(std::vector<at::Tensor>{own[2]},
                        std::make_unique<RootOptions>(RootOptions().rule(Rule::AdamW)));
    Root optimizer(groups);
    share(optimizer, own);
    for (int step = 0; step < 2; ++step) {
      for (size_t i = 0; i < 3; ++i) own[i].mutable_grad() = part(i, wholes[i].sin().add(step));
      optimizer.step();
    }
    return own;
  };
  const std::vector<at::Tensor> expected = run(0, 1, [](auto&, auto&) {});
  on_all_ranks(2, [&](int rank, const test::Group& group) {
    const std::vector<at::Tensor> own = run(rank, 2, [&](Root& optimizer, auto& shards) {
      distribute(optimizer, group,
                 DistributedOptions()
                     .sharded(shards[0], ShardedLayout::rows(40))
                     .sharded(shards[1], ShardedLayout::rows(32))
                     .sharded(shards[2], ShardedLayout::rows(128)));
    });
    const at::Tensor matrix = expected[rank == 0 ? 1 : 0].detach();
    TORCH_CHECK(bits_of({own[rank == 0 ? 1 : 0], own[2]}) ==
                bits_of({matrix, expected[2].detach().narrow(0, 64 * rank, 64)}));
  });
}

TEST_CASE("gradients are clipped by the norm of all shards and of what is whole") {
  const ShardedModel whole(0, 1, Split::Even);
  whole.set_gradients(0);
  double sum = 0;
  for (const at::Tensor& parameter : whole.own) {
    const double norm = parameter.grad().to(at::kDouble).norm().item<double>();
    sum += norm * norm;
  }
  const double expected = std::sqrt(sum);
  for (const int size : {1, 3, 4}) {
    std::vector<double> norms(static_cast<size_t>(size));
    std::vector<std::string> thrown(norms.size());
    on_all_ranks(size, [&](int rank, const test::Group& group) {
      const auto at = static_cast<size_t>(rank);
      const ShardedModel model(rank, size, Split::Uneven);
      Root optimizer(model.groups(RootOptions()));
      distribute(optimizer, group, model.layouts());
      thrown[at] = test::message_of([&] { clip_norm(optimizer, rank == 0 ? -1 : 1); });
      TORCH_CHECK(clip_norm(optimizer, 1).item<double>() == 0, "without gradients");
      model.set_gradients(0);
      norms[at] = clip_norm(optimizer, .5).item<double>();
      const std::string after = bits_of({model.own[0].grad(), model.own[1].grad()});
      model.set_gradients(0);
      for (const size_t i : {size_t{0}, size_t{1}}) {
        at::Tensor(model.own[i])
            .mutable_grad()
            .mul_(at::scalar_tensor(.5 / (norms[at] + 1e-6), at::kDouble));
      }
      TORCH_CHECK(bits_of({model.own[0].grad(), model.own[1].grad()}) == after, "other factor");
    });
    for (size_t r = 0; r < norms.size(); ++r) {
      CHECK(norms[r] == norms[0]);
      CHECK(std::abs(norms[r] / expected - 1) < 1e-14);  // some 30 roundings of 1.1e-16
      CHECK_THAT(thrown[r], test::contains("rank 0: root_optim::clip_norm: expected a finite "
                                           "max_norm > 0, got -1"));
    }
  }
}

TEST_CASE("reducers are not for sharded parameters") {
  for (const std::string& one : test::on_ranks(2, [&](int rank, const test::Group&group) {
         const ShardedModel model(rank, 2, Split::Even);
         Root optimizer(model.groups(RootOptions()));
         distribute(optimizer, group, model.layouts());
         const OwnerReducer reducer(optimizer);
       })) {
    CHECK_THAT(one, test::contains("root_optim::OwnerReducer: expected no sharded parameters"));
  }
}
