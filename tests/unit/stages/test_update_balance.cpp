// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The second moments of the rows and columns of updates: the stage alone, and its state in the optimizer.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <cmath>
#include <limits>

#include "support/devices.hpp"
#include "support/optimizer_state.hpp"
#include "support/saved.hpp"
#include "support/spectra.hpp"
#include "support/tolerances.hpp"
#include "support/training.hpp"

using namespace root_optim;
using test::on;
using test::parameter;
using test::state_of;

namespace {

using Tensors = std::vector<at::Tensor>;

/// The definition, in float64: the moments and the update of one matrix.
BalancedUpdate defined_balance(const at::Tensor& x, const at::Tensor& rows, const at::Tensor& cols,
                               double beta) {
  const at::Tensor r = beta * rows + (1 - beta) * x.square().mean(1);
  const at::Tensor c = beta * cols + (1 - beta) * x.square().mean(0);
  at::Tensor y = x / (r.unsqueeze(1) * c / r.mean()).sqrt();
  return {{r, c}, y * (x.norm() / y.norm())};
}

/// Orthogonalizes nothing, and gives back what it gets.
struct GivesBack {
  static constexpr const char* name = "gives_back";
  at::Tensor operator()(const at::Tensor& x, Scratch) const { return x; }
  at::Tensor operator()(const at::Tensor& x) const { return x; }
};

}  // namespace

TEST_CASE("rows and columns are divided by the size that they usually have", "[update_balance]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  // One vector and less, several with a rest, and parts of rows for several threads.
  const auto [m, n] = GENERATE(table<int64_t, int64_t>({{5, 7}, {3, 100}, {300, 460}, {1, 9}}));
  const bool tall = GENERATE(false, true), overwrite = GENERATE(false, true);
  const bool gaps = GENERATE(false, true);  // where the kernel of the CPU cannot go
  const at::Tensor gaussian = test::gaussian({2, m, n}, 1);
  const at::Tensor x = tall ? gaussian.transpose(1, 2) : gaussian;
  const at::Tensor r = test::gaussian({2, x.size(1)}, 2).square();
  const at::Tensor c = test::gaussian({2, x.size(2)}, 3).square();
  const auto options = on(device, dtype);
  at::Tensor given = x.to(options, /*non_blocking=*/false, /*copy=*/true);
  if (gaps) given = at::stack({given, given}, -1).select(-1, 0);
  const at::Tensor kept = given.clone();
  const BalancedUpdate result =
      balance_update(given, {r.to(options), c.to(options)}, 0.75, {nullptr, overwrite, nullptr});
  CHECK((overwrite || at::equal(given, kept)));
  const double bound = dtype == at::kDouble ? 1e-14 : 1e-5;  // some twenty roundings
  for (int64_t k = 0; k < 2; ++k) {
    const BalancedUpdate expected = defined_balance(x[k], r[k], c[k], 0.75);
    CHECK(relative_error(result.matrices[k], expected.matrices.to(device)) < bound);
    CHECK(relative_error(result.moments.rows[k], expected.moments.rows.to(device)) < bound);
    CHECK(relative_error(result.moments.cols[k], expected.moments.cols.to(device)) < bound);
  }
}

TEST_CASE("a balanced update is finite and as long as before", "[update_balance]") {
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  for (const auto& [name, matrix] : test::hard_spectra()) {
    if (matrix.numel() == 0) continue;
    INFO(name);
    const at::Tensor x = exact_polar(matrix.unsqueeze(0), 1e-12).to(dtype);
    UpdateMoments moments{at::zeros({1, x.size(1)}, dtype), at::zeros({1, x.size(2)}, dtype)};
    for (int step = 0; step < 3; ++step) {
      const BalancedUpdate result = balance_update(x, moments, 0.95);
      CHECK(result.matrices.isfinite().all().item<bool>());
      CHECK(std::abs(result.matrices.norm().item<double>() - x.norm().item<double>()) <
            1e-5 * (1 + x.norm().item<double>()));
      moments = result.moments;
    }
  }
  const at::Tensor zero = at::zeros({1, 3, 4});
  CHECK_THAT(balance_update(zero, {at::zeros({1, 3}), at::zeros({1, 4})}, 0.5).matrices,
             test::same_as(zero));
}

TEST_CASE("balance_update names what it cannot take", "[update_balance][errors]") {
  const at::Tensor x = at::ones({2, 3, 4});
  CHECK_THROWS_WITH(balance_update(x, {at::ones({2, 3}), at::ones({2, 3})}, 0.5),
                    test::contains("root_optim::balance_update: expected moments of the rows and "
                                   "columns of [2, 3, 4], got [2, 3] and [2, 3]"));
  CHECK_THROWS_WITH(
      balance_update(x, {at::ones({2, 3}, at::kDouble), at::ones({2, 4})}, 0.5),
      test::contains("expected moments in Float on cpu, as the matrices, got Double"));
  CHECK_THROWS_WITH(balance_update(x, {at::ones({2, 3}), at::ones({2, 4})}, 1),
                    test::contains("expected 0 <= beta < 1, got 1"));
}

TEST_CASE("a balance never writes the momentum", "[update_balance]") {
  using Plain = OrthogonalizedOptimizer<NoFilter, GivesBack>;
  const at::Tensor p = parameter({16, 24}, 1);
  Plain optimizer({p}, Plain::Options(0.1).nesterov(false).update_beta(0.9));
  const at::Tensor gradient = test::gaussian({16, 24}, 2);
  test::set_gradient(p, gradient);
  optimizer.step();
  const auto& state = static_cast<const ParamState&>(*optimizer.state().begin()->second);
  CHECK_THAT(state.momentum_buffer(), test::same_as(gradient));
}

TEST_CASE("every matrix of a parameter has moments of its own", "[update_balance]") {
  // Blocks of one parameter step as the same matrices do as parameters of their own.
  const auto options = [] { return RootOptions(0.05).update_beta(0.9).weight_decay(0); };
  const at::Tensor whole = parameter({40, 16}, 1), start = whole.detach().clone();
  const Tensors parts{test::parameter(start.narrow(0, 0, 24).clone()),
                      test::parameter(start.narrow(0, 24, 16).clone())};
  Root one(Tensors{whole}, options().layout(MatrixLayout().split_rows({24, 16})));
  Root two(parts, options());
  for (uint64_t t = 0; t < 4; ++t) {
    const at::Tensor gradient = test::gaussian({40, 16}, 10 + t);
    test::set_gradient(whole, gradient);
    test::set_gradient(parts[0], gradient.narrow(0, 0, 24));
    test::set_gradient(parts[1], gradient.narrow(0, 24, 16));
    one.step();
    two.step();
  }
  CHECK_THAT(whole, test::close_to(at::cat({parts[0].detach(), parts[1].detach()}),
                                   test::tolerance(test::Quantity::StepVsReference, at::kDouble)));
  CHECK(state_of(one, whole).row_moment().sizes() == at::IntArrayRef({40}));
  CHECK(state_of(one, whole).column_moment().sizes() == at::IntArrayRef({32}));
  CHECK(relative_error(state_of(one, whole).row_moment(),
                       at::cat({state_of(two, parts[0]).row_moment(),
                                state_of(two, parts[1]).row_moment()})) < 1e-12);

  const at::Tensor experts = parameter({3, 16, 24}, 2), tall = parameter({24, 16}, 3, at::kFloat);
  Root batched(Tensors{experts}, options().layout(MatrixLayout().batch(true)));
  Root plain(Tensors{tall}, RootOptions(0.05).update_beta(0));
  test::train(batched, {experts}, 0, 2);
  test::train(plain, {tall}, 0, 2);
  CHECK(state_of(batched, experts).row_moment().numel() == 3 * 16);
  CHECK(state_of(batched, experts).column_moment().numel() == 3 * 24);
  CHECK_FALSE(state_of(plain, tall).row_moment().defined());
}

TEST_CASE("moments are saved, skipped and batched with the rest of the state", "[update_balance]") {
  const auto options = RootOptions(0.05).update_beta(0.9);
  const auto list = [] {
    return Tensors{parameter({16, 24}, 1, at::kFloat), parameter({16, 24}, 2, at::kFloat),
                   parameter({24}, 3, at::kFloat)};
  };
  const Tensors a = list(), b = list(), alone = list();
  Root through(a, options), resumed(b, options), single(alone, RootOptions(options).batch_bytes(0));
  test::train(through, a, 0, 3);
  test::train(single, alone, 0, 3);
  CHECK(relative_error(state_of(single, alone[1]).row_moment(),
                       state_of(through, a[1]).row_moment()) < 1e-5);
  {
    Root first(b, options);
    test::train(first, b, 0, 3);
    test::load_from(resumed, test::saved(first));
  }
  CHECK((state_of(resumed, b[0]) == state_of(through, a[0])));

  const at::Tensor before = state_of(through, a[0]).row_moment().clone();
  const at::Tensor other = state_of(through, a[1]).row_moment().clone();
  test::set_gradient(a[0], at::full({16, 24}, std::numeric_limits<float>::quiet_NaN()));
  through.step();
  CHECK_THAT(state_of(through, a[0]).row_moment(), test::same_as(before));
  CHECK_FALSE(at::equal(state_of(through, a[1]).row_moment(), other));
}
