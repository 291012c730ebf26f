// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What holds for every matrix: transposing, rotating, scaling or stacking the input does the same
// to the orthogonalized matrix.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <functional>

#include "support/convert.hpp"
#include "support/devices.hpp"
#include "support/spectra.hpp"
#include "support/tolerances.hpp"

using namespace root_optim;
using test::on;
using test::Quantity;
using test::tolerance;

namespace {

/// A function of a batch [k, m, n], and the dtype it is called with.
struct Orthogonalizer {
  std::string name;
  std::function<at::Tensor(const at::Tensor&)> apply;
  bool relative;      // no absolute eps: scale invariant
  Quantity quantity;  // what its errors are measured by
};

std::vector<Orthogonalizer> orthogonalizers(at::ScalarType dtype) {
  return {
      {"AdaNewton", AdaNewton().compute_dtype(dtype), true, Quantity::EquivarianceGram},
      {"AdaNewton, 8 steps in Gram space",
       AdaNewton().steps(8).form(Form::Gram).compute_dtype(dtype), true,
       Quantity::EquivarianceGram},
      {"AdaNewton, 8 direct steps", AdaNewton().steps(8).form(Form::Direct).compute_dtype(dtype),
       true, Quantity::Equivariance},
      {"NewtonSchulz, Muon's", NewtonSchulz().compute_dtype(dtype), false, Quantity::Equivariance},
      {"NewtonSchulz, you, Schatten8",
       NewtonSchulz()
           .coefficients(CoefficientSet::you())
           .normalization(Normalization::Schatten8)
           .compute_dtype(dtype),
       true, Quantity::Equivariance},
      {"RootPaper's", root_paper().orthogonalizer().compute_dtype(dtype), false,
       Quantity::Equivariance},
  };
}

/// The hard spectra that have entries, as batches of one, without the scales of 1e+-30: those are
/// for the relative forms.
std::vector<test::Spectrum> spectra(bool extreme_scales) {
  std::vector<test::Spectrum> list;
  for (test::Spectrum& spectrum : test::hard_spectra()) {
    const bool extreme = spectrum.name.rfind("scale", 0) == 0;
    if (spectrum.matrix.numel() == 0 || (extreme && !extreme_scales)) continue;
    list.push_back({spectrum.name, spectrum.matrix.unsqueeze(0)});
  }
  return list;
}

/// Runs `check(orthogonalizer, x, where)` for every orthogonalizer, dtype, device and spectrum.
template <class Check>
void for_all(Check check) {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  for (const Orthogonalizer& f : orthogonalizers(dtype)) {
    for (const auto& [name, matrix] : spectra(f.relative)) {
      INFO(f.name << ", " << name << ", " << dtype << " on " << device);
      check(f, matrix.to(on(device, dtype)), dtype);
    }
  }
}

}  // namespace

TEST_CASE("transpose equivariance: f(X^T) = f(X)^T", "[property]") {
  for_all([](const Orthogonalizer& f, const at::Tensor& x, at::ScalarType dtype) {
    CHECK_THAT(f.apply(x.transpose(1, 2)),
               test::close_to(f.apply(x).transpose(1, 2), tolerance(f.quantity, dtype), 1.0));
    CHECK_THAT(f.apply(x.transpose(1, 2).contiguous()),
               test::close_to(f.apply(x).transpose(1, 2), tolerance(f.quantity, dtype), 1.0));
  });
}

TEST_CASE("orthogonal equivariance: f(Q X P) = Q f(X) P", "[property]") {
  for_all([](const Orthogonalizer& f, const at::Tensor& x, at::ScalarType dtype) {
    const at::Tensor q = test::orthonormal(x.size(1), x.size(1), 71).to(x);
    const at::Tensor p = test::orthonormal(x.size(2), x.size(2), 72).to(x);
    CHECK_THAT(f.apply(q.matmul(x).matmul(p)),
               test::close_to(q.matmul(f.apply(x)).matmul(p), tolerance(f.quantity, dtype), 1.0));
  });
}

TEST_CASE("oddness: f(-X) = -f(X)", "[property]") {
  for_all([](const Orthogonalizer& f, const at::Tensor& x, at::ScalarType) {
    const at::Tensor dense = x.contiguous();  // -x is dense: equal strides for equal bits
    CHECK_THAT(f.apply(-dense), test::same_as(-f.apply(dense)));
  });
}

TEST_CASE("scale invariance of the relative forms: f(c X) = f(X)", "[property]") {
  const double scale = GENERATE(1e-30, 1e-20, 1e-7, 3.0, 1e7, 1e20, 1e30);
  for_all([&](const Orthogonalizer& f, const at::Tensor& x, at::ScalarType dtype) {
    const double largest = x.abs().max().item<double>();
    if (!f.relative || largest > 1e20 || (largest < 1e-20 && largest > 0)) return;
    CHECK_THAT(f.apply(x * scale), test::close_to(f.apply(x), tolerance(f.quantity, dtype), 1.0));
  });
}

TEST_CASE("a power of two as scale changes no bit", "[property]") {
  for_all([&](const Orthogonalizer& f, const at::Tensor& x, at::ScalarType) {
    if (!f.relative) return;
    CHECK_THAT(f.apply(x * 0x1p-13), test::same_as(f.apply(x)));
  });
}

TEST_CASE("batched equals one by one", "[property]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  const at::Tensor batch =
      at::stack({test::gaussian({24, 40}, 73), test::heavy_tailed(24, 40, 1e10, 74),
                 test::low_rank(24, 40, 1, 76), at::zeros({24, 40}, at::kDouble),
                 test::gaussian({24, 40}, 78) * 1e5})
          .to(on(device, dtype));
  for (const at::Tensor& x : {batch, batch.transpose(1, 2)}) {
    for (const Orthogonalizer& f : orthogonalizers(dtype)) {
      const at::Tensor together = f.apply(x);
      for (int64_t i = 0; i < x.size(0); ++i) {
        INFO(f.name << ", matrix " << i << ", " << dtype << " on " << device);
        CHECK_THAT(together[i], test::close_to(f.apply(x.narrow(0, i, 1))[0],
                                               tolerance(f.quantity, dtype), 1.0));
      }
    }
  }
}

TEST_CASE("no valid schedule leaves (0, 1.35] on the singular values", "[property]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType compute = GENERATE(at::kDouble, at::kFloat, at::kBFloat16);
  const int64_t steps = GENERATE(range<int64_t>(min_default_steps, max_default_steps + 1));
  const auto form = GENERATE(Form::Auto, Form::Direct, Form::Gram);
  if (compute == at::kBFloat16 && !test::bfloat16_products_hold(device)) return;
  const auto policy = AdaNewton().steps(steps).form(form).compute_dtype(compute);
  for (const auto& [name, x] : spectra(true)) {
    INFO(name << ", " << steps << " steps in " << compute << ", form " << static_cast<int>(form));
    const at::Tensor result = policy(x.to(on(device, at::kFloat)));
    CHECK(at::linalg_svdvals(result.to(at::kCPU, at::kDouble)).max().item<double>() <=
          1.35 + tolerance(Quantity::OutputBound, compute).bound);
  }
}

TEST_CASE("AdaNewton approximates the polar factor better than Muon's triples", "[property]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  for (const std::vector<int64_t>& shape :
       std::vector<std::vector<int64_t>>{{1, 64, 64}, {1, 64, 96}, {1, 64, 256}}) {
    const at::Tensor x = test::gaussian(shape, 79).to(device);
    const at::Tensor truth = exact_polar(x);
    INFO("shape " << shape);
    CHECK(relative_error(AdaNewton()(x), truth) < relative_error(NewtonSchulz()(x), truth));
  }
}
