// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of orthogonalizers/exact_polar.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/linalg_svd.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <algorithm>
#include <limits>
#include <optional>
#include <vector>

#include <root_optim/core/fields.hpp>
#include <root_optim/core/finite.hpp>
#include <root_optim/core/tensor_checks.hpp>
#include <root_optim/orthogonalizers/exact_polar.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

ROOT_OPTIM_INLINE at::Tensor exact_polar(const at::Tensor& x, std::optional<double> tolerance) {
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

ROOT_OPTIM_INLINE ExactPolar& ExactPolar::tolerance(std::optional<double> tolerance) {
  tolerance_ = tolerance;
  return *this;
}

ROOT_OPTIM_INLINE void ExactPolar::validate() const {
  TORCH_CHECK(
      !tolerance_ || (detail::is_finite(*tolerance_) && *tolerance_ >= 0 && *tolerance_ < 1),
      "root_optim::ExactPolar: expected a tolerance in [0, 1), got ", *tolerance_);
}

ROOT_OPTIM_INLINE void ExactPolar::deserialize(const Fields& in) {
  const auto& stored = in.get<std::vector<double>>("tolerance");
  tolerance_ = stored.empty() ? std::nullopt : std::optional<double>(stored.front());
}

ROOT_OPTIM_INLINE at::Tensor ExactPolar::operator()(const at::Tensor& x) const {
  validate();
  detail::check_matrices(x, "ExactPolar");
  const double epsilon = x.scalar_type() == at::kDouble
                             ? std::numeric_limits<double>::epsilon()
                             : static_cast<double>(std::numeric_limits<float>::epsilon());
  const double size = static_cast<double>((std::max)(x.size(-2), x.size(-1)));
  const double tolerance = tolerance_.value_or((std::min)(size * epsilon, 0.5));
  return exact_polar(x, tolerance).to(x.scalar_type());
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
