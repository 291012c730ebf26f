// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The stages of a matrix in their order, which stands here and nowhere else: filter, momentum,
// orthogonalizer, balance, scale. The step runs them, and whoever looks on (diagnostics/next_matrices.hpp).
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <root_optim/core/policy.hpp>
#include <root_optim/filters/no_filter.hpp>
#include <root_optim/kernels/max_abs.hpp>
#include <root_optim/kernels/workspace.hpp>
#include <root_optim/optimizer/detail/fault_guard.hpp>
#include <root_optim/optimizer/detail/filtering.hpp>
#include <root_optim/optimizer/options.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>  // is_supported
#include <root_optim/parameters/layout.hpp>
#include <root_optim/stages/lr_scale.hpp>
#include <root_optim/stages/momentum.hpp>
#include <root_optim/stages/norm_gate.hpp>
#include <root_optim/stages/update_balance.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// What a step adds to the matrices of one block view (layout.hpp), but for the learning rate.
struct Direction {
  at::Tensor matrices;  ///< X, [count, rows, cols]
  double scale;         ///< s(rows, cols)
};

/// Numbers of the coming step that only the device knows.
struct DeviceNumbers {
  at::Tensor
      taken;  ///< t of each parameter, the coming step included, [k]; with `momentum_warmup` alone
  at::Tensor weight;  ///< of the step, see norm_gate.hpp; undefined: 1
};

/// The next value of a slot of the state, [k, …].
struct NextSlot {
  const char* name;  ///< as in ParamState::slot_list()
  at::Tensor value;
};

struct MatrixUpdate {
  std::vector<NextSlot> state;
  std::vector<Direction> directions;  ///< one a block view
};

/// Moments of k parameters, [k, all rows] and [k, all columns], handed out and taken back a block view at a
/// time.
class BlockMoments {
 public:
  explicit BlockMoments(UpdateMoments all) : all_(std::move(all)) {}

  /// Those of the next block view, whose matrices are [count, rows, cols], as [count, rows] and
  /// [count, cols].
  UpdateMoments of(c10::IntArrayRef matrices) {
    const int64_t k = all_.rows.size(0), count = matrices[0] / k;
    const auto part = [&](const at::Tensor& all, int64_t& first, int64_t length) {
      const at::Tensor values = all.narrow(1, first, count * length);
      first += count * length;
      return values.reshape({k * count, length});
    };
    return {part(all_.rows, row_, matrices[1]), part(all_.cols, col_, matrices[2])};
  }
  void keep(const UpdateMoments& next) {
    const int64_t k = all_.rows.size(0);
    rows_.push_back(next.rows.reshape({k, -1}));
    cols_.push_back(next.cols.reshape({k, -1}));
  }
  UpdateMoments kept() const { return {joined(rows_), joined(cols_)}; }

 private:
  static at::Tensor joined(const std::vector<at::Tensor>& parts) {
    return parts.size() == 1 ? parts.front() : at::cat(parts, 1);
  }

  UpdateMoments all_;
  int64_t row_ = 0, col_ = 0;
  std::vector<at::Tensor> rows_, cols_;
};

/// Runs the stages on k gradients of one shape. Writes neither the gradient nor the state.
///
/// @param gradient [k, *shape], in the dtype of the state; its memory may go.
/// @param old called with the name of a slot, gives the k parameters' values of it, [k, …].
/// @param guard requires what must be finite: the gradient before a filter clips Inf, and U.
template <class Options, class Filter, class Orthogonalizer, class Old>
MatrixUpdate matrix_update(const Options& options, const Filter& filter,
                           const Orthogonalizer& orthogonalizer, at::Tensor gradient,
                           const Old& old, const DeviceNumbers& numbers, FaultGuard& guard,
                           Workspace* workspace) {
  constexpr bool filters = !std::is_same_v<Filter, NoFilter>;
  const bool of_gradient = filters && options.filter_place() != FilterPlace::Momentum;
  const MatrixLayout& layout = options.layout();

  if (guard.cleans()) {
    guard.note(max_abs(gradient));
    gradient = guard.cleaned(gradient);
  }
  if (of_gradient) {
    if (guard.is_active()) guard.must_be_finite(max_abs(gradient));
    gradient = filtered(gradient, filter, layout, workspace);
  }
  gradient = weighed(gradient, numbers.weight, workspace);
  const auto accumulate = [&](const auto& mu) {
    return accumulate_momentum(old("momentum_buffer"), gradient, mu, options.momentum_form(),
                               options.nesterov(), workspace);
  };
  Momentum momentum =
      options.momentum_warmup() > 0
          ? accumulate(momentum_after(numbers.taken, options.momentum_start(), options.momentum(),
                                      options.momentum_warmup()))
          : accumulate(options.momentum());
  gradient.reset();
  if (guard.is_active()) guard.must_be_finite(max_abs(momentum.update));

  // Each tensor is released where the next one takes its place: beside M at most three matrices.
  const at::ScalarType dtype = momentum.buffer.scalar_type();
  MatrixUpdate result{{{"momentum_buffer", std::move(momentum.buffer)}}, {}};
  std::optional<BlockMoments> moments;
  if (options.update_beta() > 0) {
    moments.emplace(UpdateMoments{old("row_moment"), old("column_moment")});
  }
  std::vector<at::Tensor> views = block_views(momentum.update, layout);
  momentum.update.reset();
  for (at::Tensor& view : views) {
    at::Tensor matrices = block_matrices(view, layout);
    view.reset();
    const auto shape = matrices.sizes().vec();
    // U is ours to write over, unless it is the momentum itself, or a user's policy may have kept it.
    at::Tensor failed;
    std::array<int64_t, 2> whole{shape[1], shape[2]};
    Scratch scratch{workspace, /*overwrite=*/options.nesterov(), &failed, &whole};
    if constexpr (is_collective<Orthogonalizer>::value) {
      if (guard.is_active()) failed = guard.stopped(shape[0]);
    }
    if (filters && !of_gradient) {
      matrices = applied(filter, std::move(matrices), scratch);
      scratch.overwrite = takes_scratch<Filter>;
    }
    const auto* const input = matrices.storage().unsafeGetStorageImpl();
    matrices = applied(orthogonalizer, std::move(matrices), scratch);
    TORCH_CHECK(matrices.defined() && matrices.sizes() == c10::IntArrayRef(shape) &&
                    is_supported(matrices.scalar_type()),
                "root_optim::step: expected policies '", Filter::name, "' and '",
                Orthogonalizer::name, "' to keep the shape ", c10::IntArrayRef(shape),
                " and a real dtype, got ",
                matrices.defined()
                    ? c10::str(matrices.sizes(), " of ", c10::toString(matrices.scalar_type()))
                    : std::string("no tensor"));
    if (failed.defined()) guard.give_up(failed);
    if (moments) {
      // A policy may give its input back, which is not always ours.
      scratch.overwrite = takes_scratch<Orthogonalizer> &&
                          matrices.is_non_overlapping_and_dense() &&
                          (scratch.overwrite || matrices.storage().unsafeGetStorageImpl() != input);
      BalancedUpdate balanced = balance_update(as_dtype(matrices, dtype), moments->of(shape),
                                               options.update_beta(), scratch);
      moments->keep(balanced.moments);
      matrices = std::move(balanced.matrices);
    }
    const double scale = lr_scale(options.scale(), whole[0], whole[1]);
    result.directions.push_back({std::move(matrices), scale});
  }
  if (moments) {
    UpdateMoments next = moments->kept();
    result.state.push_back({"row_moment", std::move(next.rows)});
    result.state.push_back({"column_moment", std::move(next.cols)});
  }
  return result;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
