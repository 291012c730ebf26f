// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Products that are known to be symmetric, computed by blocks: one triangle of blocks, mirrored.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/triu.h>

#include <algorithm>
#include <cstdint>

#include <root_optim/kernels/parallel.hpp>
#include <root_optim/kernels/product.hpp>
#include <root_optim/kernels/workspace.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// out ← x yᵀ, or β·added + α·x yᵀ, for results that are symmetric in exact arithmetic.
///
/// Shapes: x, y: [k, m, p]; out, added: [k, m, m], none of them the same tensor as out.
/// Blocks: 1 is the plain product; s > 1 leaves the fraction (s + 1) / 2s of its FLOP.
inline void symmetric_product_out(at::Tensor& out, const at::Tensor& x, const at::Tensor& y,
                                  int64_t blocks, const at::Tensor& added = {}, double beta = 0,
                                  double alpha = 1) {
  if (added.defined() && static_cast<float>(alpha) == 0) {
    // LibTorch 2.13's product in bfloat16 takes α = 0 for 1 where oneDNN makes it (AVX512_BF16).
    out.copy_(added).mul_(beta);
    return;
  }
  const int64_t m = x.size(1);
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t first = m * block / blocks, last = m * (block + 1) / blocks;
    // Rows first … last, columns 0 … last: all that the lower triangle needs of them.
    at::Tensor lower = out.narrow(1, first, last - first).narrow(2, 0, last);
    const at::Tensor left = x.narrow(1, first, last - first);
    const at::Tensor right = y.narrow(1, 0, last).transpose(1, 2);
    if (takes_onednn(left, right)) {
      if (added.defined()) {
        at::mul_out(lower, added.narrow(1, first, last - first).narrow(2, 0, last),
                    at::scalar_tensor(beta, added.options().device(at::kCPU)));
      }
      product(lower, left, right, added.defined() ? 1 : 0, alpha);
    } else if (added.defined()) {
      at::baddbmm_out(lower, added.narrow(1, first, last - first).narrow(2, 0, last), left, right,
                      beta, alpha);
    } else {
      at::bmm_out(lower, left, right);
    }
    if (first > 0) {
      out.narrow(1, 0, first)
          .narrow(2, first, last - first)
          .copy_(lower.narrow(2, 0, first).transpose(1, 2));
    }
  }
}

/// The upper triangle of out ← xxᵀ, x [k, m, n] of any strides, by blocks; what is below is undefined.
inline void set_symmetric(const at::Tensor& out, const at::Tensor& x,
                          Workspace* workspace = nullptr) {
  const auto add = [workspace](const at::Tensor& sum, const at::Tensor& part, double beta) {
    const int64_t m = sum.size(1), parts = (std::min)((std::max)(m / 128, int64_t{1}), int64_t{4});
    for (int64_t i = 0; i < parts; ++i) {
      const int64_t first = m * i / parts, rows = m * (i + 1) / parts - first;
      product(sum.narrow(1, first, rows).narrow(2, first, m - first), part.narrow(1, first, rows),
              part.narrow(1, first, m - first).transpose(1, 2), beta, 1, workspace);
    }
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

/// Copies what is above the diagonal of each matrix [k, m, m] to below it.
inline void mirror_upper(const at::Tensor& a) {
  const int64_t m = a.size(1);
  if (!a.is_cpu() || a.stride(2) != 1) {
    a.copy_(at::triu(a).add_(at::triu(a, 1).transpose(1, 2)));
    return;
  }
  constexpr int64_t tile = 32;
  const int64_t tiles = (m + tile - 1) / tile, row = a.stride(1);
  const auto mirror = [&](auto* first) {
    for_each_in_turn(a.size(0) * tiles, [&](int64_t part) {
      auto* const x = first + part / tiles * a.stride(0);
      const int64_t i0 = part % tiles * tile, i1 = (std::min)(i0 + tile, m);
      for (int64_t j0 = 0; j0 <= i0; j0 += tile) {
        for (int64_t i = i0; i < i1; ++i) {
          for (int64_t j = j0; j < (std::min)(j0 + tile, i); ++j) x[i * row + j] = x[j * row + i];
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

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
