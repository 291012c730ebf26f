// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The norm of all gradients of an optimizer of which ranks have shards, and gradients scaled by it.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>  // NoGradGuard
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <root_optim/distributed/detail/agreement.hpp>
#include <root_optim/distributed/detail/collectives.hpp>
#include <root_optim/distributed/detail/gradient_agreement.hpp>
#include <root_optim/distributed/detail/shared_optimizer.hpp>
#include <root_optim/optimizer/detail/group_options.hpp>
#include <root_optim/optimizer/detail/ranks.hpp>
#include <root_optim/optimizer/optimizer.hpp>
#include <root_optim/optimizer/options.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// Scales all gradients of a distributed optimizer so that their norm is at most `max_norm`:
/// g ← g · min(1, max_norm/(‖g‖ + 1e-6)). For optimizers with sharded parameters, in the place of the reducers'
/// `clip_norm`, which knows none. Of a sharded parameter every rank's shard counts, of others rank 0's gradient, to
/// which those of the other ranks must be equal.
///
/// The norm is in float64; the ranks' parts are summed in their order, so that all ranks scale by the same bits. They
/// are those of one process but for the order of the sum. Collective: one number a rank.
/// Called between `backward()`, or `GradientReducer::reduce`, and `step()`. No host synchronization with the device.
/// @param max_norm finite, > 0, equal on all ranks
/// @return the norm before, one float64 number on the device of the first parameter; 0 without gradients
/// @throws c10::Error on every rank for gradients that do not match their parameters, or another `max_norm`; for an
/// optimizer that is not distributed.
template <class F, class O>
at::Tensor clip_norm(OrthogonalizedOptimizer<F, O>& optimizer, double max_norm) {
  const at::NoGradGuard no_grad;
  using Options = OrthogonalizedOptions<F, O>;
  auto* shared = detail::shared_of(optimizer);
  TORCH_CHECK(shared != nullptr,
              "root_optim::clip_norm: expected an optimizer after `distribute`, got one of one "
              "process, whose gradients torch::nn::utils::clip_grad_norm_ scales");
  at::Tensor norm;
  shared->together("clip_norm", [&](detail::Collectives& ranks) {
    std::vector<at::Tensor> gradients, counted;
    at::Tensor own = at::zeros({1}, at::kDouble);
    std::string error;
    detail::attempt(error, [&] {
      detail::check_max_norm("clip_norm", max_norm);
      const detail::Groups& groups = optimizer.param_groups();
      bool is_first = true;
      for (size_t g = 0; g < groups.size(); ++g) {
        const auto& options = detail::group_options<Options>(groups, g);
        for (size_t i = 0; i < groups[g].params().size(); ++i) {
          const at::Tensor& parameter = groups[g].params()[i];
          if (is_first) own = at::zeros({1}, parameter.options().dtype(at::kDouble));
          is_first = false;
          const at::Tensor& gradient = parameter.grad();
          if (!gradient.defined()) continue;
          detail::check_gradient(parameter, gradient,
                                 detail::describe(parameter, g, i, options.names()));
          gradients.push_back(gradient);
          const bool counts = ranks.rank() == 0 || shared->shards().has(g, i);
          if (counts && gradient.numel() > 0) counted.push_back(gradient);
        }
      }
      if (!counted.empty()) own = detail::norm_together(counted, own.device()).reshape({1});
    });
    detail::agree(ranks, error, {detail::clipping(max_norm, 0).front()});
    norm = at::linalg_vector_norm(at::stack(ranks.gathered(own)));
    const at::Tensor factor = detail::clip_factor(norm, max_norm);
    for (const at::Tensor& gradient : gradients) gradient.mul_(factor.to(gradient.device()));
  });
  return norm;
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
