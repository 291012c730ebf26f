// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The inverse of R + cI for a batch of symmetric, positive semidefinite matrices R: on the CPU by tiles in code of our
// own (tiled_inverse.hpp), because LibTorch's operators take longer to start than small products to
// run.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/linalg_solve_triangular.h>
#include <ATen/ops/where.h>

#include <cstdint>

#include <root_optim/kernels/product.hpp>
#include <root_optim/kernels/tile_product.hpp>  // tile_unit
#include <root_optim/kernels/tiled_inverse.hpp>
#include <root_optim/kernels/workspace.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// sum ← sum + α (R + cI)⁻¹ by LibTorch's factorization: of the identity where there is none.
inline void add_inverse_by_libtorch(const at::Tensor& sum, const at::Tensor& r, double c,
                                    double alpha, const at::Tensor& failed, Workspace* workspace) {
  const at::Tensor one = at::eye(r.size(1), r.options());
  const auto [factor, info] = at::linalg_cholesky_ex(at::add(r.transpose(1, 2), one, c),
                                                     /*upper=*/false, /*check_errors=*/false);
  const at::Tensor lost = info.ne(0);
  failed.bitwise_or_(lost);
  const at::Tensor w = at::linalg_solve_triangular(at::where(lost.view({-1, 1, 1}), one, factor),
                                                   one.expand_as(r), /*upper=*/false);
  product(sum, w.transpose(1, 2), w, 1, alpha, workspace);
}

/// The same by tiles, on the CPU: the upper triangle.
template <class T>
void add_inverse_by_tiles(const at::Tensor& sum, const at::Tensor& r, double c, double alpha,
                          bool refine, const at::Tensor& failed, Workspace* workspace) {
  const int64_t k = r.size(0), m = r.size(1);
  const int64_t side = (m + tile_unit - 1) / tile_unit * tile_unit;
  // One cache line more: rows that are a multiple of 4096 bytes apart would share a few places of the cache.
  const int64_t row = side > leaf_size ? side + 64 / int64_t{sizeof(T)} : side;
  const int64_t factors = refine && m > leaf_size ? k : 0;
  const at::Tensor work = temporary(workspace, {k, side, row}, r.options()),
                   factor = temporary(workspace, {factors, leaf_size, leaf_size}, r.options());
  const Tiles<T> tiles{work.data_ptr<T>(), k, side, row};
  load_shifted(tiles, r.data_ptr<T>(), m, static_cast<T>(c));
  invert_factor(tiles, m, static_cast<T>(c), refine, factor.data_ptr<T>(), failed.data_ptr<bool>());
  add_gram_of_factor(sum.data_ptr<T>(), m, static_cast<T>(alpha), tiles);
}

}  // namespace detail

/// sum ← sum + weight · (R + cI)⁻¹: its upper triangle; what is below the diagonal is undefined until
/// `mirror_upper`. For several poles of one R one after another, without another matrix for each.
///
/// Shapes:    r, sum: [k, m, m], contiguous, float32 or float64, on one device. r is symmetric, its upper triangle is
///            read.
/// Pole:      c > 0. On the CPU it also bounds the pivots from below, so that rounding alone cannot make a
///            factorization fail; see factor_leaf.
/// Failure:   failed [k], bool on the same device, is set for every matrix that has no factor: one with Inf or NaN
///            or with eigenvalues well below −c. Its sum is undefined, those of the others are not touched.
///            Nothing is thrown and nothing read back.
/// Accuracy:  refine: the error of √c (R + cI)⁻¹X, XXᵀ = R, ‖X‖₂ = 1, is at most 1.2e-7/c in float32, as by LAPACK;
///            else the same down to c = 1e-4, twice that at 1e-5; below, factorizations fail.
/// Complexity: m³ FLOP; `refine` adds 256 m². The threads meet three times for every 64 rows, and the result does not
///            depend on their number. Off the CPU by LibTorch's Cholesky factorization.
/// Memory:    a matrix whose side is the next multiple of 32 for every matrix, and 64 × 64 with `refine`.
inline void add_spd_inverse(const at::Tensor& sum, const at::Tensor& r, double c, double weight,
                            bool refine, const at::Tensor& failed, Workspace* workspace = nullptr) {
  if (!r.is_cpu()) {
    detail::add_inverse_by_libtorch(sum, r, c, weight, failed, workspace);
  } else if (r.scalar_type() == at::kDouble) {
    detail::add_inverse_by_tiles<double>(sum, r, c, weight, refine, failed, workspace);
  } else {
    detail::add_inverse_by_tiles<float>(sum, r, c, weight, refine, failed, workspace);
  }
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
