// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
#include "model.hpp"
#include "ranks.hpp"

#include <cmath>
#include <limits>
#include <root_optim/distributed.hpp>
#include <string>
#include <vector>

using namespace root_optim;
using test::bits_of;
using test::Model;
using test::on_all_ranks;

namespace {

/// The gradients that `reduce` leaves where `OwnerReducer` leaves the mean, too: of what this rank owns, or of all.
void reduce(bool to_owners, Root& optimizer, const Model& model, const test::Group& group,
            double limit) {
  const ReducerOptions options = ReducerOptions().limit_ranks(limit);
  if (to_owners) {
    OwnerReducer(optimizer, options).reduce();
  } else {
    GradientReducer(model.all(), group, options).reduce();
  }
}

void scale_gradients(const Model& model, double factor) {
  for (const at::Tensor& parameter : model.all()) parameter.grad().mul_(factor);
}

}  // namespace

TEST_CASE("a rank's weight is the median norm over its own") {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  const auto weights = [](const std::vector<double>& norms, double limit) {
    const at::Tensor w = root_optim::detail::rank_weights(at::tensor(norms, at::kDouble), limit);
    return std::vector<double>(w.data_ptr<double>(), w.data_ptr<double>() + w.numel());
  };
  CHECK((weights({1, 2, 3, 40}, 1.5) == std::vector<double>{1, 1, 1, 3. / 40}));
  CHECK((weights({1, 2}, 1) == std::vector<double>{1, .5}));  // the lower median
  CHECK((weights({0, 0, 5}, 2) == std::vector<double>{1, 1, 1}));
  CHECK((weights({7}, 1) == std::vector<double>{1}));
  const std::vector<double> with_nan = weights({1, nan, 1}, 1);
  CHECK(with_nan[1] == 1);
}

TEST_CASE("a rank that sends garbage counts as one of the others") {
  const bool to_owners = GENERATE(false, true);
  constexpr int size = 4;
  // Rank 2 sends 1e6 times its gradients. Limited to the median, it counts as if it had sent about what it should.
  std::vector<std::string> limited(size), plain(size), untouched(size);
  for (auto* result : {&limited, &plain, &untouched}) {
    on_all_ranks(size, [&](int rank, const test::Group& group) {
      Model model;
      Root optimizer(model.groups(RootOptions()));
      distribute(optimizer, group);
      model.set_gradients(rank);
      if (rank == 2 && result == &limited) scale_gradients(model, 1e6);
      // Norms of independent gradients of this model differ by less than a fifth.
      reduce(to_owners, optimizer, model, group, result == &plain ? 0 : result == &limited ? 1 : 2);
      optimizer.step();
      (*result)[static_cast<size_t>(rank)] = bits_of(model.all());
      if (result == &limited) {
        for (const at::Tensor& parameter : model.all()) {
          if (to_owners || parameter.numel() == 0) continue;
          // The mean of four vectors of normal entries, none of which counts more than a median one.
          TORCH_CHECK(parameter.grad().abs().max().item<double>() < 5);
        }
      }
    });
  }
  for (int r = 1; r < size; ++r) {
    CHECK((limited[static_cast<size_t>(r)] == limited[0]));
  }
  CHECK((untouched == plain));  // a weight of 1 changes no bit
  CHECK(!(limited == plain));
}

TEST_CASE("a limit below 1 is refused on every rank") {
  for (const double limit : {-1., .5, std::numeric_limits<double>::infinity()}) {
    std::vector<std::string> messages(2);
    on_all_ranks(2, [&](int rank, const test::Group& group) {
      Model model;
      try {
        GradientReducer(model.all(), group, ReducerOptions().limit_ranks(limit));
      } catch (const c10::Error& error) {
        messages[static_cast<size_t>(rank)] = error.what_without_backtrace();
      }
    });
    for (const std::string& message : messages) {
      CHECK(message.find("expected limit_ranks = 0, or finite and >= 1") != std::string::npos);
    }
  }
}
