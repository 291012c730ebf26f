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
using test::Model;
using test::on_all_ranks;

namespace {

std::vector<at::Tensor> gradients_of(const Model& model) {
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& parameter : model.all()) {
    gradients.push_back(parameter.grad().defined() ? parameter.grad() : at::empty({0}));
  }
  return gradients;
}

}  // namespace

TEST_CASE("the reducer averages gradients to the same bits on all ranks") {
  const int64_t bucket_bytes = GENERATE(1, 5000, 1 << 20);
  for (const int size : {1, 2, 3, 4}) {
    std::vector<std::vector<at::Tensor>> got(static_cast<size_t>(size));
    on_all_ranks(size, [&](int rank, const test::Group& group) {
      Model model;
      GradientReducer reducer(model.all(), group, ReducerOptions().bucket_bytes(bucket_bytes));
      model.set_gradients(rank);
      reducer.reduce();
      got[static_cast<size_t>(rank)] = gradients_of(model);
    });
    Model model;
    std::vector<at::Tensor> mean;
    for (const at::Tensor& parameter : model.all()) {
      mean.push_back(at::zeros(parameter.sizes(), at::kDouble));
    }
    for (int rank = 0; rank < size; ++rank) {
      model.set_gradients(rank);
      for (size_t i = 0; i < mean.size(); ++i) mean[i].add_(model.all()[i].grad(), 1. / size);
    }
    for (const auto& rank : got) {
      CHECK((bits_of(rank) == bits_of(got[0])));
      for (size_t i = 0; i < mean.size(); ++i) {
        // Gradients are of unit size: sums and the mean are rounded `size` times in float32, and once
        // in the gradient's dtype.
        const double unit = rank[i].scalar_type() == at::kBFloat16 ? 4e-3 : 6e-8;
        CHECK(rank[i].scalar_type() == model.all()[i].scalar_type());
        CHECK(at::allclose(rank[i].to(at::kDouble), mean[i], unit, 4. * size * 6e-8 + unit));
      }
    }
  }
}

TEST_CASE("a gradient that some ranks lack counts as 0, and one that all lack stays missing") {
  std::vector<std::string> bits(3);
  on_all_ranks(3, [&](int rank, const test::Group& group) {
    Model model;
    GradientReducer reducer(model.all(), group);
    Root optimizer(model.groups(RootOptions()));
    distribute(optimizer, group);
    model.set_gradients(0);
    if (rank != 1) model.matrices[1].mutable_grad().reset();
    model.others[3].mutable_grad().reset();
    const at::Tensor before = rank == 1 ? model.matrices[1].grad().clone() : at::Tensor();
    reducer.reduce();
    TORCH_CHECK(!model.others[3].grad().defined());
    if (rank == 1) TORCH_CHECK(at::allclose(model.matrices[1].grad(), before / 3));
    optimizer.step();
    bits[static_cast<size_t>(rank)] = bits_of(model.all());
  });
  CHECK((bits[1] == bits[0]));
  CHECK((bits[2] == bits[0]));
}

TEST_CASE("a gradient that some ranks lack is an error by option, and nothing changes") {
  const std::vector<std::string> thrown = test::on_ranks(2, [&](int rank,
                                                                const test::Group& group) {
    Model model;
    GradientReducer reducer(model.all(), group, ReducerOptions().missing(MissingGradient::Error));
    model.set_gradients(rank);
    if (rank == 0) model.matrices[1].mutable_grad().reset();
    const std::string before = bits_of(gradients_of(model));
    try {
      reducer.reduce();
    } catch (...) {
      TORCH_CHECK(before == bits_of(gradients_of(model)), "changed");
      throw;
    }
  });
  for (const std::string& one : thrown) {
    CHECK_THAT(one,
               test::contains("expected a gradient on all ranks or on none, got one on rank 1, "
                              "but not on rank 0, of parameter (group 0, index 1"));
  }
}

TEST_CASE("the norm of gradients is clipped alike on all ranks") {
  std::vector<std::string> bits(3);
  std::vector<double> norms(3), after(3);
  on_all_ranks(3, [&](int rank, const test::Group& group) {
    const auto at = static_cast<size_t>(rank);
    Model model;
    GradientReducer reducer(model.all(), group);
    model.set_gradients(rank);
    reducer.reduce();
    norms[at] = reducer.clip_norm(2).item<double>();
    bits[at] = bits_of(gradients_of(model));
    after[at] = reducer.clip_norm(1e9).item<double>();
    TORCH_CHECK(bits[at] == bits_of(gradients_of(model)), "scaled although the norm is small");
  });
  for (size_t rank = 0; rank < 3; ++rank) {
    CHECK((bits[rank] == bits[0]));
    CHECK(norms[rank] == norms[0]);
    CHECK(norms[rank] > 10);
    CHECK(std::abs(after[rank] - 2) < 1e-3);  // a bfloat16 gradient is rounded again
  }
}

TEST_CASE("reducers of different models and different norms are refused on all ranks") {
  for (const std::string& one : test::on_ranks(2, [&](int rank, const test::Group&group) {
         Model model;
         GradientReducer reducer(rank == 0 ? model.all() : model.matrices, group);
       })) {
    CHECK_THAT(one, test::contains("expected equal numbers of parameters on all ranks"));
  }
  for (const std::string& one : test::on_ranks(2, [&](int rank, const test::Group&group) {
         Model model;
         GradientReducer reducer(model.all(), group);
         reducer.clip_norm(rank + 1);
       })) {
    CHECK_THAT(one, test::contains("expected equal max_norm on all ranks"));
  }
}
