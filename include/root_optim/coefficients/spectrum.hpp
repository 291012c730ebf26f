// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Models of the singular values that the iteration meets after its own normalization, as quadrature
// rules, and the expected error of a schedule on them. Designs for them: coefficients/design/design.hpp.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/coefficients/normalization.hpp>
#include <root_optim/coefficients/quintic.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// A distribution of normalized singular values: Σ weight_i f(sigma_i) ≈ mean of f over a matrix's
/// singular values. Weights are positive and sum to one; sigma lies in [0, 1].
struct Spectrum {
  std::vector<double> sigma;   ///< normalized singular values
  std::vector<double> weight;  ///< one for each σ
};

namespace detail {

/// What is wrong with a spectrum, as "expected …" continues; empty if nothing. (Rounding and the
/// slack of a measured norm may leave σ a little above 1.)
std::string problem_of(const Spectrum& spectrum);

void check_spectrum(const Spectrum& spectrum, const char* who);

}  // namespace detail

/// Singular values of a rows × cols matrix of independent normal entries, in expectation.
///
/// Math:     Marchenko–Pastur with γ = m/n, m <= n: λ = σ²/n = (1 − √γ)² + 4√γ sin²(φ/2), density
///           (2/π) sin²φ / λ in φ; norms from its moments (Σσ² = mn; Σσ⁸ = mn⁴(1 + 6γ + 6γ² + γ³)).
///           Finite size: beyond each soft edge the mean density of the real ensemble, ½Ai(ξ) and
///           smaller terms in the Tracy–Widom scale; for m = n the excess at the hard edge, where
///           the real ensemble's density is 1.57 times the bulk's (fitted to 20,000 samples
///           of n = 64).
/// Quadrature: Gauss–Legendre panels, graded towards the smallest σ, where the error is made.
/// @param rows, cols >= 1
/// @param nodes per panel, 2 to 64; panels shrink by 1.5. The default resolves six optimal steps.
/// @throws c10::Error for numbers out of their range.
Spectrum gaussian_spectrum(int64_t rows, int64_t cols, Normalization norm, int nodes = 12);

/// Shape of a momentum-like spectrum: log σ falls from 0 at the largest singular value through
/// log `median` to −log `condition` at the smallest, as a power of the quantile.
struct HeavyTail {
  double median = 1e-4;     ///< median σ / σ_max, in (0, 1)
  double condition = 1e10;  ///< σ_max / σ_min, > 1 / median
};

/// The heavy-tailed family for a matrix whose smaller side is `count`.
///
/// Math: σ(q)/σ_max = median^((2q)^k), k such that σ(1) = 1/condition. Nearly rank-deficient, as
/// momentum of trained networks is.
/// Quadrature: Gauss–Legendre in q, `nodes` (2 to 64) on each of `panels` (>= 1) equal panels.
/// @param count >= 1.
/// @throws c10::Error for numbers out of their range.
Spectrum heavy_tailed_spectrum(int64_t count, Normalization norm, const HeavyTail& shape = {},
                               int nodes = 5, int panels = 32);

/// Measured singular values of one matrix, in any order and scale.
/// @throws c10::Error if there are none, or one is negative or not finite, or all are zero.
Spectrum measured_spectrum(std::vector<double> singular_values, Normalization norm);

/// Weighted mixture; weights need not sum to one.
/// @throws c10::Error unless every weight is finite and positive, and there is at least one spectrum,
/// none of them empty or with a value out of range.
Spectrum mixture(const std::vector<std::pair<double, Spectrum>>& parts);

/// The same distribution in fewer nodes: those of each twelfth of a decade become one, with their
/// weight and mean σ, and so do all below 1e-9 of σ = 1, which no schedule lifts.
/// @throws c10::Error for an empty spectrum and one with values out of range.
Spectrum condensed(const Spectrum& spectrum);

/// Expected singular-value error E(σ_out − 1)² of a schedule, in exact arithmetic; its root is the
/// expected relative error ‖X_T − UVᵀ‖_F / ‖UVᵀ‖_F.
/// @throws c10::Error for an empty spectrum and one with values out of range.
double expected_mse(const Quintics& schedule, const Spectrum& spectrum);

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/coefficients/detail/spectrum_impl.hpp>
#endif
