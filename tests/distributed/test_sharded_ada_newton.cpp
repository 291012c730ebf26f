// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// AdaNewton on matrices whose columns or rows stay on their ranks.
#include "model.hpp"
#include "ranks.hpp"
#include "support/reference.hpp"
#include "support/spectra.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <root_optim/distributed.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

using namespace root_optim;
using test::bits_of;
using test::message_of;
using test::on_all_ranks;
using test::on_ranks;

namespace {

using Plain = OrthogonalizedOptimizer<NoFilter, AdaNewton>;
using Sharded = OrthogonalizedOptimizer<NoFilter, ShardedAdaNewton>;

/// Uneven parts that are not empty: of 1, 2, 3, … shares.
at::Tensor part_of(const at::Tensor& whole, int64_t dim, int rank, int ranks) {
  const int64_t size = whole.size(dim);
  const auto start = [&](int64_t r) { return size * r * (r + 1) / (ranks * (ranks + 1)); };
  return whole.narrow(dim, start(rank), start(rank + 1) - start(rank)).clone();
}

/// The factor of a matrix of which each rank has a part.
at::Tensor joint_factor(const at::Tensor& matrix, int64_t dim, int ranks,
                        const AdaNewton& ada_newton = {}) {
  std::vector<at::Tensor> parts(static_cast<size_t>(ranks));
  on_all_ranks(ranks, [&](int rank, const test::Group& group) {
    const ShardedAdaNewton policy = ShardedAdaNewton().group(group).dim(dim).ada_newton(ada_newton);
    const at::NoGradGuard no_grad;
    const at::Tensor part = part_of(matrix, dim, rank, ranks), before = part.clone();
    parts[static_cast<size_t>(rank)] = policy(part.unsqueeze(0))[0];
    TORCH_CHECK(at::equal(part, before));
  });
  return at::cat(parts, dim);
}

/// ‖actual − expected‖_F / √min(m, n): as a share of the polar factor's norm.
double difference(const at::Tensor& actual, const at::Tensor& expected) {
  const auto rank = static_cast<double>(std::min(expected.size(0), expected.size(1)));
  return (actual.to(at::kDouble) - expected.to(at::kDouble)).norm().item<double>() /
         std::sqrt(rank);
}

at::Tensor exact_polar_of(const at::Tensor& x) {
  const auto [u, s, v] = at::linalg_svd(x.to(at::kDouble), false);
  return u.matmul(v);
}

std::vector<test::reference::Stage> reference_stages(const RationalStages& stages) {
  std::vector<test::reference::Stage> all;
  for (const RationalStage& f : stages) all.push_back({f.constant, f.weights, f.poles});
  return all;
}

ShardedRootOptions options_of(const test::Group& group) {
  return ShardedRootOptions(1e-2).orthogonalizer(ShardedAdaNewton().group(group));
}

}  // namespace

TEST_CASE("columns and rows that stay on their ranks give the factor of the whole") {
  const int ranks = GENERATE(1, 2, 3, 4);
  const at::ScalarType dtype = GENERATE(at::kFloat, at::kDouble);
  for (const auto& [name, matrix] : test::hard_spectra()) {
    if (matrix.size(0) > matrix.size(1) || matrix.size(0) == 0 || matrix.size(1) < 20) continue;
    CAPTURE(name, ranks, dtype);
    const at::Tensor x = matrix.to(dtype);
    const AdaNewton ada_newton;
    const at::Tensor expected = test::reference::orthogonalize(
        x.to(at::kDouble), reference_stages(ada_newton.stages(x.size(0), x.size(1))));
    for (const int64_t dim : {1, 0}) {
      const at::Tensor whole = dim == 1 ? x : x.t().contiguous();
      const at::Tensor factor = joint_factor(whole, dim, ranks);
      REQUIRE(factor.sizes() == whole.sizes());
      CHECK(factor.scalar_type() == dtype);
      // As of one process (test_rational.cpp): rounding errors of R, lifted by the gain of a stage. Measured: 3.2e-3,
      // and 8.5e-12 in float64.
      CHECK(difference(dim == 1 ? factor : factor.t(), expected) <
            (dtype == at::kFloat ? 1e-2 : 1e-10));
      if (ranks == 1 && dim == 1) {
        CHECK(at::equal(factor, ada_newton(whole.unsqueeze(0))[0]));
      }
    }
  }
}

TEST_CASE("the error to the exact factor is that of one process") {
  const int ranks = GENERATE(2, 4);
  for (const auto& [m, n] :
       std::vector<std::pair<int64_t, int64_t>>{{128, 384}, {96, 96}, {300, 320}}) {
    for (const double condition : {1e2, 1e4, 1e8}) {
      for (const uint64_t seed : {uint64_t{7}, uint64_t{8}}) {
        const at::Tensor x = test::heavy_tailed(m, n, condition, seed).to(at::kFloat);
        const at::Tensor exact = exact_polar_of(x);
        const double alone = difference(AdaNewton()(x.unsqueeze(0))[0], exact),
                     together = difference(joint_factor(x, 1, ranks), exact);
        CAPTURE(ranks, m, n, condition, alone, together);
        CHECK(std::abs(together - alone) < 5e-4);  // what the header states; measured 1.6e-4
      }
    }
  }
}

TEST_CASE("several stages, a table, and half precision are AdaNewton's") {
  const at::Tensor x = test::heavy_tailed(64, 160, 1e4, 3).to(at::kFloat);
  CoefficientTable table;
  table.set(64, 160, zolotarev_stages({{2, 1e-3}, {2, 1e-2}}));
  for (const AdaNewton& ada_newton : {AdaNewton().budget(.95), AdaNewton().table(table),
                                      AdaNewton().compute_dtype(at::kDouble)}) {
    const at::Tensor expected = test::reference::orthogonalize(
        x.to(at::kDouble), reference_stages(ada_newton.stages(64, 160)));
    CHECK(difference(joint_factor(x, 1, 3, ada_newton), expected) < 1e-2);
  }
  for (const at::ScalarType dtype : {at::kHalf, at::kBFloat16}) {
    const at::Tensor low = x.to(dtype), factor = joint_factor(low, 1, 2);
    CHECK(factor.scalar_type() == dtype);
    CHECK(difference(factor, AdaNewton()(low.unsqueeze(0))[0]) < 1e-2);
    CHECK(at::equal(joint_factor(at::zeros_like(low), 1, 2), at::zeros_like(low)));
  }
}

TEST_CASE("steps on shards are those of one process with the whole") {
  const int ranks = GENERATE(2, 3);
  // What looks at matrices as a whole is left out; see the next case.
  const std::vector<std::vector<int64_t>> shapes{{24, 60}, {24, 60}, {60, 24}, {8, 12, 3, 3}};
  const std::vector<int64_t> dims{1, 1, 0, 1};
  const auto noise = [&](size_t i, int64_t step) {
    return test::gaussian(shapes[i], static_cast<uint64_t>(100 * step) + i).to(at::kFloat);
  };
  std::vector<at::Tensor> whole;
  for (size_t i = 0; i < shapes.size(); ++i) whole.push_back(noise(i, 0).requires_grad_());
  Plain one(whole, Plain::Options(2e-2).weight_decay(.1));
  for (int64_t step = 1; step <= 5; ++step) {
    for (size_t i = 0; i < whole.size(); ++i) whole[i].mutable_grad() = noise(i, step);
    one.step();
  }
  on_all_ranks(ranks, [&](int rank, const test::Group& group) {
    std::vector<at::Tensor> own;
    for (size_t i = 0; i < shapes.size(); ++i) {
      own.push_back(part_of(noise(i, 0), dims[i], rank, ranks).requires_grad_());
    }
    const auto options = [&](int64_t dim) {
      return std::make_unique<Sharded::Options>(
          Sharded::Options(2e-2)
              .weight_decay(.1)
              .rule(Rule::Orthogonalized)
              .orthogonalizer(ShardedAdaNewton().group(group).dim(dim)));
    };
    std::vector<torch::optim::OptimizerParamGroup> groups;
    groups.emplace_back(std::vector<at::Tensor>{own[0], own[1], own[3]}, options(1));
    groups.emplace_back(std::vector<at::Tensor>{own[2]}, options(0));
    Sharded optimizer(groups);
    for (int64_t step = 1; step <= 5; ++step) {
      for (size_t i = 0; i < own.size(); ++i) {
        own[i].mutable_grad() = part_of(noise(i, step), dims[i], rank, ranks);
      }
      optimizer.step();
    }
    for (size_t i = 0; i < own.size(); ++i) {
      const double error = (own[i].detach() - part_of(whole[i].detach(), dims[i], rank, ranks))
                               .abs()
                               .max()
                               .item<double>();
      // Entries of 5 steps of lr · .2 · √max(m, n) · X with X within 1e-4; measured 2.4e-7.
      TORCH_CHECK(error < 1e-5, "parameter ", i, ": ", error);
    }
  });
}

TEST_CASE("what one rank cannot use no rank steps") {
  // Some filters leave nothing of an outlier to see.
  const SoftThreshold filter =
      GENERATE(SoftThreshold(), SoftThreshold().quantile(.9), SoftThreshold().absolute(2));
  const FilterPlace place = GENERATE(FilterPlace::Gradient, FilterPlace::Momentum);
  const double fault =
      GENERATE(std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN());
  on_all_ranks(3, [&](int rank, const test::Group& group) {
    std::vector<at::Tensor> own;
    for (uint64_t i = 0; i < 2; ++i) {
      own.push_back(test::gaussian({16, 20}, 10 * i + static_cast<uint64_t>(rank))
                        .to(at::kFloat)
                        .requires_grad_());
    }
    ShardedRoot optimizer(own, options_of(group).filter(filter).filter_place(place));
    const auto step = [&](uint64_t seed, bool is_bad) {
      for (const at::Tensor& x : own) {
        at::Tensor gradient = test::gaussian({16, 20}, seed + static_cast<uint64_t>(rank));
        if (is_bad && rank == 1 && x.is_same(own[0])) gradient[3][4] = fault;
        at::Tensor(x).mutable_grad() = gradient.to(at::kFloat);
      }
      optimizer.step();
    };
    step(50, false);
    const std::string first = bits_of({own[0]}), second = bits_of({own[1]});
    step(60, true);
    TORCH_CHECK(bits_of({own[0]}) == first && bits_of({own[1]}) != second);
    const ParamState& state = *root_optim::detail::state_of(optimizer, own[0]);
    TORCH_CHECK(state.skipped().item<double>() == 1);
    TORCH_CHECK(state.non_finite().item<double>() == (rank == 1 ? 1 : 0));
    step(70, false);
    TORCH_CHECK(bits_of({own[0]}) != first && own[0].isfinite().all().item<bool>());
  });
}

TEST_CASE("what ranks cannot do together is refused on all of them") {
  struct Refused {
    std::string message;
    std::function<at::Tensor(int, ShardedAdaNewton&)> call;
  };
  const auto columns = [](int64_t m, int64_t n) { return at::ones({1, m, n}); };
  const std::vector<Refused> refused{
      {"expected columns that are together at least 50, got 40",
       [&](int, ShardedAdaNewton& policy) { return policy(columns(50, 20)); }},
      {"expected equal settings of ShardedAdaNewton on all ranks, got others on rank 1",
       [&](int rank, ShardedAdaNewton& policy) {
         if (rank == 1) policy.ada_newton(AdaNewton().budget(.9));
         return policy(columns(8, 20));
       }},
      {"expected equal numbers of matrices in a batch on all ranks",
       [&](int rank, ShardedAdaNewton& policy) {
         return policy(at::ones({rank + 1, 8, 20}));
       }},
      {"expected equal sizes of shards in the dimension that is not cut",
       [&](int rank, ShardedAdaNewton& policy) { return policy(columns(8 + rank, 20)); }},
      {"expected equal dtypes",
       [&](int rank, ShardedAdaNewton& policy) {
         return policy(columns(8, 20).to(rank == 0 ? at::kFloat : at::kDouble));
       }},
      {"rank 1: root_optim::ShardedAdaNewton: expected a batch [k, m, n] that is not empty, got "
       "[1, 8, 0]",
       [&](int rank, ShardedAdaNewton& policy) { return policy(columns(8, rank == 1 ? 0 : 20)); }},
      {"root_optim::ShardedAdaNewton: expected Iteration::Rational, got NewtonSchulz, which "
       "AdaNewton's settings choose for 8x40",
       [&](int, ShardedAdaNewton& policy) {
         policy.ada_newton(AdaNewton().iteration(Iteration::NewtonSchulz));
         return policy(columns(8, 20));
       }},
  };
  for (const Refused& one : refused) {
    for (const std::string& message : on_ranks(2, [&](int rank, const test::Group&group) {
           const at::NoGradGuard no_grad;
           ShardedAdaNewton policy = ShardedAdaNewton().group(group);
           ShardedAdaNewton other = policy;
           one.call(rank, other);
         })) {
      CHECK_THAT(message, test::contains(one.message));
    }
  }
  CHECK_THAT(message_of([] { ShardedAdaNewton().dim(2).validate(); }),
             test::contains("expected dim 0 (rows) or 1 (columns), got 2"));
  CHECK_THAT(message_of([] { ShardedAdaNewton().group({}); }),
             test::contains("expected a process group, got a null pointer"));
}

TEST_CASE("ranks go on after a refusal, but not after one has not come") {
  const auto run = [](int rank, const test::Group& group) {
    const at::NoGradGuard no_grad;
    const ShardedAdaNewton policy = ShardedAdaNewton().group(group, std::chrono::milliseconds(300));
    TORCH_CHECK(message_of([&] { policy(at::ones({1, 50, 20})); }) != "");
    const at::Tensor factor = policy(at::eye(8).expand({1, 8, 8}).clone());
    TORCH_CHECK(factor.isfinite().all().item<bool>());
    if (rank == 1) return;
    const std::string first = message_of([&] {
      policy(at::ones({1, 8, 20}));
    }),
                      second = message_of([&] {
                        policy(at::ones({1, 8, 20}));
                      });
    TORCH_CHECK(first.find("expected every rank to take part") != std::string::npos, first);
    TORCH_CHECK(second.find("expected ranks in step, got a failure in ShardedAdaNewton, call 3") !=
                    std::string::npos,
                second);
  };
  for (const std::string& message : on_ranks(2, run, std::chrono::seconds(5))) {
    CHECK(message == "");
  }
}

TEST_CASE("without a group it is AdaNewton, and checkpoints leave the group to the program") {
  const auto model = [] { return std::vector<at::Tensor>{at::ones({12, 20}).requires_grad_()}; };
  const auto steps = [](const std::vector<at::Tensor>& own, auto& optimizer, uint64_t first) {
    for (uint64_t step = first; step < first + 3; ++step) {
      at::Tensor(own[0]).mutable_grad() = test::gaussian({12, 20}, step).to(at::kFloat);
      optimizer.step();
    }
  };
  const std::vector<at::Tensor> a = model(), b = model();
  Root root(a, RootOptions(1e-2));
  ShardedRoot alone(b, ShardedRootOptions(1e-2));
  steps(a, root, 1);
  steps(b, alone, 1);
  CHECK(bits_of(a) == bits_of(b));

  std::vector<std::string> files(2);
  on_all_ranks(2, [&](int rank, const test::Group& group) {
    const std::vector<at::Tensor> own = model(), again = model();
    ShardedRoot optimizer(own, options_of(group));
    const auto seed = [&](uint64_t first) { return first + 100 * static_cast<uint64_t>(rank); };
    steps(own, optimizer, seed(1));
    files[static_cast<size_t>(rank)] = test::saved(optimizer);
    again[0].detach().copy_(own[0].detach());
    steps(own, optimizer, seed(11));  // both files are there now
    const auto load_from = [&](int other, ShardedRoot& into) {
      std::istringstream in(files[static_cast<size_t>(other)]);
      return message_of([&] { load(into, in); });
    };
    ShardedRoot without(again, ShardedRootOptions(1e-2));
    const std::string message = load_from(rank, without);
    TORCH_CHECK(message.find(c10::str("expected a ShardedAdaNewton as rank ", rank,
                                      " of 2, as in the checkpoint, got one without a group")) !=
                    std::string::npos,
                message);
    ShardedRoot resumed(again, options_of(group));
    TORCH_CHECK(load_from(1 - rank, resumed).find("got one as rank") != std::string::npos);
    TORCH_CHECK(load_from(rank, resumed) == "");
    steps(again, resumed, seed(11));
    TORCH_CHECK(bits_of(own) == bits_of(again));
  });
}

TEST_CASE("an optimizer whose ranks step together is not distributed once more") {
  for (const std::string& message : on_ranks(2, [](int, const test::Group& group) {
         ShardedRoot optimizer({at::ones({4, 8}).requires_grad_()}, options_of(group));
         distribute(optimizer, group);
       })) {
    CHECK_THAT(message, test::contains("expected a policy that one rank can call, got "
                                       "'sharded_ada_newton', which ranks call together"));
  }
}

TEST_CASE("what differs between ranks is refused before anything changes") {
  struct Case {
    std::string expected;                    ///< empty: it is no error
    std::vector<std::vector<int64_t>> cols;  ///< of each parameter on both ranks
    std::function<void(int, const std::vector<at::Tensor>&, ShardedRootOptions&)> change;
  };
  const std::string batches = "expected equal batches (which matrices have a gradient";
  const auto nothing = [](int, const auto&, auto&) {};
  const std::vector<Case> cases{
      // Shards of one shape step together: {A, C}, {B} on rank 0, {A, B}, {C} on rank 1.
      {batches, {{5, 4}, {4, 4}, {5, 5}}, nothing},
      {"",
       {{5, 4}, {4, 4}, {5, 5}},
       [](int, const auto&, auto& options) { options.batch_bytes(0); }},
      {batches, {{20, 20}, {20, 0}}, nothing},
      {batches,
       {{20, 20}, {20, 20}},
       [](int rank, const auto& own, auto&) {
         if (rank == 1) own[1].mutable_grad().reset();
       }},
      {"rank 1: root_optim::step: expected a finite gradient, got Inf or NaN",
       {{20, 20}},
       [](int rank, const auto& own, auto& options) {
         options.non_finite(NonFinite::Raise);
         if (rank == 1) own[0].grad().fill_(std::nan(""));
       }},
      {"rank 0: root_optim::step: expected every parameter once",
       {{20, 20}},
       [](int rank, auto& own, auto&) {
         if (rank == 0) const_cast<std::vector<at::Tensor>&>(own).push_back(own[0]);
       }},
  };
  for (const Case& one : cases) {
    CAPTURE(one.expected);
    for (const std::string& message : on_ranks(2, [&](int rank, const test::Group&group) {
           std::vector<at::Tensor> own;
           for (const auto& cols : one.cols) {
             own.push_back(at::ones({8, cols[static_cast<size_t>(rank)]}).requires_grad_());
             own.back().mutable_grad() = at::ones_like(own.back()).detach();
           }
           ShardedRootOptions options = options_of(group).rule(Rule::Orthogonalized);
           one.change(rank, own, options);
           ShardedRoot optimizer(std::vector<at::Tensor>{own[0]}, options);
           auto& params = optimizer.param_groups()[0].params();
           params = own;  // past the checks of add_param_group
           const std::string before = bits_of(own);
           const std::string thrown = message_of([&] { optimizer.step(); });
           TORCH_CHECK((thrown == "") == (one.expected == ""), thrown);
           TORCH_CHECK(thrown.find(one.expected) != std::string::npos, thrown);
           TORCH_CHECK((bits_of(own) == before) == (one.expected != ""));
         })) {
      CHECK(message == "");
    }
  }
}

TEST_CASE("a report of one rank is refused, since it would call the others") {
  on_all_ranks(1, [](int, const test::Group& group) {
    ShardedRoot optimizer({at::ones({8, 20}).requires_grad_()}, options_of(group));
    TORCH_CHECK(message_of([&] {
                  step_report(optimizer);
                }).find("expected a policy that one process can call") != std::string::npos);
  });
}
