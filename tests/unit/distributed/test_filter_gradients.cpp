// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The filter before ranks' gradients are averaged; over ranks in tests/distributed.
#include "support/catch_torch.hpp"

#include <root_optim/distributed/filter_gradients.hpp>
#include <root_optim/root_optim.hpp>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "support/devices.hpp"
#include "support/meta_kernels.hpp"
#include "support/spectra.hpp"
#include "support/tolerances.hpp"
#include "support/training.hpp"

using namespace root_optim;
using test::on;
using test::parameter;

namespace {

using Tensors = std::vector<at::Tensor>;

/// Heavy-tailed: some entries are far above the scale of the others.
at::Tensor with_outliers(at::IntArrayRef sizes, uint64_t seed) {
  const at::Tensor x = test::gaussian(sizes, seed);
  return x * x * x;
}

/// What the filter makes of a gradient as one matrix, in the dtype of the state.
at::Tensor by_hand(const at::Tensor& gradient, const SoftThreshold& filter) {
  const auto dtype = gradient.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor x = gradient.to(dtype).contiguous();
  const int64_t rows = x.dim() > 1 ? x.size(0) : 1;
  return filter(x.reshape({1, rows, -1})).reshape(x.sizes()).to(gradient.scalar_type());
}

/// Matrices, two of one shape, one transposed in memory; then a vector, a tiny matrix and one number.
Tensors list(at::TensorOptions where) {
  Tensors parameters;
  uint64_t seed = 0;
  for (const std::vector<int64_t>& shape :
       std::vector<std::vector<int64_t>>{{16, 24}, {16, 24}, {24, 8, 3}, {24}, {2, 2}, {}}) {
    parameters.push_back(parameter(shape, ++seed, where));
  }
  parameters.insert(parameters.begin() + 3, parameter(test::gaussian({24, 16}, 9).to(where).t()));
  for (const at::Tensor& p : parameters) {
    test::set_gradient(p, with_outliers(p.sizes(), ++seed));
    if (!p.is_contiguous()) p.mutable_grad() = p.grad().t().contiguous().t();
  }
  return parameters;
}
constexpr size_t matrices = 4;

Tensors copies(const Tensors& parameters) {
  Tensors gradients;
  for (const at::Tensor& p : parameters) gradients.push_back(p.grad().clone());
  return gradients;
}

}  // namespace

TEST_CASE("gradients are filtered as by hand, in place", "[filter_gradients]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat, at::kBFloat16);
  const auto place = GENERATE(FilterPlace::Gradient, FilterPlace::AllGradients);
  for (const SoftThreshold& filter : {SoftThreshold(), SoftThreshold().absolute(0.5)}) {
    const Tensors parameters = list(on(device, dtype));
    const Tensors before = copies(parameters);
    Root optimizer(parameters, RootOptions().filter(filter).filter_place(place));
    Tensors objects;
    for (const at::Tensor& p : parameters) objects.push_back(p.grad());
    filter_gradients(optimizer);
    for (size_t i = 0; i < parameters.size(); ++i) {
      INFO("parameter " << i);
      const bool acts = i < matrices || place == FilterPlace::AllGradients;
      const at::Tensor gradient = parameters[i].grad();
      CHECK(gradient.is_same(objects[i]));
      CHECK_THAT(gradient, test::same_as(acts ? by_hand(before[i], filter) : before[i]));
      if (i < matrices) CHECK_FALSE(at::equal(gradient, before[i]));
    }
  }
}

TEST_CASE("gradients are filtered by each group's filter and layout", "[filter_gradients]") {
  const at::Tensor p = parameter({24, 12}, 1), q = parameter({24, 12}, 2);
  for (const at::Tensor& each : {p, q}) test::set_gradient(each, with_outliers({24, 12}, 3));
  const at::Tensor before = p.grad().clone();
  const SoftThreshold ours = SoftThreshold().scaled(2), theirs = SoftThreshold().scaled(1);
  std::vector<Root::Group> groups;
  groups.emplace_back(Tensors{p}, std::make_unique<RootOptions>(RootOptions().filter(ours).layout(
                                      MatrixLayout().split_rows(3))));
  groups.emplace_back(Tensors{q}, std::make_unique<RootOptions>(RootOptions().filter(theirs)));
  Root optimizer(groups);
  filter_gradients(optimizer);
  Tensors blocks;
  for (const at::Tensor& block : before.chunk(3, 0)) blocks.push_back(by_hand(block, ours));
  CHECK_THAT(p.grad(), test::same_as(at::cat(blocks)));
  CHECK_THAT(q.grad(), test::same_as(by_hand(before, theirs)));
}

TEST_CASE("a gradient that is not finite, or missing, stays as it is", "[filter_gradients]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const auto policy = GENERATE(NonFinite::Skip, NonFinite::SkipGroup, NonFinite::Zero,
                               NonFinite::Propagate, NonFinite::Raise);
  const double bad =
      GENERATE(std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN());
  const Tensors parameters = list(on(device, at::kFloat));
  parameters[1].mutable_grad().view({-1})[7] = bad;
  parameters[4].mutable_grad()[3] = bad;
  parameters[2].mutable_grad() = at::Tensor();
  const Tensors before{parameters[0].grad().clone(), parameters[1].grad().clone(),
                       parameters[4].grad().clone()};
  Root optimizer(parameters,
                 RootOptions().non_finite(policy).filter_place(FilterPlace::AllGradients));
  filter_gradients(optimizer);
  CHECK_THAT(parameters[0].grad(), test::same_as(by_hand(before[0], SoftThreshold().scaled(3, 3))));
  CHECK(at::allclose(parameters[1].grad(), before[1], 0, 0, /*equal_nan=*/true));
  CHECK(at::allclose(parameters[4].grad(), before[2], 0, 0, /*equal_nan=*/true));
  CHECK_FALSE(parameters[2].grad().defined());
}

TEST_CASE("what cannot be filtered before the mean is refused, and nothing changes",
          "[filter_gradients][errors]") {
  const Tensors parameters = list(at::kFloat);
  const Tensors before = copies(parameters);
  Root of_momentum(parameters, RootOptions().filter_place(FilterPlace::Momentum));
  CHECK_THROWS_WITH(filter_gradients(of_momentum),
                    test::contains("root_optim::filter_gradients: expected filters of gradients, "
                                   "got FilterPlace::Momentum in group 0"));
  Muon without(parameters);
  filter_gradients(without);
  for (size_t i = 0; i < parameters.size(); ++i) {
    CHECK_THAT(parameters[i].grad(), test::same_as(before[i]));
  }
}

TEST_CASE("filtering before the mean calls nothing that synchronizes", "[filter_gradients]") {
  auto devices = test::devices();
  devices.emplace_back(at::kMeta);
  const at::Device device = GENERATE_COPY(from_range(devices));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat, at::kBFloat16);
  Tensors parameters;
  for (const std::vector<int64_t>& shape : std::vector<std::vector<int64_t>>{
           {16, 24}, {16, 24}, {24, 16}, {16, 8, 3, 3}, {24}, {2, 2}, {0, 16}}) {
    parameters.push_back(at::empty(shape, on(device, dtype)).requires_grad_(true));
    parameters.back().mutable_grad() = at::zeros_like(parameters.back());
  }
  Root optimizer(
      parameters,
      RootOptions().filter_place(FilterPlace::AllGradients).non_finite(NonFinite::Raise));
  test::OperatorRecorder recorder;
  filter_gradients(optimizer);
  std::vector<std::string> found;
  const auto& waiting = test::synchronizing_operators();
  std::set_intersection(recorder.names().begin(), recorder.names().end(), waiting.begin(),
                        waiting.end(), std::back_inserter(found));
  CHECK_FALSE(recorder.names().empty());
  CHECK(found == std::vector<std::string>{});
  if (device == at::kMeta) CHECK((recorder.on_cpu() == std::set<std::string>{}));
}
