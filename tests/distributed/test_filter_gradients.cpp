// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The filter before the reduction.
#include "model.hpp"
#include "ranks.hpp"
#include "sharded_model.hpp"

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <root_optim/distributed.hpp>
#include <string>
#include <vector>

using namespace root_optim;
using test::bits_of;
using test::Model;
using test::on_all_ranks;

namespace {

constexpr int64_t rows = 64, cols = 96;

at::Generator generator_of(int64_t seed) {
  return at::detail::createCPUGenerator(static_cast<uint64_t>(seed));
}

/// What all ranks' gradients have in common: a matrix whose i-th singular value goes as 1/√i.
at::Tensor signal_of(int64_t seed) {
  const auto [u, s, v] = at::linalg_svd(at::randn({rows, cols}, generator_of(seed)), false);
  const at::Tensor signal = u.mul(at::arange(1., rows + 1.).rsqrt()).matmul(v);
  return signal.div(signal.square().mean().sqrt());
}

/// Student's t with ν degrees of freedom: z/√(χ²/ν), χ²/2 from a gamma distribution.
at::Tensor heavy_noise(double nu, int64_t seed) {
  at::Generator generator = generator_of(seed);
  const at::Tensor z = at::randn({rows, cols}, generator);
  return z.div(at::_standard_gamma(at::full({rows, cols}, nu / 2), generator).mul(2 / nu).sqrt());
}

/// How near the direction of a step is to that of the signal: the cosine between polar factors.
double cosine(const at::Tensor& mean, const at::Tensor& signal) {
  const auto polar = [](const at::Tensor& x) {
    const auto [u, s, v] = at::linalg_svd(x.to(at::kDouble), false);
    return u.matmul(v);
  };
  return polar(mean).mul(polar(signal)).sum().item<double>() / static_cast<double>(rows);
}

/// Cosines with no filter, with one of the mean, with one of each rank, and with both.
std::array<double, 4> cosines(double nu, int ranks, int64_t seed) {
  const at::Tensor signal = signal_of(seed);
  const auto filter = [](const at::Tensor& x) {
    return SoftThreshold().scaled(3, 3)(x.unsqueeze(0)).squeeze(0);
  };
  at::Tensor mean = at::zeros({rows, cols}), of_filtered = at::zeros({rows, cols});
  for (int rank = 0; rank < ranks; ++rank) {
    const at::Tensor gradient = signal.mul(.6).add(heavy_noise(nu, 1000 * seed + rank));
    mean.add_(gradient, 1. / ranks);
    of_filtered.add_(filter(gradient), 1. / ranks);
  }
  return {cosine(mean, signal), cosine(filter(mean), signal), cosine(of_filtered, signal),
          cosine(filter(of_filtered), signal)};
}

}  // namespace

// For docs/distributed.md: distributed_tests "directions of means"
TEST_CASE("directions of means", "[.]") {
  constexpr int seeds = 10;
  for (const double nu : {1.5, 3., 1e6}) {
    for (const int ranks : {4, 64}) {
      std::array<double, 4> sum{};
      for (int64_t seed = 1; seed <= seeds; ++seed) {
        const auto one = cosines(nu, ranks, seed);
        for (size_t i = 0; i < sum.size(); ++i) sum[i] += one[i] / seeds;
      }
      std::printf("| %g | %d | %.3f | %.3f | %.3f | %.3f |\n", nu, ranks, sum[0], sum[1], sum[2],
                  sum[3]);
    }
  }
}

TEST_CASE("a filter before the reduction protects the mean better than one behind it") {
  constexpr int ranks = 4;
  const int64_t seed = GENERATE(1, 2, 3);
  const at::Tensor signal = signal_of(seed);
  std::array<double, 2> reached{};
  for (const bool before : {false, true}) {
    on_all_ranks(ranks, [&](int rank, const test::Group& group) {
      at::Tensor parameter = at::zeros({rows, cols}).requires_grad_();
      Root optimizer({parameter});
      distribute(optimizer, group);
      GradientReducer reducer({parameter}, group);
      parameter.mutable_grad() = signal.mul(.6).add(heavy_noise(1.5, 1000 * seed + rank));
      if (before) filter_gradients(optimizer);
      reducer.reduce();
      if (rank == 0) reached[before] = cosine(parameter.grad(), signal);
      optimizer.step();
    });
  }
  const auto expected = cosines(1.5, ranks, seed);
  INFO("none " << expected[0] << ", behind " << expected[1] << ", before " << expected[2]);
  CHECK(std::abs(reached[0] - expected[0]) < 1e-4);
  CHECK(std::abs(reached[1] - expected[2]) < 1e-4);
  CHECK(expected[1] > expected[0] + .05);
  CHECK(expected[2] > expected[1] + .03);
}

TEST_CASE("steps of filtered gradients have the bits of one process") {
  const RootOptions options =
      GENERATE(RootOptions(), RootOptions().filter_place(FilterPlace::AllGradients));
  const auto set_gradients = [](const Model& model, int64_t step, int rank) {
    model.set_gradients(10 * step + rank);
    for (const at::Tensor& parameter : model.all()) parameter.grad().pow_(3);
  };
  for (const int size : {1, 2, 3, 4}) {
    // What the reducer does, in one process: all ranks' gradients, summed in their order.
    Model model;
    Root one(model.groups(options));
    for (int64_t step = 0; step < 3; ++step) {
      std::vector<at::Tensor> sums;
      for (int rank = 0; rank < size; ++rank) {
        set_gradients(model, step, rank);
        filter_gradients(one);
        const std::vector<at::Tensor> all = model.all();
        for (size_t i = 0; i < all.size(); ++i) {
          const at::Tensor gradient =
              all[i].grad().to(all[i].dtype() == at::kDouble ? at::kDouble : at::kFloat);
          if (rank == 0) sums.push_back(gradient.clone());
          if (rank > 0) sums[i].add_(gradient);
        }
      }
      for (size_t i = 0; i < sums.size(); ++i) model.all()[i].grad().copy_(sums[i].div_(size));
      one.step();
    }
    const std::string expected = bits_of(model.all());
    on_all_ranks(size, [&](int rank, const test::Group& group) {
      Model own;
      Root optimizer(own.groups(options));
      distribute(optimizer, group);
      OwnerReducer reducer(optimizer);
      for (int64_t step = 0; step < 3; ++step) {
        set_gradients(own, step, rank);
        filter_gradients(optimizer);
        reducer.reduce();
        optimizer.step();
      }
      TORCH_CHECK(bits_of(own.all()) == expected);
    });
  }
}

TEST_CASE("gradients that have been sent, and shards, are not filtered without a word") {
  for (const std::string& one : test::on_ranks(2, [](int rank, const test::Group&group) {
         at::Tensor parameter = heavy_noise(1.5, rank).requires_grad_();
         Root optimizer({parameter});
         GradientReducer reducer({parameter}, group, ReducerOptions().overlap(true));
         parameter.pow(3).sum().backward();
         filter_gradients(optimizer);
         reducer.reduce();
       })) {
    CHECK_THAT(one, test::contains("rank 0: root_optim::GradientReducer"));
  }
  on_all_ranks(2, [](int rank, const test::Group& group) {
    test::ShardedModel model(rank, 2, test::Split::Even);
    Root optimizer(model.groups(RootOptions()));
    distribute(optimizer, group, model.layouts());
    model.set_gradients(0);
    const std::string message = test::message_of([&] { filter_gradients(optimizer); });
    TORCH_CHECK(message.find("expected whole gradients, got a shard for parameter (group 0, "
                             "index 0") != std::string::npos,
                message);
  });
}
