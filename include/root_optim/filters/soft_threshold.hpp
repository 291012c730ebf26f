// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The outlier split U = O + B of ROOT (arXiv 2511.20626, "soft thresholding"): SoftThreshold, the filter
// that returns B, and the exact quantile of |U| that can set its threshold. U is the gradient or, as
// published, the matrix made of the momentum (FilterPlace, options.hpp).
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>  // GradMode
#include <ATen/ops/clamp.h>
#include <ATen/ops/full.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/where.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include <root_optim/core/finite.hpp>
#include <root_optim/core/policy.hpp>  // Fields
#include <root_optim/core/tensor_checks.hpp>
#include <root_optim/filters/detail/scaled_clamp.hpp>
#include <root_optim/filters/outlier_split.hpp>
#include <root_optim/kernels/frobenius_norm.hpp>
#include <root_optim/kernels/order_statistic.hpp>
#include <root_optim/kernels/reduce.hpp>
#include <root_optim/kernels/workspace.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// Computes the quantile q of the absolute values of each matrix, exactly.
///
/// Math:      with |u| sorted ascending, v₀ … v_{N−1}, and r = q·(N − 1): linear interpolation
///            between v_⌊r⌋ and v_⌊r⌋₊₁ (the "linear" method of NumPy and LibTorch).
/// Shapes:    u: [k, m, n] -> [k, 1, 1], u's device; float64 for float64, else float32.
/// Degenerate: any N >= 1 (LibTorch's own quantile stops at 2²⁴); NaN sorts last, Inf before it.
/// Complexity: see kernels/order_statistic.hpp. No host synchronization.
/// @param q in [0, 1].
/// @throws c10::Error for q out of range, an empty matrix, or a tensor that is not [k, m, n].
inline at::Tensor quantile_of_abs(const at::Tensor& u, double q) {
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

/// Filter: returns the clamped body B = clamp(U, −ε, ε) of each matrix U.
///
/// Here U is the matrix that the filter is given: the gradient or, as published (FilterPlace::Momentum),
/// the U of the step. The outliers O = U − B are dropped. A setter chooses the threshold ε of a matrix:
///
/// | setter             | ε                                                            |
/// |--------------------|--------------------------------------------------------------|
/// | scaled(κ, passes)  | ε_ij = κ·r_i·c_j/a; the default, with κ = 3 and 3 passes     |
/// | quantile(q)        | the quantile q of the absolute values; ROOT's, with q = 0.90 |
/// | absolute(e)        | e                                                            |
/// | relative_to_rms(f) | f·√mean(U²)                                                  |
///
/// `scaled` is our own. r_i, c_j and a are the means of |U| over row i, over column j and over all of U.
/// Rows and columns differ in size by orders of magnitude. A pattern of scales r_i·c_j passes unchanged,
/// and only single entries that stand out of it are clipped; one threshold for the whole matrix would
/// clip the large rows instead. Each further pass takes its means from what the pass before has clipped.
/// Of independent normal entries three passes of κ = 3 clip 1.7 %. No order statistic is needed. An
/// entry that outweighs all others together raises the means by itself; each pass lowers them again. A
/// single row or column is its own pattern: κ > 1 clips nothing of it.
///
/// ε = 0 (more than a share q of zeros, or a zero matrix) means that there is no scale to compare with,
/// so B = U. `published()` adds 1e-9 to ε instead, as ROOT was published.
///
/// B scales with U (`scaled`: below 1e30) in all modes but absolute, and in `published()` but for its
/// 1e-9. With an absolute threshold and FilterPlace::Momentum the two MomentumForms are clipped
/// differently, because their buffers differ by the factor 1 − μ.
///
/// NaN in U stays in B. An infinite entry makes the means infinite, so that what `scaled` leaves of its
/// matrix is meaningless; the quantile clips it. In an optimizer such a step is skipped by default
/// (NonFinite).
/// Dtype:    float64 and float32; half precision where LibTorch clamps it (the optimizer passes
///           float32).
/// Cost:     scaled, in float32 and float64 on the CPU: one read of U a pass, then one read and one
///           write. Elsewhere about ten operators a pass, with temporaries of U's size: on other
///           devices, in half precision, under autograd, and for strides other than those of [k, m, n]
///           and its transposes. quantile: two reads, a selection, a read and a write; on other devices
///           a sort. The others: a few operators.
/// Reference: ROOT, arXiv 2511.20626 (quantile); docs/results.md (scaled).
class SoftThreshold {
 public:
  static constexpr const char* name = "soft_threshold";  ///< stable: checkpoints record it

  /// The setters of the threshold.
  enum class Mode { Quantile, Absolute, RelativeToRms, Scaled };

  /// The split as published: quantile .90, with 1e-9 added to the threshold.
  static SoftThreshold published() {
    SoftThreshold filter = SoftThreshold().quantile(0.90);
    filter.floor_ = 1e-9;
    return filter;
  }

  /// ε is the quantile q of |U|. Range: [0, 1]; 1 clips nothing. ROOT's: 0.90.
  SoftThreshold& quantile(double q) { return set(Mode::Quantile, q); }
  /// ε is `epsilon`, in units of U. Range: 0 to 3.4e38 (float32).
  SoftThreshold& absolute(double epsilon) { return set(Mode::Absolute, epsilon); }
  /// ε is `factor` times the root mean square of U. Range: 0 to 3.4e38; √(m·n) or more clips nothing.
  SoftThreshold& relative_to_rms(double factor) { return set(Mode::RelativeToRms, factor); }
  /// ε follows the rows and columns of U, see above.
  /// @param kappa κ. Range: > 0, up to 3.4e38. Below 1 it clips what follows the pattern, too, and more
  /// with every pass.
  /// @param passes range: 1 to 8. Default: 3.
  SoftThreshold& scaled(double kappa, int64_t passes = 3) {
    set(Mode::Scaled, kappa);
    passes_ = passes;
    return *this;
  }

  /// The setter that was called last. Default: Scaled.
  Mode mode() const { return mode_; }
  /// The q, ε or factor given to the setter of the mode.
  double value() const { return value_; }
  /// The passes of `scaled`; 1 with every other mode.
  int64_t passes() const { return passes_; }
  /// What is added to ε: 1e-9 for `published()`, else 0.
  double floor() const { return floor_; }

  /// @throws c10::Error if the value is out of its mode's range.
  void validate() const {
    if (mode_ == Mode::Quantile) {
      TORCH_CHECK(value_ >= 0 && value_ <= 1 && detail::is_finite(value_),
                  "root_optim::SoftThreshold: expected a quantile in [0, 1], got ", value_);
    } else if (mode_ == Mode::Scaled) {
      TORCH_CHECK(detail::fits_float32(value_) && value_ > 0,
                  "root_optim::SoftThreshold: expected 0 < kappa <= 3.4e38, got ", value_);
    } else {
      TORCH_CHECK(detail::fits_float32(value_) && value_ >= 0,
                  "root_optim::SoftThreshold: expected ",
                  mode_ == Mode::Absolute ? "an absolute threshold" : "a factor of the RMS",
                  " from 0 to 3.4e38, got ", value_);
    }
    TORCH_CHECK(passes_ >= 1 && passes_ <= 8,
                "root_optim::SoftThreshold: expected 1 <= passes <= 8, got ", passes_);
    TORCH_CHECK(detail::fits_float32(floor_) && floor_ >= 0,
                "root_optim::SoftThreshold: expected a floor from 0 to 3.4e38, got ", floor_);
  }
  void serialize(Fields& out) const {
    out.set("mode", static_cast<int64_t>(mode_));
    out.set("value", value_);
    out.set("floor", floor_);
    out.set("passes", passes_);
  }
  void deserialize(const Fields& in) {
    mode_ = in.get_enum("mode", Mode::Scaled);
    value_ = in.get<double>("value");
    floor_ = in.get<double>("floor");
    passes_ = in.get<int64_t>("passes");
  }

  /// ε of each matrix: [k, m, n] -> [k, 1, 1], with `scaled` [k, m, n], in float64 for float64, else
  /// float32. It shares no memory with u.
  /// @throws c10::Error for a u that is not [k, m, n], and as `validate`.
  at::Tensor threshold(const at::Tensor& u) const {
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

  /// B of each matrix of u, [k, m, n].
  /// @throws c10::Error as `threshold`.
  at::Tensor operator()(const at::Tensor& u) const { return (*this)(u, Scratch()); }
  /// The same with what a step offers: see Scratch.
  at::Tensor operator()(const at::Tensor& u, Scratch scratch) const {
    detail::check_batch(u, "SoftThreshold");
    if (has_kernel(u)) {
      return scaled_body(u, scratch.overwrite ? u : detail::temporary_like(scratch.workspace, u));
    }
    const at::Tensor epsilon = threshold(u);
    if (!scratch.overwrite) return detail::clamp_to(u, epsilon, scratch.workspace);
    const at::Tensor limit = detail::limit_of(u, epsilon);
    return u.clamp_(limit.neg(), limit);
  }

 private:
  bool has_kernel(const at::Tensor& u) const {
    const bool differentiable = at::GradMode::is_enabled() && u.requires_grad();
    return mode_ == Mode::Scaled && u.numel() > 0 && !differentiable &&
           detail::cpu_entries(u).defined();
  }

  at::Tensor scaled_body(const at::Tensor& u, const at::Tensor& body) const {
    validate();
    // Of transposed matrices the matrices before that: rows and columns play the same part.
    detail::scaled_clamp(detail::cpu_entries(u), {value_, passes_, floor_},
                         detail::cpu_entries(body));
    return body;
  }

  at::Tensor scaled_threshold(const at::Tensor& u) const {
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

  SoftThreshold& set(Mode mode, double value) {
    mode_ = mode;
    value_ = value;
    passes_ = 1;
    return *this;
  }

  Mode mode_ = Mode::Scaled;
  double value_ = 3.0;
  double floor_ = 0.0;
  int64_t passes_ = 3;
};

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
