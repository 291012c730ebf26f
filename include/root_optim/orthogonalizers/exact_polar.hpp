// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The exact polar factor by singular value decomposition: ground truth for tests and diagnostics,
// and ExactPolar, the policy that uses it in place of Newton–Schulz.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include <root_optim/core/fields.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// Computes the orthogonal polar factor UᵣVᵣᵀ of each matrix X = UΣVᵀ by SVD in float64.
///
/// Math:      the partial isometry over the singular values σ > tolerance·σ_max. For full rank this
///            is UVᵀ, the orthogonal (or semi-orthogonal) matrix nearest to X; zero gives zero.
/// Shapes:    x: [..., m, n] -> the same shape, float64, on x's device.
/// Dtype:     any real floating dtype; x is taken as exact and not modified.
/// Complexity: one SVD for each matrix, O(m²n) with a constant about 20 times that of a Newton–Schulz step.
///            Synchronizes with the host.
/// @param tolerance relative to σ_max, in [0, 1). Default: max(m, n)·2⁻⁵², the rounding of the SVD.
/// @throws c10::Error for other dtypes, layouts or ranks, and (from the SVD) for Inf or NaN.
at::Tensor exact_polar(const at::Tensor& x, std::optional<double> tolerance = std::nullopt);

/// Policy: the exact polar factor, for reference runs and small matrices. Synchronizes with the
/// host.
class ExactPolar {
 public:
  static constexpr const char* name = "exact_polar";  ///< stable: checkpoints record it
  static constexpr bool capturable = false;           ///< the host waits for the SVD

  /// Singular values up to tolerance·σ_max count as zero. Range: [0, 1). Default: 2⁻²³·max(m, n)
  /// for float32 and half-precision input, 2⁻⁵²·max(m, n) for float64: directions below the
  /// rounding of the input are noise, and no orthogonalizer should blow them up to length one.
  ExactPolar& tolerance(std::optional<double> tolerance);
  std::optional<double> tolerance() const { return tolerance_; }

  /// @throws c10::Error if the tolerance is out of range.
  void validate() const;
  void serialize(Fields& out) const {
    out.set("tolerance", tolerance_ ? std::vector<double>{*tolerance_} : std::vector<double>{});
  }
  void deserialize(const Fields& in);

  /// `exact_polar` of x [k, m, n], in x's dtype.
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  std::optional<double> tolerance_;
};

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/orthogonalizers/detail/exact_polar_impl.hpp>
#endif
