// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What ranks tell each other before gradients travel: which they have, and by how much they are clipped.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <c10/core/Device.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <root_optim/checkpoint/detail/checksum.hpp>
#include <root_optim/core/finite.hpp>
#include <root_optim/distributed/detail/agreement.hpp>
#include <root_optim/distributed/detail/collectives.hpp>
#include <root_optim/distributed/reducer_options.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Parameters and options of a reducer must be equal on all ranks.
/// @param reducer its name, for messages
/// @param where(i) names a parameter
/// @param error what this rank has found already; empty if nothing
/// @throws c10::Error on every rank
template <class Where>
void agree_on_reducer(Collectives& ranks, const std::string& reducer,
                      const std::vector<at::Tensor>& parameters, const ReducerOptions& options,
                      const Where& where, std::string error = {}) {
  ranks.at(reducer);
  Checksum sum;
  attempt(error, [&] {
    TORCH_CHECK(options.bucket_bytes() >= 1, "root_optim::", reducer,
                ": expected bucket_bytes >= 1, got ", options.bucket_bytes());
    TORCH_CHECK(options.limit_ranks() == 0 ||
                    (is_finite(options.limit_ranks()) && options.limit_ranks() >= 1),
                "root_optim::", reducer, ": expected limit_ranks = 0, or finite and >= 1, got ",
                options.limit_ranks());
    TORCH_CHECK(!options.overlap() || options.limit_ranks() == 0, "root_optim::", reducer,
                ": expected limit_ranks = 0 with overlap, got ", options.limit_ranks(),
                ": a rank's weight needs all its gradients before the first is sent; do without "
                "one of the two");
    sum.add(static_cast<int64_t>(options.missing()));
    sum.add(options.limit_ranks());
    sum.add(options.bucket_bytes());
    sum.add(static_cast<int64_t>(options.overlap()));
    for (size_t i = 0; i < parameters.size(); ++i) {
      check_parameter(parameters[i], where(i));
      sum.add(parameters[i].sizes().vec());
      sum.add(static_cast<int64_t>(parameters[i].scalar_type()));
      sum.add(static_cast<int64_t>(parameters[i].requires_grad()));
    }
  });
  agree(ranks, error,
        {{"numbers of parameters", static_cast<int64_t>(parameters.size())},
         {"shapes, dtypes and requires_grad of parameters, and options,", sum.value()}});
}

/// has(i) of `count` things, 64 to a word.
template <class Has>
std::vector<int64_t> presence_words(size_t count, const Has& has) {
  std::vector<int64_t> words((count + 63) / 64);
  for (size_t i = 0; i < count; ++i) {
    if (has(i)) words[i / 64] |= static_cast<int64_t>(uint64_t{1} << i % 64);
  }
  return words;
}
/// has(i), of numbers among which those words begin at `first`.
inline bool is_present(const std::vector<int64_t>& numbers, size_t first, size_t i) {
  return (numbers[first + i / 64] >> i % 64 & 1) != 0;
}

/// What all ranks together know of a parameter's gradient.
struct GradientOfRanks {
  bool reduced;  ///< some rank has it
  bool other;    ///< some rank's has another dtype than the parameter
};

/// Checks gradients, and tells the others which there are.
/// @param error what this rank has found already; empty if nothing
/// @throws c10::Error on every rank, before any gradient has changed
/// @return of every parameter, the same on all ranks
template <class Where>
std::vector<GradientOfRanks> agree_on_gradients(Collectives& ranks, const std::string& reducer,
                                                const std::vector<at::Tensor>& parameters,
                                                MissingGradient missing, const Where& where,
                                                std::string error = {}) {
  const size_t count = parameters.size();
  attempt(error, [&] {
    for (size_t i = 0; i < count; ++i) {
      const at::Tensor& gradient = parameters[i].grad();
      if (gradient.defined()) check_gradient(parameters[i], gradient, where(i));
    }
  });
  const auto has = [&](size_t i) {  // a gradient; behind these, one of another dtype
    const at::Tensor &parameter = parameters[i % count], &gradient = parameter.grad();
    return gradient.defined() && (i < count || gradient.scalar_type() != parameter.scalar_type());
  };
  Agreement agreement = start_agreement(ranks, error, {}, presence_words(2 * count, has));
  const std::vector<std::vector<int64_t>> all = finish_agreement(ranks, agreement);
  std::vector<GradientOfRanks> gradients;
  for (size_t i = 0; i < count; ++i) {
    size_t with = all.size(), without = all.size();  // a rank that has it, and one that lacks it
    bool other = false;
    for (size_t r = 0; r < all.size(); ++r) {
      (is_present(all[r], 1, i) ? with : without) = r;
      other = other || is_present(all[r], 1, count + i);
    }
    gradients.push_back({with < all.size(), other});
    if (with < all.size() && without < all.size() && missing == MissingGradient::Error) {
      refuse_on_all(c10::str("root_optim::", reducer,
                             ": expected a gradient on all ranks or on none, got one on rank ",
                             with, ", but not on rank ", without, ", of ", where(i)));
    }
  }
  return gradients;
}

/// @throws c10::Error for a norm that nothing can be scaled to.
inline void check_max_norm(const std::string& reducer, double max_norm) {
  TORCH_CHECK(is_finite(max_norm) && max_norm > 0, "root_optim::", reducer,
              ": expected a finite max_norm > 0, got ", max_norm);
}

/// What ranks compare before they clip.
inline std::vector<Agreed> clipping(double max_norm, size_t gradients) {
  int64_t bits = 0;
  std::memcpy(&bits, &max_norm, sizeof(bits));
  return {{"max_norm", bits}, {"numbers of gradients", static_cast<int64_t>(gradients)}};
}

/// The norm of all these together, one float64 number on `device`; of one tensor at least.
inline at::Tensor norm_together(const std::vector<at::Tensor>& tensors, const at::Device& device) {
  std::vector<at::Tensor> norms;
  for (const at::Tensor& tensor : tensors) {
    norms.push_back(at::linalg_vector_norm(tensor, 2, {}, false, at::kDouble).to(device));
  }
  return at::linalg_vector_norm(at::stack(norms));
}

/// min(1, max_norm/(‖g‖ + 1e-6))
inline at::Tensor clip_factor(const at::Tensor& norm, double max_norm) {
  return norm.add(1e-6).reciprocal().mul(max_norm).clamp_max(1.0);
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
