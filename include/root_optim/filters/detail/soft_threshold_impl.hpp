// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of filters/soft_threshold.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>  // GradMode
#include <ATen/ops/full.h>
#include <ATen/ops/lerp.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cmath>
#include <cstdint>
#include <limits>

#include <root_optim/core/fields.hpp>
#include <root_optim/core/finite.hpp>
#include <root_optim/core/tensor_checks.hpp>
#include <root_optim/filters/detail/scaled_clamp.hpp>
#include <root_optim/filters/outlier_split.hpp>
#include <root_optim/filters/soft_threshold.hpp>
#include <root_optim/kernels/frobenius_norm.hpp>
#include <root_optim/kernels/order_statistic.hpp>
#include <root_optim/kernels/reduce.hpp>
#include <root_optim/kernels/workspace.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

ROOT_OPTIM_INLINE at::Tensor quantile_of_abs(const at::Tensor& u, double q) {
  detail::check_batch(u, "quantile_of_abs");
  TORCH_CHECK(
      u.numel() > 0,
      "root_optim::quantile_of_abs: expected a batch of matrices that is not empty, got shape ",
      u.sizes());
  TORCH_CHECK(detail::is_finite(q) && q >= 0 && q <= 1,
              "root_optim::quantile_of_abs: expected q in [0, 1], got ", q);
  const double position = q * static_cast<double>(u.size(1) * u.size(2) - 1);
  const double rank = std::floor(position);
  const at::Tensor values = u.element_size() < 4 ? u.to(at::kFloat) : u;
  const auto [lower, upper] = detail::abs_order_statistics(values, static_cast<int64_t>(rank));
  // Not interpolated at a whole rank: the neighbor may be infinite.
  return position == rank ? lower : at::lerp(lower, upper, position - rank);
}

ROOT_OPTIM_INLINE SoftThreshold SoftThreshold::published() {
  SoftThreshold filter = SoftThreshold().quantile(0.90);
  filter.floor_ = 1e-9;
  return filter;
}

ROOT_OPTIM_INLINE SoftThreshold& SoftThreshold::scaled(double kappa, int64_t passes) {
  set(Mode::Scaled, kappa);
  passes_ = passes;
  return *this;
}

ROOT_OPTIM_INLINE void SoftThreshold::validate() const {
  if (mode_ == Mode::Quantile) {
    TORCH_CHECK(value_ >= 0 && value_ <= 1 && detail::is_finite(value_),
                "root_optim::SoftThreshold: expected a quantile in [0, 1], got ", value_);
  } else if (mode_ == Mode::Scaled) {
    TORCH_CHECK(detail::fits_float32(value_) && value_ > 0,
                "root_optim::SoftThreshold: expected 0 < kappa <= 3.4e38, got ", value_);
  } else {
    TORCH_CHECK(detail::fits_float32(value_) && value_ >= 0, "root_optim::SoftThreshold: expected ",
                mode_ == Mode::Absolute ? "an absolute threshold" : "a factor of the RMS",
                " from 0 to 3.4e38, got ", value_);
  }
  TORCH_CHECK(passes_ >= 1 && passes_ <= 8,
              "root_optim::SoftThreshold: expected 1 <= passes <= 8, got ", passes_);
  TORCH_CHECK(detail::fits_float32(floor_) && floor_ >= 0,
              "root_optim::SoftThreshold: expected a floor from 0 to 3.4e38, got ", floor_);
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void SoftThreshold::serialize(Fields& out) const {
  out.set("mode", static_cast<int64_t>(mode_));
  out.set("value", value_);
  out.set("floor", floor_);
  out.set("passes", passes_);
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void SoftThreshold::deserialize(const Fields& in) {
  mode_ = in.get_enum("mode", Mode::Scaled);
  value_ = in.get<double>("value");
  floor_ = in.get<double>("floor");
  passes_ = in.get<int64_t>("passes");
}

ROOT_OPTIM_INLINE at::Tensor SoftThreshold::threshold(const at::Tensor& u) const {
  validate();
  detail::check_batch(u, "SoftThreshold");
  const at::ScalarType dtype = u.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  switch (mode_) {
    case Mode::Quantile:
      return quantile_of_abs(u, value_).add_(floor_);
    case Mode::Absolute:
      return at::full({u.size(0), 1, 1}, value_ + floor_, u.options().dtype(dtype));
    case Mode::RelativeToRms: {
      const double entries = static_cast<double>(u.size(1) * u.size(2));
      return detail::frobenius_norms(u).mul_(value_ / std::sqrt(entries)).add_(floor_).to(dtype);
    }
    case Mode::Scaled:
      return scaled_threshold(u.to(dtype));
  }
  TORCH_CHECK(false, "root_optim::SoftThreshold: expected a known mode, got ",
              static_cast<int>(mode_));
}

ROOT_OPTIM_INLINE at::Tensor SoftThreshold::operator()(const at::Tensor& u, Scratch scratch) const {
  detail::check_batch(u, "SoftThreshold");
  if (has_kernel(u)) {
    return scaled_body(u, scratch.overwrite ? u : detail::temporary_like(scratch.workspace, u));
  }
  const at::Tensor epsilon = threshold(u);
  if (!scratch.overwrite) return detail::clamp_to(u, epsilon, scratch.workspace);
  const at::Tensor limit = detail::limit_of(u, epsilon);
  return u.clamp_(limit.neg(), limit);
}

ROOT_OPTIM_INLINE bool SoftThreshold::has_kernel(const at::Tensor& u) const {
  const bool differentiable = at::GradMode::is_enabled() && u.requires_grad();
  return mode_ == Mode::Scaled && u.numel() > 0 && !differentiable &&
         detail::cpu_entries(u).defined();
}

ROOT_OPTIM_INLINE at::Tensor SoftThreshold::scaled_body(const at::Tensor& u,
                                                        const at::Tensor& body) const {
  validate();
  // Of transposed matrices the matrices before that: rows and columns play the same part.
  detail::scaled_clamp(detail::cpu_entries(u), {value_, passes_, floor_},
                       detail::cpu_entries(body));
  return body;
}

ROOT_OPTIM_INLINE at::Tensor SoftThreshold::scaled_threshold(const at::Tensor& u) const {
  // Never 0, which would mean "unsplit": a zero matrix has nothing to split, and what underflows is
  // far below everything else.
  const double least = u.scalar_type() == at::kDouble ? (std::numeric_limits<double>::min)()
                                                      : (std::numeric_limits<float>::min)();
  at::Tensor magnitude = u.abs(), threshold;
  for (int64_t pass = 0; pass < passes_; ++pass) {
    if (pass > 0) magnitude = detail::clamp_to(u, threshold).abs();
    const at::Tensor rows = magnitude.mean(2, /*keepdim=*/true);
    const at::Tensor columns = magnitude.mean(1, /*keepdim=*/true);
    const at::Tensor mean = rows.mean(1, /*keepdim=*/true).clamp_min_(least);
    threshold = rows.mul(value_).div_(mean).mul(columns).clamp_min_(least);
  }
  return threshold.add_(floor_);
}

ROOT_OPTIM_INLINE SoftThreshold& SoftThreshold::set(Mode mode, double value) {
  mode_ = mode;
  value_ = value;
  passes_ = 1;
  return *this;
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
