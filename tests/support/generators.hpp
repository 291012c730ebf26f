// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Property-based tests with rapidcheck: how a property is run, and generated matrices. Files that
// include this one are built only where rapidcheck is found (names test_generated_*).
//
// RC_PARAMS configures a run, as rapidcheck documents it: "max_success=20000 seed=1", or the
// "reproduce=…" that a failure prints. Without it, runs are small and always the same.
#pragma once

#include "catch_torch.hpp"

#include <rapidcheck.h>
#include <root_optim/root_optim.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <ostream>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "spectra.hpp"
#include "tolerances.hpp"

namespace test {

/// Runs a property as the Catch2 test case `name`, prints how many cases held, and on failure the
/// smallest case found and the RC_PARAMS that brings it back.
template <class Property>
void check_property(const std::string& name, Property property) {
  rc::detail::TestParams params;
  params.seed = 1;
  params.maxSuccess = 50;
  if (std::getenv("RC_PARAMS") != nullptr) params = rc::detail::configuration().testParams;
  rc::detail::TestMetadata metadata;
  metadata.id = metadata.description = name;
  const rc::detail::TestResult result =
      rc::detail::checkTestable(std::move(property), metadata, params);
  std::ostringstream message;
  rc::detail::printResultMessage(result, message);
  INFO("seed " << params.seed << ": " << message.str());
  REQUIRE(result.is<rc::detail::SuccessResult>());
  WARN(name << ": " << result.get<rc::detail::SuccessResult>().numSuccess << " cases, seed "
            << params.seed);
}

/// `RC_FAIL` unless `condition`; the message is made only then.
template <class... Parts>
void expect(bool condition, const Parts&... parts) {
  if (!condition) RC_FAIL(c10::str(parts...));
}

/// The largest of the quotients error / bound that a property has met: tells how sharp a bound is.
class Sharpness {
 public:
  void add(double error, double bound) {
    if (bound > 0 && error / bound > largest_) largest_ = error / bound;
  }
  double largest() const { return largest_; }

 private:
  double largest_ = 0;
};

/// Uniform in [first, last] whatever rapidcheck's size; shrinks towards `first`.
template <class T>
rc::Gen<T> any_in(T first, T last) {
  return rc::gen::resize(rc::kNominalSize, rc::gen::inRange(first, static_cast<T>(last + 1)));
}

inline rc::Gen<uint64_t> any_seed() {
  return rc::gen::noShrink(rc::gen::resize(rc::kNominalSize, rc::gen::arbitrary<uint64_t>()));
}

/// 0, 1, or up to `largest`, growing with rapidcheck's size.
inline rc::Gen<int64_t> any_side(int64_t largest) {
  return rc::gen::weightedOneOf<int64_t>({{1, rc::gen::just<int64_t>(0)},
                                          {4, rc::gen::just<int64_t>(1)},
                                          {30, rc::gen::inRange<int64_t>(2, largest + 1)}});
}

// ---- Matrices --------------------------------------------------------------------------------------

enum class Kind {
  Gaussian,
  HeavyTailed,
  LowRank,
  Rank1,
  Zero,
  Flat,
  OneLarge,
  Sparse,
  Spiky,
  Equal
};
inline constexpr int kKinds = 10;
inline constexpr const char* kKindNames[kKinds] = {
    "Gaussian", "heavy-tailed", "low rank", "rank 1", "zero",
    "flat",     "one large",    "sparse",   "spiky",  "equal entries"};

enum class Strides { Contiguous, Transposed, Sliced, BatchLast };
inline constexpr int kStrides = 4;
inline constexpr const char* kStridesNames[kStrides] = {"contiguous", "transposed", "sliced",
                                                        "batch last"};

/// A rows × cols matrix of a kind, float64, with largest singular value between .1 and 1e5.
/// @param decades of a heavy tail: its condition is 10^decades.
inline at::Tensor matrix_of(Kind kind, int64_t rows, int64_t cols, int decades, uint64_t seed) {
  if (rows == 0 || cols == 0) return at::zeros({rows, cols}, at::kDouble);
  const int64_t rank = std::min(rows, cols);
  switch (kind) {
    case Kind::Gaussian:
      return gaussian({rows, cols}, seed);
    case Kind::HeavyTailed:
      return heavy_tailed(rows, cols, std::pow(10.0, decades), seed);
    case Kind::LowRank:
      return low_rank(rows, cols, 1 + static_cast<int64_t>(seed % static_cast<uint64_t>(rank)),
                      seed);
    case Kind::Rank1:
      return low_rank(rows, cols, 1, seed);
    case Kind::Zero:
      return at::zeros({rows, cols}, at::kDouble);
    case Kind::Flat:  // well conditioned: what is compared in bfloat16
      return with_singular_values(rows, cols, gaussian({rank}, seed).abs().clamp(0.5, 1.0), seed);
    case Kind::OneLarge: {
      at::Tensor sigma = at::ones({rank}, at::kDouble);
      sigma[0] = std::pow(10.0, decades / 3.0);
      return with_singular_values(rows, cols, sigma, seed);
    }
    case Kind::Sparse: {  // more zeros than the split's quantile: no scale to compare with
      const at::Tensor kept = gaussian({rows, cols}, seed + 1) > 1.7;
      return gaussian({rows, cols}, seed) * kept.to(at::kDouble);
    }
    case Kind::Spiky: {
      const at::Tensor x = gaussian({rows, cols}, seed);
      return at::where(gaussian({rows, cols}, seed + 1) > 2.0, x * 1e3, x);
    }
    case Kind::Equal:  // every quantile is a tie
      return at::full({rows, cols}, 1.5, at::kDouble);
  }
  throw std::logic_error("unreachable");
}

/// The same values at other strides; the last two dimensions are a matrix.
inline at::Tensor with_strides(const at::Tensor& x, Strides strides) {
  const int64_t d = x.dim();
  switch (strides) {
    case Strides::Contiguous:
      return x.contiguous();
    case Strides::Transposed:
      return x.transpose(d - 2, d - 1).contiguous().transpose(d - 2, d - 1);
    case Strides::Sliced: {
      std::vector<int64_t> sizes = x.sizes().vec();
      sizes[static_cast<size_t>(d - 2)] *= 2;
      sizes[static_cast<size_t>(d - 1)] *= 3;
      at::Tensor view = at::zeros(sizes, x.options())
                            .slice(d - 2, 0, c10::nullopt, 2)
                            .slice(d - 1, 0, c10::nullopt, 3);
      return view.copy_(x);
    }
    case Strides::BatchLast:
      return x.movedim(0, d - 1).contiguous().movedim(d - 1, 0);
  }
  throw std::logic_error("unreachable");
}

/// A batch of matrices and a way to orthogonalize it.
struct MatrixCase {
  int64_t count = 1, rows = 1, cols = 1;
  int kind = 0;        // of the first matrix
  bool mixed = false;  // each further matrix of the next kind, 1e3 times as large
  int decades = 0;     // of condition: 0 to 12
  int scale = 0;       // entries times 10^scale: −30 to 30
  int strides = 0;
  at::ScalarType input = at::kFloat;
  at::ScalarType compute = at::kFloat;
  int form = 0;
  int64_t blocks = 1;  // of symmetric products, which the library takes from 512 rows on
  int set = 0;         // shipped, jordan, you, polar_express(1.01), (1.05), cubic
  int64_t steps = 5;
  int perturbed = 0;  // coefficients off by up to so many thousandths
  int norm = 2;
  uint64_t seed = 0;
};

inline void showValue(const MatrixCase& c, std::ostream& out) {
  out << "\n  " << c.count << " x [" << c.rows << ", " << c.cols << "] " << kKindNames[c.kind]
      << (c.mixed ? ", mixed" : "") << ", condition 1e" << c.decades << ", scale 1e" << c.scale
      << ", " << kStridesNames[c.strides] << ", " << c10::toString(c.input) << " computed in "
      << c10::toString(c.compute) << ", form " << c.form << ", " << c.blocks << " blocks, set "
      << c.set << ", " << c.steps << " steps, perturbed by " << c.perturbed << "e-3, normalization "
      << c.norm << ", seed " << c.seed << '\n';
}

inline rc::Gen<MatrixCase> matrix_cases() {
  using rc::gen::set;
  const auto dtype = rc::gen::element(at::kFloat, at::kDouble, at::kBFloat16);
  return rc::gen::build<MatrixCase>(
      set(&MatrixCase::count, any_in<int64_t>(1, 4)), set(&MatrixCase::rows, any_side(48)),
      set(&MatrixCase::cols, any_side(48)), set(&MatrixCase::kind, any_in(0, kKinds - 1)),
      set(&MatrixCase::mixed), set(&MatrixCase::decades, any_in(0, 12)),
      set(&MatrixCase::scale, rc::gen::oneOf(rc::gen::just(0), any_in(-30, 30))),
      set(&MatrixCase::strides, any_in(0, kStrides - 1)), set(&MatrixCase::input, dtype),
      set(&MatrixCase::compute, dtype), set(&MatrixCase::form, any_in(0, 2)),
      set(&MatrixCase::blocks, rc::gen::oneOf(rc::gen::just<int64_t>(1), any_in<int64_t>(1, 4))),
      set(&MatrixCase::set, rc::gen::oneOf(rc::gen::just(0), any_in(0, 5))),
      set(&MatrixCase::steps, any_in<int64_t>(3, 12)),
      set(&MatrixCase::perturbed, rc::gen::element(0, 0, 3, 30)),
      set(&MatrixCase::norm, rc::gen::oneOf(rc::gen::just(2), any_in(0, 2))),
      set(&MatrixCase::seed, any_seed()));
}

/// The batch of a case, [count, rows, cols], in its dtype and strides.
inline at::Tensor matrices_of(const MatrixCase& c) {
  std::vector<at::Tensor> matrices;
  for (int64_t i = 0; i < c.count; ++i) {
    const int kind = c.mixed ? (c.kind + static_cast<int>(i)) % kKinds : c.kind;
    const double scale = std::pow(10.0, c.scale) * (c.mixed && c.scale < 20 ? std::pow(1e3, i) : 1);
    matrices.push_back(scale * matrix_of(static_cast<Kind>(kind), c.rows, c.cols, c.decades,
                                         c.seed + 10 * static_cast<uint64_t>(i)));
  }
  return with_strides(at::stack(matrices).to(c.input), static_cast<Strides>(c.strides));
}

inline root_optim::Precision precision_of(at::ScalarType compute) {
  return compute == at::kDouble     ? root_optim::Precision::Float64
         : compute == at::kBFloat16 ? root_optim::Precision::BFloat16
                                    : root_optim::Precision::Float32;
}

/// The coefficients of a case. Perturbed ones stand near the edge of what the validator lets pass;
/// what does not pass is brought back until it does, at last to the shipped schedule.
inline root_optim::Quintics schedule_of(const MatrixCase& c) {
  using namespace root_optim;
  const auto limits = ValidationOptions::for_precision(
      precision_of(c.compute),
      c.norm == 2 ? Normalization::Schatten8 : Normalization::FrobeniusFloor);
  const Quintics shipped = shipped_quintics(c.steps, precision_of(c.compute));
  const Quintics candidates[] = {shipped,
                                 CoefficientSet::jordan().quintics(1, 1, c.steps),
                                 CoefficientSet::you().quintics(1, 1, c.steps),
                                 CoefficientSet::polar_express(1.01).quintics(1, 1, c.steps),
                                 CoefficientSet::polar_express(1.05).quintics(1, 1, c.steps),
                                 CoefficientSet::cubic().quintics(1, 1, c.steps)};
  double size = 1e-3 * c.perturbed;
  for (int attempt = 0; attempt < 8; ++attempt, size /= 2) {
    std::mt19937_64 random(c.seed);
    Quintics schedule = candidates[c.set];
    for (Quintic& p : schedule) {
      for (double* v : {&p.a, &p.b, &p.c}) {
        *v *= 1 + size * (2 * static_cast<double>(random() >> 11) * 0x1p-53 - 1);
      }
    }
    if (validate_quintics(schedule, limits).valid) return schedule;
  }
  return shipped;
}

/// Orthogonalizes x as the case says, whatever x's shape and strides.
inline at::Tensor orthogonalized(const MatrixCase& c, const at::Tensor& x) {
  using namespace root_optim;
  const Quintics schedule = schedule_of(c);
  OrthogonalizeOptions options;
  options.normalization = static_cast<Normalization>(c.norm);
  options.compute_dtype = c.compute;
  options.form = static_cast<Form>(c.form);
  const int64_t m = x.size(1), n = x.size(2);
  const int64_t blocks = std::min({c.blocks, m, n});
  if (blocks <= 1 || c.compute == at::kBFloat16) return orthogonalize(x, schedule, options);
  // What orthogonalize does from 512 rows on.
  namespace detail = root_optim::detail;
  at::Tensor y = m > n ? x.transpose(1, 2) : x;
  if (y.element_size() < 4) y = y.to(at::kFloat);
  y = detail::scaled(y, options.normalization, 1e-7, c.compute);
  const IterationPlan plan = plan_iteration(m, n, schedule, precision_of(c.compute), options.form);
  y = plan.form == Form::Gram
          ? detail::iterate_gram(y, schedule, plan.runs, blocks, options.normalization)
          : detail::iterate_direct(y, schedule, blocks, options.normalization);
  return (m > n ? y.transpose(1, 2) : y).to(x.scalar_type());
}

/// The largest product of the a's of one run of a schedule in Gram space; 0 for the direct form.
inline double steepest_run(const root_optim::IterationPlan& plan,
                           const root_optim::Quintics& schedule) {
  if (plan.form == root_optim::Form::Direct) return 0;
  double steepest = 0;
  size_t t = 0;
  for (const int64_t length : plan.runs) {
    double slope = 1;
    for (int64_t i = 0; i < length; ++i) slope *= schedule[t++].a;
    steepest = std::max(steepest, slope);
  }
  return steepest;
}

inline double slope_of(const root_optim::Quintics& schedule) {
  double slope = 1;
  for (const root_optim::Quintic& p : schedule) slope *= p.a;
  return slope;
}

}  // namespace test
