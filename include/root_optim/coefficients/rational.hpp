// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The rational function of one stage of the iteration by inverses, a list of them, and Zolotarev's choice
// in closed form. The check before use is in rational_validation.hpp, the design for a spectrum in
// design/rational_design.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <ostream>
#include <vector>

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// f(x) = x (a₀ + Σ_j a_j / (x² + c_j)): what one stage X ← PX, P = a₀I + Σ_j a_j (XXᵀ + c_jI)⁻¹, does to a
/// singular value. With a₀, a_j >= 0 and c_j > 0 it is positive for every x > 0.
struct RationalStage {
  double constant = 0;          ///< a₀
  std::vector<double> weights;  ///< a_j, one for every pole
  std::vector<double> poles;    ///< c_j

  friend bool operator==(const RationalStage& l, const RationalStage& r) {
    return l.constant == r.constant && l.weights == r.weights && l.poles == r.poles;
  }
  friend bool operator!=(const RationalStage& l, const RationalStage& r) { return !(l == r); }
  friend std::ostream& operator<<(std::ostream& out, const RationalStage& f) {
    out << '(' << f.constant;
    for (size_t j = 0; j < f.poles.size(); ++j) out << ", " << f.weights[j] << " @ " << f.poles[j];
    return out << ')';
  }
};

/// First stage first.
using RationalStages = std::vector<RationalStage>;

/// The number of poles of each stage.
std::vector<int64_t> poles_of(const RationalStages& schedule);

/// f(x).
double evaluate(const RationalStage& f, double x);

/// What the whole schedule makes of a normalized singular value.
double evaluate(const RationalStages& schedule, double x);

/// f′(0) = a₀ + Σ_j a_j / c_j: how far small singular values are lifted, and the norm that P can have.
double gain(const RationalStage& f);

/// The product of the stages' gains.
double gain(const RationalStages& schedule);

/// One of Zolotarev's stages: `poles` of them, closest to 1 on [low, 1].
struct ZolotarevStage {
  int64_t poles = 2;  ///< how many, 1 to 8
  double low = 1e-3;  ///< l, 1e-8 to .9
};

/// The rational function of type (2r + 1, 2r) closest to 1 on [low, 1] in the maximum norm, up to a factor.
///
/// Math:      with l = low, l′ = √(1 − l²), c_i = l² sc²(i K(l′) / (2r + 1); l′), i = 1 … 2r:
///            f = M x (1 + Σ_j a_j / (x² + c_{2j−1})),
///            a_j = −∏_k (c_{2j−1} − c_{2k}) / ∏_{k≠j} (c_{2j−1} − c_{2k−1}).
/// Factor:    M such that the extremes on [low, 1] lie evenly about 1 (`last`), or such that the largest is 1,
///            as stages before the last need it.
/// Precision: a few units of 1e-16, for every l.
/// Reference: Zolotarev 1877; Nakatsukasa & Freund, SIAM Review 58 (2016). One pole is the dynamically weighted
///            Halley step of QDWH.
/// @throws c10::Error unless 1 <= poles <= 8 and 1e-8 <= low <= 0.9.
RationalStage zolotarev_stage(const ZolotarevStage& stage, bool last = true);

/// A stage for each entry; the last lies evenly about 1, the others below it.
/// @throws c10::Error as `zolotarev_stage`, and without a stage.
RationalStages zolotarev_stages(const std::vector<ZolotarevStage>& stages);

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/coefficients/detail/rational_impl.hpp>
#endif
