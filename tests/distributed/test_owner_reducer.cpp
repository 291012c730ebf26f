// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
#include "model.hpp"
#include "ranks.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <root_optim/distributed.hpp>
#include <string>
#include <vector>

using namespace root_optim;
using test::bits_of;
using test::Model;
using test::on_all_ranks;

namespace {

/// This rank's gradients of a step.
void set_gradients(const Model& model, int64_t step, int rank) {
  model.set_gradients(10 * step + rank);
}

/// The gradients of all ranks, summed in their order in the dtype of state, as one process would.
void set_mean(const Model& model, int64_t step, int size) {
  std::vector<at::Tensor> sums;
  for (int rank = 0; rank < size; ++rank) {
    set_gradients(model, step, rank);
    const std::vector<at::Tensor> all = model.all();
    for (size_t i = 0; i < all.size(); ++i) {
      const at::Tensor gradient =
          all[i].grad().to(all[i].dtype() == at::kDouble ? at::kDouble : at::kFloat);
      if (rank == 0) sums.push_back(gradient.clone());
      if (rank > 0) sums[i].add_(gradient);
    }
  }
  const std::vector<at::Tensor> all = model.all();
  for (size_t i = 0; i < all.size(); ++i) {
    at::Tensor gradient = all[i].grad();
    gradient.copy_(sums[i].div_(size));
  }
}

/// Copies of gradients; of a parameter without one, nothing.
std::vector<at::Tensor> gradients_of(const Model& model) {
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& parameter : model.all()) {
    gradients.push_back(parameter.grad().defined() ? parameter.grad().clone() : at::Tensor());
  }
  return gradients;
}

template <class Optimizer>
std::vector<root_optim::detail::OwnedRows> rows_of(Optimizer& optimizer) {
  return root_optim::detail::owned_rows(root_optim::detail::shared_of(optimizer)->partition(),
                                        optimizer.param_groups());
}

bool same(const at::Tensor& a, const at::Tensor& b) { return bits_of({a}) == bits_of({b}); }

std::string saved_by_rank_0(Root& optimizer, int rank) {
  consolidate(optimizer, 0);
  return rank == 0 ? test::saved(optimizer) : "";
}

}  // namespace

TEST_CASE("owners get the sum in the order of ranks, and nothing else changes") {
  const int64_t bucket_bytes = GENERATE(1, 200000, 1 << 30);
  for (const int size : {1, 2, 3, 4}) {
    INFO(size << " ranks, " << bucket_bytes << " bytes");
    Model mean;
    set_mean(mean, 0, size);
    on_all_ranks(size, [&](int rank, const test::Group& group) {
      Model model;
      Root optimizer(model.groups(RootOptions()));
      distribute(optimizer, group);
      OwnerReducer reducer(optimizer, ReducerOptions().bucket_bytes(bucket_bytes));
      set_gradients(model, 0, rank);
      const std::vector<at::Tensor> before = gradients_of(model);
      reducer.reduce();
      const std::vector<at::Tensor> after = gradients_of(model);
      int64_t rows = 0;
      for (const root_optim::detail::OwnedRows& owned : rows_of(optimizer)) {
        const size_t i = owned.parameter;
        const at::Tensor expected = owned.owner == rank ? mean.all()[i].grad() : before[i];
        TORCH_CHECK(same(owned.of(after[i]), owned.of(expected)), "parameter ", i);
        rows += owned.rows;
      }
      int64_t all = 0;
      for (const at::Tensor& one : model.all()) {
        if (one.numel() > 0) all += one.dim() == 0 ? 1 : one.size(0);
      }
      TORCH_CHECK(rows == all, "rows without an owner");
    });
  }
}

TEST_CASE("what travels to owners fills buckets, and no more") {
  const Model model;
  const std::vector<at::Tensor> all = model.all();
  std::vector<at::ScalarType> dtypes;
  for (const at::Tensor& one : all) dtypes.push_back(one.scalar_type());
  std::vector<torch::optim::OptimizerParamGroup> groups = model.groups(RootOptions());
  const root_optim::detail::Partition partition =
      root_optim::detail::partition_of<RootOptions>(groups, 0, 3, int64_t{1} << 20);
  const int64_t owner_bytes = 5000;
  const auto owned = root_optim::detail::owned_rows(partition, groups);
  const auto buckets = root_optim::detail::reduction_buckets(all, dtypes, owned, owner_bytes);
  int64_t sent = 0, needed = 0;
  for (const root_optim::detail::OwnedRows& rows : owned) {
    needed += static_cast<int64_t>(rows.of(all[rows.parameter]).nbytes());
  }
  for (const auto& bucket : buckets) {
    std::vector<int64_t> bytes(3);
    for (const root_optim::detail::Parcel& parcel : bucket) {
      bytes[static_cast<size_t>(parcel.owner)] += parcel.bytes();
      sent += parcel.bytes();
      int64_t numel = 0;
      for (const root_optim::detail::OwnedRows& rows : parcel.rows) {
        CHECK(rows.owner == parcel.owner);
        CHECK(dtypes[rows.parameter] == parcel.dtype);
        numel += rows.of(all[rows.parameter]).numel();
      }
      CHECK(numel == parcel.numel);
    }
    for (const int64_t one : bytes) CHECK(one <= owner_bytes);  // no row is as long
  }
  CHECK(sent == needed);
  CHECK(buckets.size() > 3);
}

TEST_CASE("steps behind a reduction to owners have the bits of one process") {
  constexpr double inf = std::numeric_limits<double>::infinity();
  const NonFinite policy =
      GENERATE(NonFinite::Skip, NonFinite::SkipGroup, NonFinite::Zero, NonFinite::Propagate);
  const bool faults = GENERATE(false, true);
  const auto spoil = [&](const Model& model, int64_t step) {
    if (!faults) return;
    if (step == 1) model.matrices[2].mutable_grad().view(-1)[3] = inf;
    if (step == 1) model.others.back().mutable_grad()[5000] = -inf;
    if (step == 2) model.others[3].mutable_grad().view(-1)[3] = inf;
    if (step == 3)
      model.others.back().mutable_grad().narrow(0, 0, 64).mul_(1e25);  // as it is squared
    if (step == 3) model.others[11].mutable_grad()[99][59] = std::nan("");
  };
  for (const int size : {1, 2, 3, 4}) {
    INFO(size << " ranks");
    Model whole;
    Root one(whole.groups(RootOptions().non_finite(policy)));
    for (int64_t step = 0; step < 5; ++step) {
      set_mean(whole, step, size);
      spoil(whole, step);
      one.step();
    }
    const std::string expected = bits_of(whole.all()), expected_file = test::saved(one);
    std::string file;
    on_all_ranks(size, [&](int rank, const test::Group& group) {
      Model model;
      Root optimizer(model.groups(RootOptions().non_finite(policy)));
      distribute(optimizer, group, DistributedOptions().bucket_bytes(20000));
      OwnerReducer reducer(optimizer);
      for (int64_t step = 0; step < 5; ++step) {
        set_gradients(model, step, rank);
        reducer.reduce();
        // The fault is in the mean: where an owner has it.
        Model faulty;
        set_mean(faulty, step, size);
        spoil(faulty, step);
        for (const root_optim::detail::OwnedRows& owned : rows_of(optimizer)) {
          if (owned.owner != rank) continue;
          at::Tensor gradient = model.all()[owned.parameter].grad();
          owned.of(gradient).copy_(owned.of(faulty.all()[owned.parameter].grad()));
        }
        optimizer.step();
        model.set_gradients(99);  // the next step does not depend on what was there
      }
      TORCH_CHECK(bits_of(model.all()) == expected);
      const std::string own = saved_by_rank_0(optimizer, rank);
      if (rank == 0) file = own;
    });
    CHECK((file == expected_file));
  }
}

TEST_CASE("a fault on one rank reaches all owners of a cut gradient") {
  for (const NonFinite policy : {NonFinite::Skip, NonFinite::SkipGroup, NonFinite::Raise}) {
    std::vector<std::string> bits(3);
    const std::vector<std::string> thrown =
        test::on_ranks(3, [&](int rank, const test::Group& group) {
          Model model;
          Root optimizer(model.groups(RootOptions().non_finite(policy)));
          distribute(optimizer, group);
          OwnerReducer reducer(optimizer);
          const at::Tensor cut = model.others.back();
          const std::string before = bits_of({cut});
          set_gradients(model, 0, rank);
          if (rank == 0) cut.grad()[5000] = std::numeric_limits<double>::infinity();
          reducer.reduce();
          try {
            optimizer.step();
          } catch (...) {
            TORCH_CHECK(bits_of({cut}) == before, "changed");
            throw;
          }
          TORCH_CHECK(bits_of({cut}) == before, "stepped");
          bits[static_cast<size_t>(rank)] = bits_of(model.all());
        });
    for (size_t rank = 0; rank < 3; ++rank) {
      CHECK((bits[rank] == bits[0]));
      if (policy == NonFinite::Raise) {
        CHECK_THAT(thrown[rank], test::contains("expected a finite gradient"));
      } else {
        CHECK(thrown[rank] == "");
      }
    }
  }
}

TEST_CASE("owners clip by the norm of all gradients") {
  SECTION("the bits of one process where nothing is cut") {
    const auto run = [](const std::vector<at::Tensor>& parameters, const auto& share) {
      Root optimizer(parameters);
      share(optimizer);
      return bits_of(parameters);
    };
    for (const int size : {1, 2, 3, 4}) {
      Model whole;
      double expected_norm = 0;
      const std::string expected = run(whole.matrices, [&](Root& optimizer) {
        on_all_ranks(1, [&](int, const test::Group& group) {
          GradientReducer clipper(whole.matrices, group);
          for (int64_t step = 0; step < 3; ++step) {
            set_mean(whole, step, size);
            expected_norm = clipper.clip_norm(2).item<double>();
            optimizer.step();
          }
        });
      });
      on_all_ranks(size, [&](int rank, const test::Group& group) {
        Model model;
        double norm = 0;
        const std::string bits = run(model.matrices, [&](Root& optimizer) {
          distribute(optimizer, group);
          OwnerReducer reducer(optimizer);
          for (int64_t step = 0; step < 3; ++step) {
            set_gradients(model, step, rank);
            reducer.reduce();
            norm = reducer.clip_norm(2).item<double>();
            optimizer.step();
          }
        });
        TORCH_CHECK(norm == expected_norm);
        TORCH_CHECK(bits == expected);
      });
    }
  }
  SECTION("cut gradients, and a norm that needs no clipping") {
    std::vector<double> norms(3), after(3);
    double expected = 0;
    Model mean;
    set_mean(mean, 0, 3);
    for (const at::Tensor& one : mean.all()) {
      expected += one.grad().to(at::kDouble).square().sum().item<double>();
    }
    on_all_ranks(3, [&](int rank, const test::Group& group) {
      const auto at = static_cast<size_t>(rank);
      Model model;
      Root optimizer(model.groups(RootOptions()));
      distribute(optimizer, group);
      OwnerReducer reducer(optimizer);
      set_gradients(model, 0, rank);
      reducer.reduce();
      norms[at] = reducer.clip_norm(2).item<double>();
      const std::string bits = bits_of({model.matrices[0].grad(), model.others.back().grad()});
      after[at] = reducer.clip_norm(1e9).item<double>();
      TORCH_CHECK(bits == bits_of({model.matrices[0].grad(), model.others.back().grad()}),
                  "scaled");
    });
    for (size_t rank = 0; rank < 3; ++rank) {
      CHECK(norms[rank] == norms[0]);
      // Some 20,000 squares in float64, summed in another order.
      CHECK(std::abs(norms[rank] / std::sqrt(expected) - 1) < 1e-12);
      CHECK(std::abs(after[rank] - 2) < 1e-3);  // a bfloat16 gradient is rounded again
    }
  }
}

TEST_CASE("owners take 0 for a gradient that some ranks lack, and leave one that all lack") {
  // The same as zeros in its place.
  std::vector<std::string> bits(6);
  for (const bool missing : {true, false}) {
    on_all_ranks(3, [&](int rank, const test::Group& group) {
      Model model;
      Root optimizer(model.groups(RootOptions()));
      distribute(optimizer, group);
      OwnerReducer reducer(optimizer);
      for (int64_t step = 0; step < 3; ++step) {
        set_gradients(model, step, rank);
        for (const at::Tensor& one :
             {model.matrices[1], model.matrices[8], model.others[0], model.others.back()}) {
          if (rank == 1) continue;
          one.mutable_grad() = missing ? at::Tensor() : at::zeros_like(one);
        }
        model.others[3].mutable_grad().reset();
        reducer.reduce();
        TORCH_CHECK(!model.others[3].grad().defined());
        optimizer.step();
      }
      bits[static_cast<size_t>(rank + (missing ? 3 : 0))] = bits_of(model.all());
    });
  }
  for (const std::string& one : bits) CHECK((one == bits[0]));
}

TEST_CASE("a gradient of another dtype than its parameter's reaches the owner unrounded") {
  on_all_ranks(2, [&](int rank, const test::Group& group) {
    std::vector<at::Tensor> parameters{at::ones({8, 8}, at::kBFloat16).requires_grad_()};
    Root optimizer(parameters);
    distribute(optimizer, group);
    OwnerReducer reducer(optimizer);
    const at::Tensor one = at::full({8, 8}, 1 + 0x1p-20);
    parameters[0].mutable_grad() = rank == 0 ? one : at::ones({8, 8}, at::kBFloat16);
    reducer.reduce();
    if (rank != rows_of(optimizer)[0].owner) return;
    TORCH_CHECK(rank == 0, "the first batch is rank 0's");
    TORCH_CHECK(same(parameters[0].grad(), at::full({8, 8}, 1 + 0x1p-21)));
  });
}

TEST_CASE("what owners cannot reduce is refused on all ranks, and nothing changes") {
  const auto all_throw = [](const auto& f, const std::string& message) {
    for (const std::string& one : test::on_ranks(2, [&](int rank, const test::Group&group) {
           Model model;
           Root optimizer(model.groups(RootOptions()));
           distribute(optimizer, group);
           set_gradients(model, 0, rank);
           f(rank, model, optimizer);
         })) {
      CHECK_THAT(one, test::contains(message));
    }
  };
  all_throw(
      [](int rank, Model& model, Root& optimizer) {
        OwnerReducer reducer(optimizer, ReducerOptions().missing(MissingGradient::Error));
        if (rank == 0) model.others[1].mutable_grad().reset();
        const at::Tensor before = model.matrices[0].grad().clone();
        try {
          reducer.reduce();
        } catch (...) {
          TORCH_CHECK(same(before, model.matrices[0].grad()), "changed");
          throw;
        }
      },
      "root_optim::OwnerReducer: expected a gradient on all ranks or on none, got one on rank 1, "
      "but not on rank 0, of parameter (group 1, index 1");
  all_throw(
      [](int rank, Model&, Root& optimizer) {
        OwnerReducer reducer(optimizer, ReducerOptions().bucket_bytes(1000 + rank));
      },
      "expected equal shapes, dtypes and requires_grad of parameters, and options, on all ranks");
  all_throw(
      [](int, Model&, Root& optimizer) {
        OwnerReducer reducer(optimizer, ReducerOptions().bucket_bytes(0));
      },
      "rank 0: root_optim::OwnerReducer: expected bucket_bytes >= 1, got 0");
  all_throw(
      [](int rank, Model&, Root& optimizer) {
        OwnerReducer reducer(optimizer);
        reducer.reduce();
        reducer.clip_norm(rank + 1);
      },
      "expected equal max_norm on all ranks");
  all_throw(
      [](int rank, Model& model, Root& optimizer) {
        OwnerReducer reducer(optimizer);
        if (rank == 1) model.matrices[0].mutable_grad() = at::ones({3});
        reducer.reduce();
      },
      "rank 1: root_optim::OrthogonalizedOptimizer: expected a gradient of the parameter's shape");
  Model model;
  Root alone(model.groups(RootOptions()));
  CHECK_THROWS_WITH(OwnerReducer(alone),
                    test::contains("expected an optimizer after `distribute`"));
}
