// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The inverse of R + cI for a batch of symmetric, positive semidefinite matrices R, made of products: by halves,
// with leaves in code of our own (cholesky_leaf.hpp).
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/linalg_solve_triangular.h>
#include <ATen/ops/tril.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <type_traits>

#include <root_optim/kernels/cholesky_leaf.hpp>
#include <root_optim/kernels/parallel.hpp>
#include <root_optim/kernels/product.hpp>
#include <root_optim/kernels/workspace.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// body(first, last) for the parts of 0 … n into which products with triangular results or factors are divided.
template <class Body>
void for_parts(int64_t n, const Body& body) {
  const int64_t parts = (std::min)((std::max)(n / 256, int64_t{1}), int64_t{4});
  for (int64_t i = 0; i < parts; ++i) body(n * i / parts, n * (i + 1) / parts);
}

/// Rows and columns of each matrix, as one operator: there are hundreds of them in an inverse.
inline at::Tensor block(const at::Tensor& a, int64_t row, int64_t rows, int64_t column,
                        int64_t columns) {
  return a.as_strided({a.size(0), rows, columns}, a.strides(),
                      a.storage_offset() + row * a.stride(1) + column * a.stride(2));
}

/// The lower triangle of out ← out + α xᵀx or out + α xxᵀ (`by_rows`), by blocks; what is above the diagonal is
/// undefined.
inline void add_symmetric(const at::Tensor& out, const at::Tensor& x, bool by_rows, double alpha,
                          Workspace* workspace = nullptr) {
  const at::Tensor right = by_rows ? x.transpose(1, 2) : x;
  for_parts(out.size(1), [&](int64_t first, int64_t last) {
    const int64_t rows = right.size(1);
    const at::Tensor left = block(right, 0, rows, first, last - first).transpose(1, 2);
    product(block(out, first, last - first, 0, last), left, block(right, 0, rows, 0, last), 1,
            alpha, workspace);
  });
}

/// The lower triangle of out ← xxᵀ, x [k, m, n] of any strides, by blocks; what is above is undefined.
inline void set_symmetric(const at::Tensor& out, const at::Tensor& x,
                          Workspace* workspace = nullptr) {
  const auto add = [workspace](const at::Tensor& sum, const at::Tensor& part, double beta) {
    for_parts(sum.size(1), [&](int64_t first, int64_t last) {
      product(block(sum, first, last - first, 0, last), part.narrow(1, first, last - first),
              part.narrow(1, 0, last).transpose(1, 2), beta, 1, workspace);
    });
  };
  if (x.stride(2) == 1 || !takes_onednn(x, x.transpose(1, 2))) return add(out, x, 0);
  // A tall matrix: oneDNN needs rows, so a few MB of it are transposed at a time.
  const int64_t n = x.size(2), step = (std::max)((int64_t{1} << 20) / x.size(1), int64_t{128});
  for (int64_t i = 0; i < x.size(0); ++i) {
    for (int64_t first = 0; first < n; first += step) {
      const at::Tensor part = x.select(0, i).narrow(1, first, (std::min)(step, n - first));
      add(out.narrow(0, i, 1), part.contiguous().unsqueeze(0), first > 0 ? 1 : 0);
    }
  }
}

/// Where a matrix of m rows is divided: leaves are whole but for the last.
inline int64_t half_of(int64_t m) { return (m + 2 * leaf_size - 1) / (2 * leaf_size) * leaf_size; }

/// b ← b L⁻ᵀ by substitution with the leaves of L, whose blocks below the diagonal and leaves' inverses are in
/// `l` and leaves themselves in `leaves`.
///
/// Multiplication by a leaf's inverse leaves a residual of κ(leaf) ε, which grows into an error of the inverse of
/// (‖R‖₂/c)^1.5 ε or more; taken back once (`refine`), the error is LAPACK's.
inline void solve_right(const at::Tensor& b, const at::Tensor& l, const at::Tensor& leaves,
                        bool refine, Workspace* workspace) {
  const int64_t n = l.size(1);
  if (n > leaf_size) {
    const int64_t h = half_of(n), rest = n - h;
    const at::Tensor left = b.narrow(2, 0, h), right = b.narrow(2, h, rest);
    solve_right(left, block(l, 0, h, 0, h), leaves.narrow(1, 0, h), refine, workspace);
    product(right, left, block(l, h, rest, 0, h).transpose(1, 2), 1, -1, workspace);
    solve_right(right, block(l, h, rest, h, rest), leaves.narrow(1, h, rest), refine, workspace);
    return;
  }
  const at::Tensor x = temporary(workspace, b.sizes(), b.options()), inverse = l.transpose(1, 2);
  product(x, b, inverse, 0, 1, workspace);
  if (refine) {
    product(b, x, leaves.narrow(2, 0, n).transpose(1, 2), 1, -1, workspace);
    product(x, b, inverse, 1, 1, workspace);
  }
  b.copy_(x);
}

/// a = LLᵀ, [k, m, m] with contiguous rows on the CPU, in place: the lower triangle is read; L is written below the
/// leaves, the leaves' L⁻¹ into them and their L into `leaves` [k, m, 64]. failed[i] is set where matrix i has no
/// factor; see factor_leaf.
inline void factorize(const at::Tensor& a, const at::Tensor& leaves, double floor, bool refine,
                      bool* failed, Workspace* workspace) {
  const int64_t k = a.size(0), m = a.size(1);
  if (m > leaf_size) {
    const int64_t h = half_of(m), rest = m - h;
    const at::Tensor a21 = block(a, h, rest, 0, h), a22 = block(a, h, rest, h, rest);
    factorize(block(a, 0, h, 0, h), leaves.narrow(1, 0, h), floor, refine, failed, workspace);
    solve_right(a21, block(a, 0, h, 0, h), leaves.narrow(1, 0, h), refine, workspace);
    add_symmetric(a22, a21, /*by_rows=*/true, -1, workspace);
    factorize(a22, leaves.narrow(1, h, rest), floor, refine, failed, workspace);
    return;
  }
  const auto each = [&](auto* first, auto* factor) {
    using T = std::remove_pointer_t<decltype(first)>;
    for_each_parallel(k, [&](int64_t i) {
      if (!factor_leaf(first + i * a.stride(0), a.stride(1), m, static_cast<T>(floor),
                       factor + i * leaves.stride(0), leaves.stride(1))) {
        failed[i] = true;
      }
    });
  };
  if (a.scalar_type() == at::kDouble) {
    each(a.data_ptr<double>(), leaves.data_ptr<double>());
  } else {
    each(a.data_ptr<float>(), leaves.data_ptr<float>());
  }
}

/// a ← L⁻¹, a = LLᵀ, with zeros above the diagonal: both at once, in larger products than `factorize` and
/// `invert_factor` take, but without a residual that could be taken back. L₂₁ = A₂₁L₁₁⁻ᵀ and then
/// −L₂₂⁻¹L₂₁L₁₁⁻¹.
inline void factorize_inverse(const at::Tensor& a, const at::Tensor& leaves, double floor,
                              bool* failed, Workspace* workspace) {
  const int64_t k = a.size(0), m = a.size(1);
  if (m <= leaf_size) return factorize(a, leaves, floor, false, failed, workspace);
  const int64_t h = half_of(m), rest = m - h;
  const at::Tensor a11 = block(a, 0, h, 0, h), a21 = block(a, h, rest, 0, h),
                   a22 = block(a, h, rest, h, rest), above = block(a, 0, h, h, rest);
  factorize_inverse(a11, leaves, floor, failed, workspace);
  const at::Tensor l21 =
      k == 1 && h == rest ? above : temporary(workspace, {k, rest, h}, a.options());
  for_parts(h, [&](int64_t first, int64_t last) {
    product(block(l21, 0, rest, first, last - first), block(a21, 0, rest, 0, last),
            block(a11, first, last - first, 0, last).transpose(1, 2), 0, 1, workspace);
  });
  add_symmetric(a22, l21, /*by_rows=*/true, -1, workspace);
  for_parts(h, [&](int64_t first, int64_t last) {
    product(block(a21, 0, rest, first, last - first), block(l21, 0, rest, first, h - first),
            block(a11, first, h - first, first, last - first), 0, 1, workspace);
  });
  factorize_inverse(a22, leaves, floor, failed, workspace);
  for_parts(rest, [&](int64_t first, int64_t last) {
    product(block(l21, first, last - first, 0, h), block(a22, first, last - first, 0, last),
            block(a21, 0, last, 0, h), 0, -1, workspace);
  });
  a21.copy_(l21);
  above.zero_();
}

/// a ← L⁻¹ for what `factorize` left in a, with zeros above the diagonal: L₁₁⁻¹, L₂₂⁻¹, −L₂₂⁻¹L₂₁L₁₁⁻¹.
inline void invert_factor(const at::Tensor& a, Workspace* workspace) {
  const int64_t k = a.size(0), m = a.size(1);
  if (m <= leaf_size) return;
  const int64_t h = half_of(m), rest = m - h;
  const at::Tensor a11 = block(a, 0, h, 0, h), a21 = block(a, h, rest, 0, h),
                   a22 = block(a, h, rest, h, rest);
  invert_factor(a11, workspace);
  invert_factor(a22, workspace);
  // The block above the diagonal is free memory, if it has the shape and products need no contiguous result.
  const at::Tensor above = block(a, 0, h, h, rest);
  const at::Tensor buffer =
      k == 1 && h == rest ? above : temporary(workspace, {k, rest, h}, a.options());
  for_parts(h, [&](int64_t first, int64_t last) {
    product(buffer.narrow(2, first, last - first), a21.narrow(2, first, h - first),
            block(a11, first, h - first, first, last - first), 0, 1, workspace);
  });
  for_parts(rest, [&](int64_t first, int64_t last) {
    product(a21.narrow(1, first, last - first), block(a22, first, last - first, 0, last),
            buffer.narrow(1, 0, last), 0, -1, workspace);
  });
  above.zero_();
}

/// The lower triangle of sum ← sum + α WᵀW, W lower triangular.
inline void add_gram_of_factor(const at::Tensor& sum, const at::Tensor& w, double alpha,
                               Workspace* workspace) {
  const int64_t m = w.size(1);
  if (m <= 2 * leaf_size) return product(sum, w.transpose(1, 2), w, 1, alpha, workspace);
  const int64_t h = half_of(m), rest = m - h;
  const at::Tensor w21 = block(w, h, rest, 0, h), w22 = block(w, h, rest, h, rest);
  add_gram_of_factor(block(sum, 0, h, 0, h), block(w, 0, h, 0, h), alpha, workspace);
  add_symmetric(block(sum, 0, h, 0, h), w21, /*by_rows=*/false, alpha, workspace);
  for_parts(rest, [&](int64_t first, int64_t last) {
    product(block(sum, h + first, last - first, 0, h),
            block(w22, first, rest - first, first, last - first).transpose(1, 2),
            w21.narrow(1, first, rest - first), 1, alpha, workspace);
  });
  add_gram_of_factor(block(sum, h, rest, h, rest), w22, alpha, workspace);
}

/// Copies what is below the diagonal of each matrix [k, m, m] to above it.
inline void mirror_lower(const at::Tensor& a) {
  const int64_t m = a.size(1);
  if (!a.is_cpu() || a.stride(2) != 1) {
    a.copy_(at::tril(a).add_(at::tril(a, -1).transpose(1, 2)));
    return;
  }
  constexpr int64_t tile = 32;
  const int64_t tiles = (m + tile - 1) / tile, row = a.stride(1);
  const auto mirror = [&](auto* first) {
    for_each_parallel(a.size(0) * tiles, [&](int64_t part) {
      auto* const x = first + part / tiles * a.stride(0);
      const int64_t i0 = part % tiles * tile, i1 = (std::min)(i0 + tile, m);
      for (int64_t j0 = 0; j0 <= i0; j0 += tile) {
        for (int64_t j = j0; j < (std::min)(j0 + tile, i1); ++j) {
          for (int64_t i = (std::max)(i0, j + 1); i < i1; ++i) x[j * row + i] = x[i * row + j];
        }
      }
    });
  };
  if (a.scalar_type() == at::kDouble) {
    mirror(a.data_ptr<double>());
  } else {
    mirror(a.data_ptr<float>());
  }
}

/// sum ← sum + α A⁻¹ by LibTorch's factorization: of the identity where there is none.
inline void add_inverse_by_libtorch(const at::Tensor& sum, const at::Tensor& a, double alpha,
                                    const at::Tensor& failed, Workspace* workspace) {
  const auto [factor, info] = at::linalg_cholesky_ex(a, /*upper=*/false, /*check_errors=*/false);
  const at::Tensor lost = info.ne(0), one = at::eye(a.size(1), a.options());
  failed.bitwise_or_(lost);
  const at::Tensor w = at::linalg_solve_triangular(at::where(lost.view({-1, 1, 1}), one, factor),
                                                   one.expand_as(a), /*upper=*/false);
  product(sum, w.transpose(1, 2), w, 1, alpha, workspace);
}

}  // namespace detail

/// sum ← sum + weight · (R + cI)⁻¹: its lower triangle; what is above the diagonal is undefined until
/// `mirror_lower`. For several poles of one R one after another, without another matrix for each.
///
/// Shapes:    r, sum, work: [k, m, m], contiguous, float32 or float64, on one device. r is symmetric, its lower
///            triangle is read. work is overwritten.
/// Pole:      c > 0. On the CPU it also bounds the pivots from below, so that rounding alone cannot make a
///            factorization fail; see factor_leaf.
/// Failure:   failed [k], bool on the same device, is set for every matrix that has no factor: one with Inf or NaN
///            or with eigenvalues well below −c. Its sum is undefined, those of the others are not touched.
///            Nothing is thrown and nothing read back.
/// Accuracy:  refine: the error of √c (R + cI)⁻¹X, XXᵀ = R, ‖X‖₂ = 1, is at most 1.2e-7/c in float32, as by LAPACK;
///            else the same down to c = 1e-4, twice that at 1e-5; below, factorizations fail.
/// Complexity: 2 m³ FLOP in products, with triangular parts left out down to 1.5 m³, and leaves of 64 × 64;
///            `refine` adds 256 m². Off the CPU by LibTorch's Cholesky factorization.
/// Memory:    a sixteenth to a third of a matrix for every matrix beside `work`.
inline void add_spd_inverse(const at::Tensor& sum, const at::Tensor& r, double c, double weight,
                            bool refine, const at::Tensor& work, const at::Tensor& failed,
                            Workspace* workspace = nullptr) {
  work.copy_(r);
  work.diagonal(0, 1, 2).add_(c);
  if (!r.is_cpu()) return detail::add_inverse_by_libtorch(sum, work, weight, failed, workspace);
  const at::Tensor leaves = detail::temporary(
      workspace, {r.size(0), r.size(1), (std::min)(r.size(1), detail::leaf_size)}, r.options());
  bool* const lost = failed.data_ptr<bool>();
  if (refine) {
    detail::factorize(work, leaves, c, refine, lost, workspace);
    detail::invert_factor(work, workspace);
  } else {
    detail::factorize_inverse(work, leaves, c, lost, workspace);
  }
  detail::add_gram_of_factor(sum, work, weight, workspace);
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
