// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Products that are known to be symmetric, computed by blocks: the lower triangle of blocks, mirrored.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/scalar_tensor.h>

#include <cstdint>

#include <root_optim/kernels/product.hpp>
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

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
