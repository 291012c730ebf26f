// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What the peers' own tests ask of an orthogonalizer, asked of ours: their cases and their bounds,
// as facts. Figures: docs/reliability.md, or this program with "[peer]" -s. Peers, as read:
//   Emerging-Optimizers  NVIDIA-NeMo/Emerging-Optimizers fd77292, tests/test_muon_utils.py
//   dion                 microsoft/dion 0a059a4, tests/test_newton_shulz.py, test_polar_express.py
// Their inputs are random with no seed or a seed of Python's; ours have seeds of our own. The bounds
// in this file are theirs, which is why they are not in tolerances.hpp.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <cmath>
#include <string>
#include <vector>

#include "support/convert.hpp"
#include "support/devices.hpp"
#include "support/reference.hpp"
#include "support/spectra.hpp"
#include "support/tolerances.hpp"

using namespace root_optim;
using Shape = std::vector<int64_t>;

namespace {

// Coefficients of the peers beside those that CoefficientSet has.
const Quintics kCubic5{{3.3656576, -3.3420992, 0},
                       {2.5744352, -1.4957376, 0},
                       {2.5368962, -1.4312570, 0},
                       {2.4418906, -1.2764040, 0},
                       {2.2230472, -0.9630650, 0}};
const Quintics kCans{{8.4703, -25.1081, 18.6293},
                     {4.1828, -3.1087, 0.5806},
                     {3.9619, -2.9541, 0.5630},
                     {3.2866, -2.4647, 0.5074},
                     {2.2737, -1.6447, 0.4162}};
const Quintics kPolarExpress8{{8.2051, -22.9019, 16.4607}, {4.0664, -2.8612, 0.5184},
                              {3.9096, -2.8234, 0.5250},   {3.2856, -2.4153, 0.4853},
                              {2.2779, -1.6198, 0.3985},   {1.8726, -1.2307, 0.3585},
                              {1.8564, -1.2132, 0.3568},   {1.8750, -1.2500, 0.3750}};
const Quintics kPolarExpressOfDion{{8.156554524902461, -22.48329292557795, 15.878769915207462},
                                   {4.042929935166739, -2.808917465908714, 0.5000178451051316},
                                   {3.8916678022926607, -2.772484153217685, 0.5060648178503393},
                                   {3.285753657755655, -2.3681294933425376, 0.46449024233003106},
                                   {2.3465413258596377, -1.7097828382687081, 0.42323551169305323}};
const Quintic kJordan{3.4445, -4.7750, 2.0315};

Quintics repeat_last(Quintics schedule, size_t steps) {
  schedule.resize(steps, schedule.back());
  return schedule;
}

Quintics you() { return CoefficientSet::you().quintics(1, 1, 5); }

Quintics deepseek_v4() {
  Quintics schedule(8, kJordan);
  schedule.insert(schedule.end(), 2, {2, -1.5, 0.5});
  return schedule;
}

/// Their settings: X / max(|X|_F, eps), products in the input's dtype, form as asked for.
OrthogonalizeOptions like_theirs(at::ScalarType dtype, Form form = Form::Direct) {
  OrthogonalizeOptions options;
  options.normalization = Normalization::FrobeniusFloor;
  options.compute_dtype = dtype;
  options.form = form;
  options.allow_unsafe = true;  // several of their sets have no margin
  return options;
}

at::Tensor float64(const at::Tensor& t) { return t.to(at::kCPU, at::kDouble); }

double largest(const at::Tensor& t) { return float64(t).abs().max().item<double>(); }

/// How far |actual - expected| exceeds rtol |expected|, at most.
double excess(const at::Tensor& actual, const at::Tensor& expected, double rtol) {
  const at::Tensor e = float64(expected);
  return ((float64(actual) - e).abs() - rtol * e.abs()).max().item<double>();
}

/// Integers from `low` to `high`, in float64.
at::Tensor integers(const Shape& shape, int64_t low, int64_t high, uint64_t seed) {
  return at::randint(low, high + 1, shape, at::detail::createCPUGenerator(seed), at::kDouble);
}

/// The iteration with plain products, in the dtype of x, as the peers' references write it.
at::Tensor plain(const at::Tensor& x, const Quintics& schedule, bool normalize = true) {
  const bool tall = x.size(-2) > x.size(-1);
  at::Tensor y = tall ? x.transpose(-2, -1) : x;
  if (normalize) {
    y = y / at::linalg_vector_norm(y, 2, {-2, -1}, /*keepdim=*/true).clamp_min(1e-7);
  }
  for (const auto& [a, b, c] : schedule) {
    const at::Tensor gram = y.matmul(y.transpose(-2, -1));
    y = a * y + (b * gram + c * gram.matmul(gram)).matmul(y);
  }
  return tall ? y.transpose(-2, -1) : y;
}

/// The largest entry of |G - I| where G is the Gram matrix of the shorter side.
double distance_from_orthonormal(const at::Tensor& x) {
  const at::Tensor y = float64(x);
  const at::Tensor t = y.transpose(-2, -1);
  const at::Tensor gram = y.size(-2) <= y.size(-1) ? y.matmul(t) : t.matmul(y);
  return largest(gram - at::eye(gram.size(-1), at::kDouble));
}

std::string text(const Shape& shape) { return c10::str(c10::IntArrayRef(shape)); }

const std::vector<Shape> kThreeShapes{{512, 512}, {512, 256}, {256, 512}};
const std::vector<Shape> kOddShapes{{511, 513}, {511, 257}, {257, 513}};

}  // namespace

// --- Emerging-Optimizers: the iteration ----------------------------------------------------------

// TestNewtonSchulz.test_newtonschulz5_close_to_svd: every entry within .1 of U V^T.
TEST_CASE("peer: five steps come close to the SVD", "[peer][property]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  for (const Shape& shape : kThreeShapes) {
    const at::Tensor x = test::gaussian(shape, 601).to(test::on(device, at::kFloat));
    const at::Tensor truth = exact_polar(float64(x));
    INFO(text(shape) << " on " << device);
    const double with_their_coefficients =
        largest(float64(orthogonalize(x, you(), like_theirs(at::kFloat))) - truth);
    CHECK(with_their_coefficients <= 0.1);
    const double ada_newton =
        largest(float64(AdaNewton().compute_dtype(at::kFloat)(x.unsqueeze(0))[0]) - truth);
    CHECK(ada_newton <= 0.1);
  }
}

// TestNewtonSchulz.test_*_close_to_reference: two float32 programs agree within atol + rtol |y|. Held
// here against float64, since how far two programs differ is up to the BLAS (with Debian's
// LibTorch 1.13.1 1.1e-6, 8.7e-7 and 6.4e-7 from float64), and against the plain products' own error.
TEST_CASE("peer: the iteration agrees with plain products", "[peer][property]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  struct Case {
    std::string name;
    Quintics schedule;
    std::vector<Shape> shapes;
    double atol;
  };
  const std::vector<Case> cases{
      {"quintic, 5 steps", you(), kThreeShapes, 1e-6},
      {"cubic5, 5 steps", kCubic5, kThreeShapes, 1e-6},
      {"cans, 5 steps", kCans, kThreeShapes, 1e-5},
      {"polar_express, 9 steps", repeat_last(kPolarExpress8, 9), kOddShapes, 2e-6},
      {"deepseekv4, 10 steps", deepseek_v4(), kOddShapes, 2e-6},
      {"cans, 9 steps", repeat_last(kCans, 9), kOddShapes, 2e-6},
  };
  for (const Case& c : cases) {
    for (const Shape& shape : c.shapes) {
      const at::Tensor x = test::gaussian(shape, 602).to(test::on(device, at::kFloat));
      const at::Tensor ours = orthogonalize(x, c.schedule, like_theirs(at::kFloat));
      const at::Tensor theirs = plain(x, c.schedule);
      const at::Tensor truth = plain(x.to(at::kDouble), c.schedule);
      INFO(c.name << ", " << text(shape) << " on " << device);
      INFO("from float64: ours " << largest(ours - truth) << ", plain products "
                                 << largest(theirs - truth));
      CHECK(excess(ours, truth, 1e-7) <= c.atol);
      CHECK(largest(ours - truth) <= 2 * largest(theirs - truth));
    }
  }
}

// TestNewtonSchulz.test_newtonschulz_custom_coeff_close_to_reference: steps that grow, rtol 1e-6. A
// relative error of the norm comes out 25 times as large, 1.5e-6 for one rounding: the bound holds for
// two iterations that start from the same normalized matrix. Of the whole, ours and plain products are
// both a few 1e-6 from float64.
TEST_CASE("peer: coefficients of one's own that grow", "[peer][property]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const Quintics schedule{{3, 5, 7}, {11, 13, 17}};
  for (const Shape& shape : kOddShapes) {
    const at::Tensor x =
        at::pow(2.0, integers(shape, -10, -6, 603)).to(test::on(device, at::kFloat));
    const at::Tensor ours = orthogonalize(x, schedule, like_theirs(at::kFloat));
    const at::Tensor start = orthogonalize(x, {{1, 0, 0}}, like_theirs(at::kFloat));
    const at::Tensor truth = plain(x.to(at::kDouble), schedule);
    const auto relative = [](const at::Tensor& a, const at::Tensor& b) {
      return ((float64(a) - float64(b)) / float64(b)).abs().max().item<double>();
    };
    const double plain_error = relative(plain(x, schedule), truth);
    INFO(text(shape) << " on " << device);
    INFO("from float64: ours " << relative(ours, truth) << ", plain products " << plain_error);
    INFO("end to end: " << relative(ours, plain(x, schedule)));
    // Theirs: 1e-6. Where oneDNN multiplies ours (kernels/product.hpp) sums run in another order: measured 6.4e-6.
    CHECK(relative(ours, plain(start, schedule, false)) <= 1e-5);
    CHECK_THROWS_AS(orthogonalize(x, schedule), c10::Error);  // unless allow_unsafe
  }
}

// TestNewtonSchulz.test_preserve_values_with_underflowed_norm_in_fp64: no step, entries of 1e-30.
TEST_CASE("peer: a norm that underflows in float32", "[peer][property]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::Tensor x = (test::gaussian({256, 256}, 604) * 1e-30).to(test::on(device, at::kFloat));
  const at::Tensor expected = float64(x) / float64(x).norm();
  const Quintics identity{{1, 0, 0}};
  OrthogonalizeOptions options = like_theirs(at::kFloat);
  options.eps = 0;
  CHECK(excess(orthogonalize(x, identity, options), expected, 1e-6) <= 0);
  // Ours needs no setting for it: Schatten-8 has no absolute eps. The same bound, five steps.
  const AdaNewton policy = AdaNewton().compute_dtype(at::kFloat);  // on a GPU, too
  const at::Tensor tiny = policy(x.unsqueeze(0));
  const at::Tensor usual = policy((x * 1e15 * 1e15).unsqueeze(0));
  INFO("largest difference from the matrix of scale 1: " << largest(tiny - usual));
  CHECK(relative_error(float64(tiny), exact_polar(float64(x).unsqueeze(0))) < 0.1);
}

// TestNewtonSchulz.test_newtonschulz_3d_input_close_to_per_slice, test_cubic5_3d_...: atol 1e-6.
TEST_CASE("peer: a batch equals its matrices one by one", "[peer][property]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  for (const Shape& shape : std::vector<Shape>{{2, 256, 256}, {4, 128, 256}, {3, 256, 128}}) {
    const at::Tensor x = integers(shape, -3, 3, 605).to(test::on(device, at::kFloat));
    const auto difference = [&](const auto& apply) {
      const at::Tensor together = apply(x);
      double worst = 0;
      for (int64_t i = 0; i < x.size(0); ++i) {
        worst = std::max(worst, largest(together[i] - apply(x.narrow(0, i, 1))[0]));
      }
      return worst;
    };
    INFO(text(shape) << " on " << device);
    for (const Quintics& schedule : {you(), kCubic5}) {
      CHECK(difference([&](const at::Tensor& y) {
              return orthogonalize(y, schedule, like_theirs(at::kFloat));
            }) <= 1e-6);
    }
    CHECK(difference(AdaNewton().iteration(Iteration::NewtonSchulz).compute_dtype(at::kFloat)) <=
          1e-6);
    // One matrix and several take other products, whose rounding an inverse lifts: measured 1.9e-6.
    CHECK(difference(AdaNewton().compute_dtype(at::kFloat)) <= 4e-6);
  }
}

// TestNewtonSchulz.test_polar_express_and_deepseekv4_10steps_better_than_quintic: condition 1e12.
TEST_CASE("peer: ten steps beat five at condition 1e12", "[peer][property]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  for (const Shape& shape : kThreeShapes) {
    const int64_t rank = std::min(shape[0], shape[1]);
    const at::Tensor u = test::orthonormal(shape[0], rank, 606);
    const at::Tensor v = test::orthonormal(shape[1], rank, 607);
    const at::Tensor x = (u * at::logspace(6, -6, rank, 10, at::kDouble))
                             .matmul(v.t())
                             .to(test::on(device, at::kFloat));
    const at::Tensor truth = u.matmul(v.t());
    const auto distance = [&](const at::Tensor& y) {
      return (float64(y) - truth).norm().item<double>();
    };
    const double quintic = distance(orthogonalize(x, you(), like_theirs(at::kFloat)));
    INFO(text(shape) << " on " << device);
    for (const Form form : {Form::Direct, Form::Gram}) {
      INFO("form " << static_cast<int>(form));
      const auto options = like_theirs(at::kFloat, form);
      CHECK(distance(orthogonalize(x, repeat_last(kPolarExpress8, 10), options)) < quintic);
      CHECK(distance(orthogonalize(x, deepseek_v4(), options)) < quintic);
      const auto ours = AdaNewton().steps(10).form(form).compute_dtype(at::kFloat);
      CHECK(distance(ours(x.unsqueeze(0))[0]) < quintic);
    }
  }
}

// TestNewtonSchulz.test_polar_express_16steps_almost_orthogonal: |O O^T - I| <= 1e-5.
TEST_CASE("peer: sixteen steps are orthogonal", "[peer][property]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const Form form = GENERATE(Form::Direct, Form::Gram);
  for (const Shape& shape : std::vector<Shape>{{512, 256}, {256, 512}}) {
    const at::Tensor x = test::gaussian(shape, 608).to(test::on(device, at::kFloat));
    INFO(text(shape) << ", form " << static_cast<int>(form) << " on " << device);
    CHECK(distance_from_orthonormal(orthogonalize(x, repeat_last(kPolarExpress8, 16),
                                                  like_theirs(at::kFloat, form))) <= 1e-5);
  }
}

// TestBatchedNewtonSchulzStep: one step of a batch, 1e-8 from the steps of its matrices (a, b, c of
// 1/2, 1, 1/4) and 1e-6 from the formula (2, -3/2, 0).
TEST_CASE("peer: one step of a batch", "[peer][property]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const auto normalized = [&](const Shape& shape) {
    const at::Tensor x = integers(shape, -3, 3, 609).to(test::on(device, at::kFloat));
    return x / at::linalg_vector_norm(x, 2, {1, 2}, /*keepdim=*/true);
  };
  for (const int64_t blocks : {1, 4}) {
    for (const Shape& shape :
         std::vector<Shape>{{2, 16, 16}, {4, 16, 32}, {16, 128, 128}, {32, 128, 256}}) {
      INFO(text(shape) << ", " << blocks << " blocks, on " << device);
      const at::Tensor x = normalized(shape);
      const Quintics step{{0.5, 1, 0.25}};
      const at::Tensor together = root_optim::detail::iterate_direct(
          x.clone(), step, blocks, root_optim::Normalization::FrobeniusFloor);
      double worst = 0;
      for (int64_t i = 0; i < x.size(0); ++i) {
        const at::Tensor one = root_optim::detail::iterate_direct(
            x.narrow(0, i, 1).clone(), step, blocks, root_optim::Normalization::FrobeniusFloor);
        worst = std::max(worst, largest(together[i] - one[0]));
      }
      CHECK(worst <= 1e-8);
    }
    for (const Shape& shape : std::vector<Shape>{{2, 16, 16}, {4, 16, 32}, {3, 32, 16}}) {
      INFO(text(shape) << ", " << blocks << " blocks, on " << device);
      const at::Tensor x = normalized(shape);
      const Quintics step{{2, -1.5, 0}};
      const at::Tensor wide = shape[1] > shape[2] ? x.transpose(1, 2) : x;
      CHECK(excess(root_optim::detail::iterate_direct(wide.clone(), step, blocks,
                                                      root_optim::Normalization::FrobeniusFloor),
                   plain(wide, step, false), 1e-7) <= 1e-6);
    }
  }
}

// TestNewtonSchulzStepWithTsyrk: on integers and coefficients of powers of two, symmetric products
// and a whole step equal plain ones bit by bit; a batch equals its matrices. (Theirs multiply
// bfloat16 on CUDA; the library has symmetric products in float32 and float64.)
TEST_CASE("peer: symmetric products are exact on integers", "[peer][property]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  const int64_t blocks = GENERATE(2, 3, 4);
  const Quintics step{{0.5, 0.25, 0.125}};
  for (const Shape& shape :
       std::vector<Shape>{{1, 32, 32}, {1, 32, 64}, {2, 32, 32}, {4, 32, 64}, {8, 16, 128}}) {
    const at::Tensor x = integers(shape, -2, 2, 610).to(test::on(device, dtype));
    INFO(text(shape) << " in " << blocks << " blocks, " << dtype << " on " << device);
    const at::Tensor ours = root_optim::detail::iterate_direct(
        x.clone(), step, blocks, root_optim::Normalization::FrobeniusFloor);
    CHECK_THAT(ours, test::same_as(plain(x, step, false)));
    for (int64_t i = 0; i < x.size(0); ++i) {
      CHECK_THAT(ours[i], test::same_as(root_optim::detail::iterate_direct(
                              x.narrow(0, i, 1).clone(), step, blocks,
                              root_optim::Normalization::FrobeniusFloor)[0]));
    }
  }
}

// TestNewtonSchulz.test_newton_schulz_3d_use_syrk_matches_gemm_path: atol = rtol = 1e-2.
TEST_CASE("peer: five steps with symmetric products match plain ones", "[peer][property]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::Tensor x = integers({4, 32, 64}, -3, 3, 611).to(test::on(device, at::kFloat));
  const at::Tensor start = root_optim::detail::scale_by_frobenius(
      x, root_optim::Normalization::FrobeniusFloor, 1e-7, at::kFloat);
  const at::Tensor expected = root_optim::detail::iterate_direct(
      start.clone(), you(), 1, root_optim::Normalization::FrobeniusFloor);
  CHECK(excess(root_optim::detail::iterate_direct(start.clone(), you(), 4,
                                                  root_optim::Normalization::FrobeniusFloor),
               expected, 1e-2) <= 1e-2);
}

// TestMuonUtils.test_get_scale_factor, with equality.
TEST_CASE("peer: factors of the learning rate", "[peer][property]") {
  for (const Shape& shape :
       std::vector<Shape>{{512, 512}, {512, 256}, {256, 512}, {97, 37}, {37, 97}}) {
    const double m = static_cast<double>(shape[0]), n = static_cast<double>(shape[1]);
    INFO(text(shape));
    CHECK(lr_scale(LrScale::Original, shape[0], shape[1]) == std::sqrt(std::max(1.0, m / n)));
    CHECK(lr_scale(LrScale::MatchRmsAdamW, shape[0], shape[1]) == 0.2 * std::sqrt(std::max(m, n)));
    CHECK(lr_scale(LrScale::Spectral, shape[0], shape[1]) == std::sqrt(m / n));
  }
}

// The error inputs of TestNewtonSchulz and MuonTest. Two of theirs are no errors here: rank 4 is a
// batch, and float64 is computed in float64.
TEST_CASE("peer: what newton_schulz refuses", "[peer][property][errors]") {
  CHECK_THROWS_WITH(orthogonalize(at::ones({10}), you()),
                    test::contains("expected a tensor of rank >= 2, got shape [10]"));
  CHECK(orthogonalize(test::gaussian({2, 3, 4, 5}, 612), you()).sizes() == Shape{2, 3, 4, 5});
  CHECK(orthogonalize(test::gaussian({5, 7}, 613), you()).scalar_type() == at::kDouble);
  CHECK_THROWS_WITH(CoefficientSet::per_step({}), test::contains("expected at least one triple"));
  CHECK_THROWS_WITH(CoefficientSet::named("nonexistent"), test::contains("got 'nonexistent'"));
  CHECK_THROWS_WITH(NewtonSchulz().steps(0).validate(), test::contains("got 0"));
  CHECK_THROWS_WITH(lr_scale(static_cast<LrScale>(99), 10, 10),
                    test::contains("expected a value of LrScale, got 99"));
}

// --- dion ----------------------------------------------------------------------------------------

// test_ns_line_1_accuracy, test_ns_line_2_accuracy: the error of a symmetric product against float64
// is at most k times the plain product's own: in float32 k = 5 for the mean, 15 for the largest; in
// bfloat16 k = 1. (float16 is no compute dtype of ours.)
TEST_CASE("peer: symmetric products err no more than plain ones", "[peer][property]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kFloat, at::kBFloat16);
  if (dtype == at::kBFloat16 && !test::bfloat16_products_hold(device)) return;
  const double of_mean = dtype == at::kFloat ? 5 : 1, of_largest = dtype == at::kFloat ? 15 : 1;
  const int64_t blocks = GENERATE(2, 4);
  const auto compare = [&](const at::Tensor& ours, const at::Tensor& plain_product,
                           const at::Tensor& truth) {
    const at::Tensor rounded = truth.to(at::kFloat);  // theirs, too
    const at::Tensor our_error = (float64(ours) - float64(rounded)).abs();
    const at::Tensor plain_error = (float64(plain_product) - float64(rounded)).abs();
    INFO(dtype << ", " << blocks << " blocks, on " << device << ": plain mean "
               << plain_error.mean().item<double>() << ", largest "
               << plain_error.max().item<double>());
    CHECK(our_error.mean().item<double>() / plain_error.mean().item<double>() <= of_mean);
    CHECK(our_error.max().item<double>() / plain_error.max().item<double>() <= of_largest);
  };
  for (const Shape& shape :
       std::vector<Shape>{{1, 256, 256}, {4, 256, 256}, {1, 256, 1024}, {4, 256, 1024}}) {
    INFO("A A^T, " << text(shape));
    const at::Tensor x = test::gaussian(shape, 614).to(test::on(device, dtype));
    at::Tensor product = at::empty({shape[0], shape[1], shape[1]}, x.options());
    root_optim::detail::symmetric_product_out(product, x, x, blocks);
    const at::Tensor exact = float64(x);
    compare(product, x.matmul(x.transpose(1, 2)), exact.matmul(exact.transpose(1, 2)));
  }
  for (const int64_t batch : {1, 4}) {
    const double alpha = -0.78, beta = 1.21;  // theirs are Gaussian numbers
    INFO("alpha A A^T + beta A, batch of " << batch);
    at::Tensor a = test::gaussian({batch, 256, 256}, 615).to(test::on(device, dtype));
    a = (a + a.transpose(1, 2)) / 2;
    at::Tensor sum = at::empty_like(a);
    root_optim::detail::symmetric_product_out(sum, a, a, blocks, a, beta, alpha);
    const at::Tensor exact = float64(a);
    compare(sum, alpha * a.matmul(a.transpose(1, 2)) + beta * a,
            alpha * exact.matmul(exact.transpose(1, 2)) + beta * exact);
  }
}

// test_newton_schulz_triton_vs_reference: five bfloat16 steps of two programs within .02.
TEST_CASE("peer: five bfloat16 steps agree with plain ones", "[peer][property]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  if (!test::bfloat16_products_hold(device)) return;
  for (const Shape& shape :
       std::vector<Shape>{{256, 256}, {4, 256, 256}, {256, 1024}, {4, 256, 1024}}) {
    const at::Tensor x = test::gaussian(shape, 616).to(test::on(device, at::kFloat));
    INFO(text(shape) << " on " << device);
    const at::Tensor ours = orthogonalize(x, you(), like_theirs(at::kBFloat16));
    CHECK(largest(float64(ours) - float64(plain(x.to(at::kBFloat16), you()))) < 0.02);
  }
}

// test_polar_express_produces_orthogonal_output and, for two forms of one iteration,
// test_pure_and_triton_match: |X X^T - I| < .15 and a difference < .03.
TEST_CASE("peer: five Polar Express steps are nearly orthogonal", "[peer][property]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  for (const Shape& shape :
       std::vector<Shape>{{64, 128}, {128, 64}, {128, 128}, {4, 64, 128}, {4, 128, 64}}) {
    // Their very input, where it is made on the CPU: torch.manual_seed(42), torch.randn(shape).
    const at::Tensor x =
        at::randn(shape, at::detail::createCPUGenerator(42), at::kFloat).to(device);
    INFO(text(shape) << " on " << device);
    // X / (1.02 |X|_F), which their first triple expects.
    OrthogonalizeOptions options = like_theirs(at::kBFloat16);
    Quintics schedule = kPolarExpressOfDion;
    schedule[0] = {schedule[0].a / 1.02, schedule[0].b / std::pow(1.02, 3),
                   schedule[0].c / std::pow(1.02, 5)};
    if (test::bfloat16_products_hold(device)) {
      CHECK(distance_from_orthonormal(orthogonalize(x, schedule, options)) < 0.15);
    }
    options.compute_dtype = at::kFloat;
    const at::Tensor direct = orthogonalize(x, schedule, options);
    CHECK(distance_from_orthonormal(direct) < 0.15);
    options.form = Form::Gram;
    CHECK(largest(orthogonalize(x, schedule, options) - direct) < 0.03);
    const at::Tensor batch = x.dim() == 3 ? x : x.unsqueeze(0);
    CHECK(distance_from_orthonormal(AdaNewton().compute_dtype(at::kFloat)(batch)) < 0.15);
  }
}
