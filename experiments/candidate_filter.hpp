// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Outlier filters that the library does not have, to find out whether it should.
#pragma once

#include <ATen/ATen.h>
#include <root_optim/filters/soft_threshold.hpp>

#include <cstdint>
#include <limits>

namespace experiments {

/// Clips |U_ij| at thresholds made from rows and columns; see `notes` in settings.hpp.
class CandidateFilter {
 public:
  static constexpr const char* name = "candidate";

  enum class Kind { Rows, Columns, Median, Tail, RankOne };

  CandidateFilter() = default;
  CandidateFilter(Kind kind, double value) : kind_(kind), value_(value) {}

  void validate() const {
    TORCH_CHECK(value_ >= 0, "CandidateFilter: expected a value >= 0, got ", value_);
  }
  void serialize(root_optim::Fields& out) const {
    out.set("kind", static_cast<int64_t>(kind_));
    out.set("value", value_);
  }
  void deserialize(const root_optim::Fields& in) {
    kind_ = in.get_enum("kind", Kind::RankOne);
    value_ = in.get<double>("value");
  }

  /// B of each matrix of u [k, m, n].
  at::Tensor operator()(const at::Tensor& u) const {
    if (kind_ == Kind::RankOne) {
      const at::Tensor fit = leading_part(u);
      const at::Tensor rest = u.sub(fit);
      return clipped(rest, product_of_means(rest.abs()).mul_(value_)).add_(fit);
    }
    return clipped(u, threshold(u.abs()));
  }

 private:
  static at::Tensor clipped(const at::Tensor& u, const at::Tensor& threshold) {
    return root_optim::split_outliers(u, threshold).second;
  }

  /// r_i·c_j/mean.
  static at::Tensor product_of_means(const at::Tensor& magnitude) {
    const at::Tensor rows = magnitude.mean(2, /*keepdim=*/true);
    const at::Tensor columns = magnitude.mean(1, /*keepdim=*/true);
    return rows.div(floored(rows.mean(1, /*keepdim=*/true))).mul(columns);
  }

  static at::Tensor floored(const at::Tensor& x) {
    return x.clamp_min(std::numeric_limits<float>::min());
  }

  at::Tensor threshold(const at::Tensor& magnitude) const {
    switch (kind_) {
      case Kind::Rows:
        return magnitude.mean(2, /*keepdim=*/true).mul_(value_);
      case Kind::Columns:
        return magnitude.mean(1, /*keepdim=*/true).mul_(value_);
      case Kind::Median: {
        const at::Tensor rows = std::get<0>(magnitude.median(2, /*keepdim=*/true));
        const at::Tensor columns = std::get<0>(magnitude.median(1, /*keepdim=*/true));
        const at::Tensor all = std::get<0>(magnitude.flatten(1).median(1)).view({-1, 1, 1});
        return rows.div(floored(all)).mul(columns).mul(value_);
      }
      case Kind::Tail: {
        const at::Tensor scale = product_of_means(magnitude);
        const at::Tensor relative = magnitude.div(floored(scale));
        return root_optim::quantile_of_abs(relative, 0.99).mul(value_).mul(scale);
      }
      case Kind::RankOne:
        break;
    }
    TORCH_CHECK(false, "CandidateFilter: expected a kind with a threshold");
  }

  /// σ₁ x yᵀ by three power iterations that start from the longest row.
  static at::Tensor leading_part(const at::Tensor& u) {
    const at::Tensor longest = u.square().sum(2).argmax(1);  // [k]
    at::Tensor y = u.gather(1, longest.view({-1, 1, 1}).expand({-1, 1, u.size(2)}));
    for (int iteration = 0; iteration < 3; ++iteration) {
      y = y.div(floored(y.norm(2, {2}, /*keepdim=*/true)));
      y = y.matmul(u.transpose(1, 2)).matmul(u);
    }
    y = y.div(floored(y.norm(2, {2}, /*keepdim=*/true)));
    return u.matmul(y.transpose(1, 2)).matmul(y);
  }

  Kind kind_ = Kind::Rows;
  double value_ = 5;
};

}  // namespace experiments
