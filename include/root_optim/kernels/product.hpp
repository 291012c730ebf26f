// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Products of matrices by the fastest library at hand, which on CPUs is not always the one LibTorch takes.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <torch/version.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>

#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 6)
#define ROOT_OPTIM_HAS_ONEDNN_LINEAR 1
#include <ATen/Version.h>  // get_cpu_capability
#include <ATen/core/dispatch/Dispatcher.h>
#else
#define ROOT_OPTIM_HAS_ONEDNN_LINEAR 0
#endif

#include <root_optim/kernels/workspace.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Whether LibTorch's own float32 products take AVX-512 where the CPU has it: MKL does on Intel's CPUs only.
inline bool is_intel() {
#if defined(__GNUC__) && defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_is("intel") != 0;
#else
  return false;
#endif
}

/// oneDNN's a wᵀ for float32 matrices, where LibTorch has it and the CPU has AVX-512 that MKL leaves alone.
///
/// One core of a Zen 5 reaches 109 GFLOP/s by MKL, 240 by oneDNN. On an Intel Xeon MKL reaches 320 on two cores, and
/// oneDNN, whose results are new tensors, 160 to 280. Same precision: oneDNN goes down to bfloat16 only where the user's
/// float32_matmul_precision allows it. Found by name, since C++ has no function for it; not before LibTorch 2.6.
#if ROOT_OPTIM_HAS_ONEDNN_LINEAR
class OneDnnLinear {
 public:
  static const OneDnnLinear& get() {
    static const OneDnnLinear instance;
    return instance;
  }
  bool exists() const { return handle_.has_value(); }
  at::Tensor operator()(const at::Tensor& a, const at::Tensor& w) const {
    torch::jit::Stack stack{
        without_gaps(a).contiguous(),           without_gaps(w), c10::IValue(), std::string("none"),
        c10::List<std::optional<at::Scalar>>(), c10::IValue()};
    handle_->callBoxed(&stack);
    return stack.front().toTensor();
  }

 private:
  OneDnnLinear() {
    if (at::get_cpu_capability() != "AVX512" || is_intel()) return;
    handle_ = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
    // Another schema would be another function.
    if (handle_ &&
        c10::toString(handle_->schema()) !=
            "mkldnn::_linear_pointwise(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, "
            "str? algorithm) -> Tensor Y") {
      handle_.reset();
    }
  }
  /// A copy in the same order of a view with gaps, which oneDNN multiplies some 500 times more slowly, and which
  /// LibTorch transposes slowly.
  static at::Tensor without_gaps(const at::Tensor& x) {
    if (x.is_non_overlapping_and_dense()) return x;
    return x.stride(0) == 1 ? x.t().contiguous().t() : x.contiguous();
  }

  std::optional<c10::OperatorHandle> handle_;
};
#else
struct OneDnnLinear {
  static OneDnnLinear get() { return {}; }
  bool exists() const { return false; }
  at::Tensor operator()(const at::Tensor&, const at::Tensor&) const { return {}; }
};
#endif

/// Rows first … first + rows of matrix i, as one operator.
inline at::Tensor rows_of(const at::Tensor& a, int64_t i, int64_t first, int64_t rows) {
  return a.as_strided({rows, a.size(2)}, a.strides().slice(1),
                      a.storage_offset() + i * a.stride(0) + first * a.stride(1));
}

/// Matrix i.
inline at::Tensor matrix_of(const at::Tensor& a, int64_t i) { return rows_of(a, i, 0, a.size(1)); }

/// Whether oneDNN multiplies m × p by p × n faster: from about 256³ on its start no longer counts.
inline bool takes_onednn(const at::Tensor& a, const at::Tensor& b) {
  const int64_t m = a.size(1), p = a.size(2), n = b.size(2);
  return a.is_cpu() && a.scalar_type() == at::kFloat && (std::min)((std::min)(m, n), p) >= 128 &&
         m * n * p >= int64_t{1} << 23 && OneDnnLinear::get().exists();
}

/// out ← β out + α a b for batches [k, ·, ·], out of any strides.
///
/// LibTorch multiplies a batch in one call only into a contiguous result, and else matrix by matrix, which costs
/// more than small products themselves: those go through a buffer. β is 0 or 1 there and with oneDNN.
inline void product(at::Tensor out, const at::Tensor& a, const at::Tensor& b, double beta = 0,
                    double alpha = 1, Workspace* workspace = nullptr) {
  if (takes_onednn(a, b)) {
    if (out.stride(1) == 1 && out.stride(2) != 1) {  // by its rows, which are the columns
      return product(out.transpose(1, 2), b.transpose(1, 2), a.transpose(1, 2), beta, alpha,
                     workspace);
    }
    // oneDNN's results are new tensors: of a few MB at a time.
    const int64_t rows = (std::max)((int64_t{1} << 20) / out.size(2), int64_t{128});
    for (int64_t i = 0; i < out.size(0); ++i) {
      const at::Tensor w = matrix_of(b, i).t();
      for (int64_t first = 0; first < out.size(1); first += rows) {
        const int64_t count = (std::min)(rows, out.size(1) - first);
        const at::Tensor part = rows_of(out, i, first, count);
        const at::Tensor y = OneDnnLinear::get()(rows_of(a, i, first, count), w);
        if (beta == 0) {
          part.copy_(y);
          if (alpha != 1) part.mul_(alpha);
        } else {
          part.add_(y, alpha);  // β = 1
        }
      }
    }
  } else if (out.size(0) == 1) {
    at::Tensor one = matrix_of(out, 0);
    at::addmm_out(one, one, matrix_of(a, 0), matrix_of(b, 0), beta, alpha);
  } else if (out.is_contiguous() || out.size(1) * out.size(2) > 192 * 192) {
    at::baddbmm_out(out, out, a, b, beta, alpha);
  } else {
    at::Tensor buffer = temporary(workspace, out.sizes(), out.options());
    at::bmm_out(buffer, a, b);
    if (beta == 0) {
      out.copy_(alpha == 1 ? buffer : buffer.mul_(alpha));
    } else {
      out.add_(buffer, alpha);  // β = 1
    }
  }
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
