// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The exact polar factor by singular value decomposition: ground truth for tests and diagnostics,
// and ExactPolar, the policy that uses it in place of Newton–Schulz.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/linalg_svd.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <algorithm>
#include <limits>
#include <optional>
#include <tuple>

#include <root_optim/core/finite.hpp>
#include <root_optim/core/policy.hpp>  // Fields
#include <root_optim/core/tensor_checks.hpp>
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
inline at::Tensor exact_polar(const at::Tensor& x, std::optional<double> tolerance = std::nullopt) {
  detail::check_matrices(x, "exact_polar");
  const double relative =
      tolerance.value_or(static_cast<double>((std::max)(x.size(-2), x.size(-1))) *
                         std::numeric_limits<double>::epsilon());
  TORCH_CHECK(detail::is_finite(relative) && relative >= 0 && relative < 1,
              "root_optim::exact_polar: expected a tolerance in [0, 1), got ", relative);
  const at::Tensor exact = x.to(at::kDouble);
  if (x.numel() == 0) return exact.clone();
  const auto [u, sigma, vh] = at::linalg_svd(exact, /*full_matrices=*/false);
  const at::Tensor largest = sigma.narrow(-1, 0, 1);  // sorted in descending order
  const at::Tensor kept = sigma.gt(largest.mul(relative)).to(at::kDouble);
  return u.mul(kept.unsqueeze(-2)).matmul(vh);
}

/// Policy: the exact polar factor, for reference runs and small matrices. Synchronizes with the
/// host.
class ExactPolar {
 public:
  static constexpr const char* name = "exact_polar";  ///< stable: checkpoints record it

  /// Singular values up to tolerance·σ_max count as zero. Range: [0, 1). Default: 2⁻²³·max(m, n)
  /// for float32 and half-precision input, 2⁻⁵²·max(m, n) for float64: directions below the
  /// rounding of the input are noise, and no orthogonalizer should blow them up to length one.
  ExactPolar& tolerance(std::optional<double> tolerance) {
    tolerance_ = tolerance;
    return *this;
  }
  std::optional<double> tolerance() const { return tolerance_; }

  /// @throws c10::Error if the tolerance is out of range.
  void validate() const {
    TORCH_CHECK(
        !tolerance_ || (detail::is_finite(*tolerance_) && *tolerance_ >= 0 && *tolerance_ < 1),
        "root_optim::ExactPolar: expected a tolerance in [0, 1), got ", *tolerance_);
  }
  void serialize(Fields& out) const {
    out.set("tolerance", tolerance_ ? std::vector<double>{*tolerance_} : std::vector<double>{});
  }
  void deserialize(const Fields& in) {
    const auto& stored = in.get<std::vector<double>>("tolerance");
    tolerance_ = stored.empty() ? std::nullopt : std::optional<double>(stored.front());
  }

  /// `exact_polar` of x [k, m, n], in x's dtype.
  at::Tensor operator()(const at::Tensor& x) const {
    validate();
    detail::check_matrices(x, "ExactPolar");
    const double epsilon = x.scalar_type() == at::kDouble
                               ? std::numeric_limits<double>::epsilon()
                               : static_cast<double>(std::numeric_limits<float>::epsilon());
    const double size = static_cast<double>((std::max)(x.size(-2), x.size(-1)));
    const double tolerance = tolerance_.value_or((std::min)(size * epsilon, 0.5));
    return exact_polar(x, tolerance).to(x.scalar_type());
  }

 private:
  std::optional<double> tolerance_;
};

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
