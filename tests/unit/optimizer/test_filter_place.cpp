// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The outlier filter on gradients (FilterPlace::Gradient): the same as filtering every gradient by hand
// before it reaches an optimizer without a filter.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <limits>
#include <vector>

#include "support/devices.hpp"
#include "support/spectra.hpp"
#include "support/tolerances.hpp"
#include "support/training.hpp"

using namespace root_optim;
using test::on;

namespace {

using Unfiltered = OrthogonalizedOptimizer<NoFilter, AdaNewton>;

/// Matrices as the layout makes them, each filtered, back in the parameter's shape.
at::Tensor filtered_by_hand(const at::Tensor& gradient, const SoftThreshold& filter,
                            int64_t blocks) {
  std::vector<at::Tensor> parts;
  for (const at::Tensor& block : gradient.chunk(blocks, 0)) {
    parts.push_back(filter(block.reshape({1, block.size(0), -1})).reshape(block.sizes()));
  }
  return at::cat(parts);
}

}  // namespace

TEST_CASE("a filter on the gradient acts before the momentum", "[filter_place]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  const int64_t blocks = GENERATE(1, 3);
  for (const SoftThreshold& filter :
       {SoftThreshold(), SoftThreshold().scaled(2), SoftThreshold().absolute(0.5)}) {
    const at::Tensor start = test::gaussian({24, 6, 3}, 1).to(on(device, dtype));
    const at::Tensor p = test::parameter(start), q = test::parameter(start);
    const MatrixLayout layout = MatrixLayout().split_rows(blocks);
    Root root({p},
              RootOptions(0.1).filter(filter).filter_place(FilterPlace::Gradient).layout(layout));
    auto options = Unfiltered::Options(0.1)
                       .layout(layout)
                       .momentum(RootOptions().momentum())
                       .update_beta(RootOptions().update_beta());
    Unfiltered by_hand({q}, options);
    for (uint64_t t = 1; t <= 3; ++t) {
      const at::Tensor gradient = test::gaussian({24, 6, 3}, 10 + t).to(on(device, dtype));
      test::set_gradient(p, gradient);
      test::set_gradient(q, filtered_by_hand(gradient, filter, blocks));
      root.step();
      by_hand.step();
      CHECK_THAT(p, test::same_as(q));
    }
    CHECK_FALSE(at::equal(p, start));
  }
}

TEST_CASE("a filter on all gradients acts before AdamW's moments, too", "[filter_place]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat, at::kBFloat16);
  const bool transposed = GENERATE(false, true);
  CAPTURE(dtype, transposed);
  const SoftThreshold filter = SoftThreshold().quantile(0.75);
  // A table, a vector as one row, a tensor of rank 3, a number, nothing.
  const std::vector<std::vector<int64_t>> shapes = {{20, 6}, {40}, {4, 5, 6}, {}, {0, 3}};
  const auto gradient_at = [&](size_t i, uint64_t t) {
    at::Tensor gradient = test::gaussian(shapes[i], 100 * t + i).to(on(device, dtype));
    if (!transposed || gradient.dim() < 2) return gradient;
    return gradient.transpose(0, 1).contiguous().transpose(0, 1);
  };
  std::vector<at::Tensor> ours, by_hand;
  for (size_t i = 0; i < shapes.size(); ++i) {
    const at::Tensor start = test::gaussian(shapes[i], i).to(on(device, dtype));
    ours.push_back(test::parameter(start));
    by_hand.push_back(test::parameter(start));
  }
  const auto options = RootOptions(0.1).rule(Rule::AdamW).filter(filter);
  Root root(ours, RootOptions(options).filter_place(FilterPlace::AllGradients));
  Root reference(by_hand, options);
  for (uint64_t t = 1; t <= 3; ++t) {
    for (size_t i = 0; i < shapes.size(); ++i) {
      ours[i].mutable_grad() = gradient_at(i, t);
      at::Tensor gradient = gradient_at(i, t);
      if (gradient.numel() > 0) {
        const int64_t rows = gradient.dim() > 1 ? gradient.size(0) : 1;
        const auto state = dtype == at::kDouble ? at::kDouble : at::kFloat;
        gradient = filter(gradient.to(state).reshape({1, rows, -1})).view(shapes[i]).to(dtype);
      }
      by_hand[i].mutable_grad() = gradient;
    }
    root.step();
    reference.step();
    for (size_t i = 0; i < shapes.size(); ++i) {
      // What is clipped is rounded to bfloat16 by hand, and the kernel may be another one: m̂/√v̂ is of
      // size one, and changes by a few of those roundings.
      const double u = test::unit_roundoff(dtype);
      const double error = (ours[i] - by_hand[i]).abs().sum().item<double>();
      const double size = by_hand[i].abs().sum().item<double>() + 1.0;
      CHECK(error <= 8.0 * static_cast<double>(t) * u * size);
      CHECK_THAT(ours[i].grad(), test::same_as(gradient_at(i, t)));
    }
  }
}

TEST_CASE("a filter on all gradients leaves matrices to their layout", "[filter_place]") {
  for (const auto place : {FilterPlace::Gradient, FilterPlace::AllGradients}) {
    const at::Tensor start = test::gaussian({24, 18}, 1);
    const at::Tensor p = test::parameter(start), q = test::parameter(start);
    const MatrixLayout layout = MatrixLayout().split_rows(3);
    Root root({p}, RootOptions(0.1).filter_place(place).layout(layout));
    Unfiltered by_hand({q}, Unfiltered::Options(0.1)
                                .layout(layout)
                                .momentum(RootOptions().momentum())
                                .update_beta(RootOptions().update_beta()));
    const at::Tensor gradient = test::gradient_of({24, 18}, 1);
    test::set_gradient(p, gradient);
    test::set_gradient(q, filtered_by_hand(gradient, SoftThreshold(), 3));
    root.step();
    by_hand.step();
    CHECK_THAT(p, test::same_as(q));
  }
}

TEST_CASE("a filter on all gradients does not hide from AdamW that one is not finite",
          "[filter_place][non_finite]") {
  const at::Tensor p = test::parameter({16, 24}, 1), q = test::parameter({10}, 2);
  const at::Tensor before = p.detach().clone(), other = q.detach().clone();
  Root root({p, q}, RootOptions(0.1)
                        .rule(Rule::AdamW)
                        .filter(SoftThreshold().quantile(0.90))
                        .filter_place(FilterPlace::AllGradients));
  at::Tensor gradient = test::gaussian({16, 24}, 2);
  gradient[3][4] = std::numeric_limits<double>::infinity();
  test::set_gradient(p, gradient);
  test::set_gradient(q, test::gaussian({10}, 3));
  root.step();
  CHECK_THAT(p, test::same_as(before));
  CHECK_FALSE(at::equal(q, other));
  CHECK(gradient_faults(root).size() == 1);
  gradient[3][4] = 0;
  test::set_gradient(p, gradient);
  root.step();
  CHECK_FALSE(at::equal(p, before));
}

TEST_CASE("a filter on the gradient does not hide that it is not finite",
          "[filter_place][non_finite]") {
  const at::Tensor p = test::parameter({16, 24}, 1);
  const at::Tensor before = p.detach().clone();
  Root root({p}, RootOptions(0.1).filter(SoftThreshold().quantile(0.90)));
  at::Tensor gradient = test::gaussian({16, 24}, 2);
  gradient[3][4] = std::numeric_limits<double>::infinity();
  test::set_gradient(p, gradient);
  root.step();
  CHECK_THAT(p, test::same_as(before));
  const auto faults = gradient_faults(root);
  REQUIRE(faults.size() == 1);
  CHECK(faults[0].skipped == 1);
  gradient[3][4] = 0;
  root.step();
  CHECK_FALSE(at::equal(p, before));
}

TEST_CASE("a report says what a filter on the gradient does", "[filter_place][diagnostics]") {
  const at::Tensor p = test::parameter({16, 24}, 1);
  Root root({p}, RootOptions(0.1).filter(SoftThreshold().quantile(0.90)));
  at::Tensor gradient = test::gaussian({16, 24}, 2);
  test::set_gradient(p, gradient);
  root.step();
  gradient[3][4] = 100;
  const auto reports = step_report(root);
  REQUIRE(reports.size() == 1);
  CHECK(reports[0].threshold == quantile_of_abs(gradient.unsqueeze(0), 0.90).item<double>());
  CHECK(std::abs(reports[0].outlier_share - 0.1) < 0.01);
  CHECK(reports[0].outlier_norm > 0.9);  // the spike
  CHECK(reports[0].direction_cosine < 1);
  CHECK(reports[0].relative_error < 0.5);
}

TEST_CASE("the place of the filter is saved, and older files have it on the momentum",
          "[filter_place][checkpoint]") {
  for (const auto place : {FilterPlace::Momentum, FilterPlace::AllGradients}) {
    const RootOptions options = RootOptions().filter_place(place);
    CHECK(RootOptions::from_fields(options.fields()) == options);
    CHECK(options != RootOptions());
  }
  CHECK(RootOptions().filter_place() == FilterPlace::Gradient);
}
