// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The outlier split U = O + B of ROOT (arXiv 2511.20626, "soft thresholding"): SoftThreshold, the filter
// that returns B, and the exact quantile of |U| that can set its threshold. U is the gradient or, as
// published, the matrix made of the momentum (FilterPlace, options.hpp).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include <root_optim/core/fields.hpp>
#include <root_optim/core/scratch.hpp>
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
at::Tensor quantile_of_abs(const at::Tensor& u, double q);

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
  static SoftThreshold published();

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
  SoftThreshold& scaled(double kappa, int64_t passes = 3);

  /// The setter that was called last. Default: Scaled.
  Mode mode() const { return mode_; }
  /// The q, ε or factor given to the setter of the mode.
  double value() const { return value_; }
  /// The passes of `scaled`; 1 with every other mode.
  int64_t passes() const { return passes_; }
  /// What is added to ε: 1e-9 for `published()`, else 0.
  double floor() const { return floor_; }

  /// @throws c10::Error if the value is out of its mode's range.
  void validate() const;
  void serialize(Fields& out) const;
  void deserialize(const Fields& in);

  /// ε of each matrix: [k, m, n] -> [k, 1, 1], with `scaled` [k, m, n], in float64 for float64, else
  /// float32. It shares no memory with u.
  /// @throws c10::Error for a u that is not [k, m, n], and as `validate`.
  at::Tensor threshold(const at::Tensor& u) const;

  /// B of each matrix of u, [k, m, n].
  /// @throws c10::Error as `threshold`.
  at::Tensor operator()(const at::Tensor& u) const { return (*this)(u, Scratch()); }
  /// The same with what a step offers: see Scratch.
  at::Tensor operator()(const at::Tensor& u, Scratch scratch) const;

 private:
  bool has_kernel(const at::Tensor& u) const;

  at::Tensor scaled_body(const at::Tensor& u, const at::Tensor& body) const;

  at::Tensor scaled_threshold(const at::Tensor& u) const;

  SoftThreshold& set(Mode mode, double value);

  Mode mode_ = Mode::Scaled;
  double value_ = 3.0;
  double floor_ = 0.0;
  int64_t passes_ = 3;
};

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/filters/detail/soft_threshold_impl.hpp>
#endif
