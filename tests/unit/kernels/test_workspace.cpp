// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Memory that steps hand on to each other, and the reductions that make copies unnecessary.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <cmath>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "support/failing_allocator.hpp"
#include "support/spectra.hpp"
#include "support/tolerances.hpp"
#include "support/training.hpp"

using namespace root_optim;
using root_optim::detail::temporary;
using root_optim::detail::temporary_like;
using test::parameter;

namespace {

using Tensors = std::vector<at::Tensor>;

/// The largest allocation of one step.
template <class Optimizer>
size_t largest_allocation(Optimizer& optimizer) {
  const test::FailingAllocator allocator(-1);
  optimizer.step();
  return allocator.largest();
}

/// Keeps what it was handed and what it returned.
struct Keeping {
  static constexpr const char* name = "keeping";
  static inline Tensors kept;
  at::Tensor operator()(const at::Tensor& x) const {
    kept = {x, x.neg()};
    return kept[1];
  }
};

/// Keeps both, as a filter that hands on what it was handed.
struct KeepingFilter {
  static constexpr const char* name = "keeping_filter";
  static inline Tensors kept;
  at::Tensor operator()(const at::Tensor& x) const {
    kept.push_back(x);
    return x;
  }
};

/// Counts what it is offered.
struct Counting {
  static constexpr const char* name = "counting";
  static inline int kept = 0, overwritten = 0;
  at::Tensor operator()(const at::Tensor& x) const { return x.neg(); }
  at::Tensor operator()(const at::Tensor& x, Scratch scratch) const {
    CHECK(scratch.workspace != nullptr);
    ++(scratch.overwrite ? overwritten : kept);
    return scratch.overwrite ? x.neg_() : x.neg();
  }
};

template <class T>
struct Type {
  using type = T;
};

}  // namespace

TEST_CASE("what nobody else needs is written over", "[workspace]") {
  const auto counts = [](auto optimizer_type, const std::vector<std::vector<int64_t>>& shapes,
                         const auto& options) {
    Tensors list;
    for (const auto& shape : shapes) list.push_back(parameter(shape, 1, at::kFloat));
    typename decltype(optimizer_type)::type optimizer(list, options);
    Counting::kept = Counting::overwritten = 0;
    test::train(optimizer, list, 0, 3);
    return std::make_pair(Counting::kept, Counting::overwritten);
  };
  using Plain = OrthogonalizedOptimizer<NoFilter, Counting>;
  const Type<Plain> plain;
  const Plain::Options options(0.05);
  CHECK(counts(plain, {{64, 96}}, options) == std::make_pair(0, 3));
  CHECK(counts(plain, {{96, 16}, {96, 16}, {32, 8, 3, 3}}, options) == std::make_pair(0, 6));
  CHECK(counts(plain, {{4, 16, 24}}, Plain::Options(options).layout(MatrixLayout().batch(true))) ==
        std::make_pair(0, 3));
  const auto blocks = MatrixLayout().split_rows(std::vector<int64_t>{16, 32, 16});
  CHECK(counts(plain, {{64, 16}}, Plain::Options(options).layout(blocks)) == std::make_pair(0, 9));
  // Without Nesterov the momentum itself is orthogonalized.
  CHECK(counts(plain, {{64, 96}}, Plain::Options(options).nesterov(false)) == std::make_pair(3, 0));

  // Behind a filter of the momentum: ours hands on a matrix of its own, a user's may have kept it.
  using Split = OrthogonalizedOptimizer<SoftThreshold, Counting>;
  for (const bool nesterov : {true, false}) {
    CHECK(counts(Type<Split>(), {{64, 96}},
                 Split::Options(0.05).filter_place(FilterPlace::Momentum).nesterov(nesterov)) ==
          std::make_pair(0, 3));
  }
  using Kept = OrthogonalizedOptimizer<KeepingFilter, Counting>;
  CHECK(counts(Type<Kept>(), {{64, 96}}, Kept::Options(0.05).filter_place(FilterPlace::Momentum)) ==
        std::make_pair(3, 0));
  KeepingFilter::kept.clear();
}

TEST_CASE("only the first step allocates matrices", "[workspace]") {
  const auto check = [](auto&& optimizer, const Tensors& parameters) {
    test::train(optimizer, parameters, 0, 2);
    CHECK(largest_allocation(optimizer) < 8192);
    optimizer.release_workspace();
    CHECK(largest_allocation(optimizer) >= 64 * 96 * sizeof(float));
    CHECK(largest_allocation(optimizer) < 8192);
  };
  const auto tensors = [] {
    return Tensors{parameter({64, 96}, 1, at::kFloat), parameter({64, 96}, 2, at::kFloat),
                   parameter({192, 48}, 3, at::kFloat), parameter({32, 8, 3, 3}, 4, at::kFloat)};
  };
  for (const Form form : {Form::Direct, Form::Gram}) {
    for (const bool nesterov : {true, false}) {
      const Tensors p = tensors();
      check(Root(p, RootOptions(0.05).nesterov(nesterov).orthogonalizer(AdaNewton().form(form))),
            p);
    }
  }
  const Tensors muon = tensors(), ema = tensors(), gradient = tensors(), blocks = {tensors()[2]};
  check(Muon(muon, MuonOptions(0.05)), muon);
  check(Root(ema, RootOptions(0.05).momentum_form(MomentumForm::Ema)), ema);
  check(Root(gradient, RootOptions(0.05)
                           .filter(SoftThreshold().relative_to_rms(1))
                           .filter_place(FilterPlace::Gradient)),
        gradient);
  check(Root(blocks, RootOptions(0.05).layout(MatrixLayout().split_rows(3))), blocks);
  if (ROOT_OPTIM_HAS_FUSED_ADAMW == 0) return;  // the plain form of AdamW allocates its results
  // Copies of AdamW's gradients: larger than all that the matrices take, or many beside it.
  for (const Tensors& others :
       {Tensors{parameter({600, 200}, 5, at::kFloat)},
        Tensors{parameter({150, 64}, 5, at::kFloat), parameter({80, 96}, 6, at::kFloat),
                parameter({64, 96}, 7, at::kFloat), parameter({300, 40}, 8, at::kFloat)}}) {
    const Tensors p = tensors();
    const auto options = RootOptions(0.05).filter_place(FilterPlace::AllGradients);
    Root root(p, options);
    root.add_param_group(
        Root::Group(others, std::make_unique<RootOptions>(RootOptions(options).rule(Rule::AdamW))));
    Tensors all = p;
    all.insert(all.end(), others.begin(), others.end());
    check(root, all);
  }
}

TEST_CASE("what a policy keeps stays its own", "[workspace]") {
  OrthogonalizedOptimizer<NoFilter, Keeping> optimizer(Tensors{parameter({8, 12}, 1)});
  const Tensors& parameters = optimizer.param_groups()[0].params();
  test::train(optimizer, parameters, 0, 1);
  const Tensors kept = Keeping::kept;
  const at::Tensor input = kept[0].clone(), output = kept[1].clone();
  test::train(optimizer, parameters, 1, 4);
  Keeping::kept.clear();
  CHECK_THAT(kept[0], test::same_as(input));
  CHECK_THAT(kept[1], test::same_as(output));
}

TEST_CASE("what a filter keeps stays its own, although ours come behind it", "[workspace]") {
  const FilterPlace place = GENERATE(FilterPlace::Momentum, FilterPlace::Gradient);
  using Optimizer = OrthogonalizedOptimizer<KeepingFilter, AdaNewton>;
  const Tensors list{parameter({24, 32}, 1, at::kFloat), parameter({24, 32}, 2, at::kFloat)};
  Optimizer optimizer(list, Optimizer::Options(0.05).filter_place(place));
  KeepingFilter::kept.clear();
  test::train(optimizer, list, 0, 1);
  const Tensors kept = KeepingFilter::kept;
  REQUIRE(kept.size() == 1);
  const at::Tensor before = kept[0].clone();
  test::train(optimizer, list, 1, 4);
  KeepingFilter::kept.clear();
  CHECK_THAT(kept[0], test::same_as(before));
}

TEST_CASE("blocks are used again, never twice at once, and given up for larger ones",
          "[workspace]") {
  Workspace workspace;
  workspace.set_limit(1000);
  const auto bytes = at::TensorOptions(at::kByte);
  at::Tensor a = temporary(&workspace, {100}, bytes);
  const at::Tensor b = temporary(&workspace, {10, 20}, bytes);
  CHECK(a.data_ptr() != b.data_ptr());
  CHECK(workspace.bytes() == 300);
  const void* memory = a.data_ptr();
  at::Tensor view = a.narrow(0, 0, 5);
  a.reset();  // the view still needs it
  CHECK(temporary(&workspace, {50}, bytes).data_ptr() != memory);
  CHECK(workspace.bytes() == 350);
  view.reset();
  CHECK(temporary(&workspace, {90}, bytes).data_ptr() == memory);
  CHECK(temporary(&workspace, {2, 3}, at::TensorOptions(at::kDouble)).data_ptr() != b.data_ptr());
  CHECK(workspace.bytes() == 350);
  const at::Tensor large = temporary(&workspace, {700}, bytes);  // 200 are in use, 150 free
  CHECK(workspace.bytes() == 1000);
  const at::Tensor beyond = temporary(&workspace, {800}, bytes);
  CHECK(workspace.bytes() == 1700);  // what is in use is in use
  workspace.release();
  CHECK(workspace.bytes() == 0);
  CHECK(b.fill_(1).sum().item<int64_t>() == 200);  // still there
}

TEST_CASE("temporaries have the strides asked for", "[workspace]") {
  Workspace some;
  for (Workspace* workspace : {static_cast<Workspace*>(nullptr), &some}) {
    const at::Tensor tall = at::ones({2, 3, 5}).transpose(1, 2);
    CHECK(temporary_like(workspace, tall).strides() == tall.strides());
    CHECK(temporary(workspace, tall.sizes(), tall.options()).is_contiguous());
    const at::Tensor gaps = at::ones({4, 10}).slice(1, 0, 10, 2);
    CHECK(temporary_like(workspace, gaps).sizes() == gaps.sizes());
    CHECK(temporary_like(workspace, gaps).is_contiguous());
    CHECK(temporary_like(workspace, at::ones({3, 0})).numel() == 0);
    CHECK(temporary_like(workspace, at::ones({2, 2}, at::kDouble)).scalar_type() == at::kDouble);
  }
}

TEST_CASE("norms and largest entries of each matrix, in any order of memory", "[workspace]") {
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat, at::kBFloat16);
  const at::Tensor base = test::gaussian({3, 300, 401}, 5).to(dtype);  // more than one chunk each
  const Tensors layouts{base, base.transpose(1, 2), base.slice(2, 0, 401, 3), base.transpose(0, 1),
                        base.narrow(0, 1, 1)};
  for (const at::Tensor& x : layouts) {
    const at::Tensor exact = x.to(at::kDouble);
    const at::Tensor norm = root_optim::detail::frobenius_norms(x);
    CHECK(norm.scalar_type() == at::kDouble);
    CHECK(norm.sizes() == at::IntArrayRef({x.size(0), 1, 1}));
    const at::Tensor expected = exact.square().sum({1, 2}, true).sqrt();
    // LibTorch's operator may add N squares one after the other: N roundings, of which the root leaves
    // half. LibTorch 1.13 exceeds 1e-14 so.
    const double roundings = 0x1p-54 * static_cast<double>(x.size(1) * x.size(2));
    CHECK((norm / expected - 1).abs().max().item<double>() < 1e-14 + roundings);
    const at::Tensor largest = root_optim::detail::max_abs(x);
    CHECK(largest.scalar_type() == dtype);
    CHECK(at::equal(largest.to(at::kDouble), exact.abs().amax({1, 2}, true)));
  }
  const at::Tensor tiny = at::full({1, 3, 4}, 1e-30, at::kFloat);
  CHECK(std::abs(root_optim::detail::frobenius_norms(tiny).item<double>() /
                     (std::sqrt(12.0) * 1e-30) -
                 1) < 1e-6);
  CHECK(root_optim::detail::frobenius_norms(at::zeros({2, 0, 3})).sum().item<double>() == 0);
  CHECK(root_optim::detail::frobenius_norms(at::zeros({0, 2, 3})).numel() == 0);
  at::Tensor bad = base.clone();
  bad[1][2][3] = std::numeric_limits<double>::quiet_NaN();
  for (const at::Tensor& x : {bad, bad.transpose(1, 2)}) {
    const at::Tensor finite = root_optim::detail::frobenius_norms(x).isfinite().flatten();
    CHECK(finite[0].item<bool>());
    CHECK_FALSE(finite[1].item<bool>());
    CHECK(root_optim::detail::max_abs(x).isnan().flatten()[1].item<bool>());
  }
}
