// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// AdaNewton for matrices that are spread over ranks and stay so: sums of XXᵀ travel in the place of matrices.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>  // TORCH_CHECK
#include <c10/util/intrusive_ptr.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/checkpoint/detail/checksum.hpp>
#include <root_optim/coefficients/rational.hpp>
#include <root_optim/core/fields.hpp>
#include <root_optim/core/policy.hpp>
#include <root_optim/core/scratch.hpp>
#include <root_optim/core/tensor_checks.hpp>
#include <root_optim/distributed/detail/agreement.hpp>
#include <root_optim/distributed/detail/collectives.hpp>
#include <root_optim/filters/soft_threshold.hpp>
#include <root_optim/optimizer/optimizer.hpp>
#include <root_optim/optimizer/options.hpp>
#include <root_optim/orthogonalizers/ada_newton.hpp>
#include <root_optim/orthogonalizers/rational.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// Policy: the rational iteration of AdaNewton on matrices of which each rank has some columns (or rows), which stay
/// where they are. The other way, which keeps the bits of one process and whole checkpoints, is
/// `DistributedOptions::sharded`; docs/distributed.md compares them.
///
/// Math:    as orthogonalize_rational, with max |x| and R = XXᵀ = Σ_r X_r X_rᵀ over the columns X_r of all ranks r, and
///          X_r ← P X_r on each. Of rows, XᵀX and X_r ← X_r P. Stages and scale are those of the whole shape.
/// Shapes:  [k, m, n_r] -> the same, with equal k and m on all ranks. The whole has at least as many columns as rows,
///          m <= Σ n_r (of rows: at least as many rows as columns). No shard is empty.
/// Dtype:   float32 and float64, computed as AdaNewton does. On CUDA with Iteration::Rational alone.
/// Error:   to the exact factor that of one process with the whole, within 5e-4 (measured: 2e-4). Bits
///          depend on the number of ranks, since R is summed in another order.
/// Cost:    m³ on every rank; 4m²n_r FLOP a stage. A rank sends 2(N − 1)/N · k · m² numbers a stage, about 50 numbers
///          for agreement, k maxima and k flags. The default has one stage.
/// Memory:  as AdaNewton's for [k, m, n_r].
/// Sync:    the host waits for the other ranks, so that no CUDA graph may contain it.
/// Failure: what one rank cannot use (a gradient that is not finite) no rank steps; all count it as skipped.
/// Without a group it is AdaNewton.
///
/// What else looks at a matrix sees this rank's columns alone: Rule::Auto, the filter, the balance of updates, the gate.
/// An optimizer with it steps on its own: it is not for `distribute`, and each rank saves and loads its own checkpoint.
/// A checkpoint keeps the settings and the number of ranks; the group is the program's, which sets one before it loads.
///
/// Collective: ranks step the same matrices in the same order, each with a gradient on all ranks or on none. A rank
/// that throws for a reason of its own before (NonFinite::Raise) lets the others wait until the timeout.
class ShardedAdaNewton {
 public:
  static constexpr const char* name = "sharded_ada_newton";  ///< stable: checkpoints record it
  static constexpr bool collective = true;                   ///< see core/policy.hpp
  static constexpr bool capturable = false;                  ///< see core/policy.hpp

  /// The ranks that have the other columns. Copies share it. Default: none, every matrix is whole.
  /// @param timeout how long to wait for the others; 0: as long as the group has it
  /// @throws c10::Error for a null pointer, for a group without a backend for the CPU, and for a negative timeout.
  ShardedAdaNewton& group(c10::intrusive_ptr<c10d::ProcessGroup> group,
                          std::chrono::milliseconds timeout = std::chrono::milliseconds(0)) {
    TORCH_CHECK(timeout.count() >= 0, "root_optim::ShardedAdaNewton: expected a timeout >= 0, got ",
                timeout.count(), " ms");
    ranks_ = std::make_shared<Ranks>(std::move(group), timeout);
    count_ = ranks_->all.size();
    return *this;
  }
  /// What each rank has of a matrix: columns, 1, or rows, 0. Default: 1.
  ShardedAdaNewton& dim(int64_t dim) {
    dim_ = dim;
    return *this;
  }
  /// Coefficients, dtype and budget; its iteration must be Rational, or Auto where that chooses it. Equal on all ranks.
  /// Default: AdaNewton's.
  ShardedAdaNewton& ada_newton(AdaNewton ada_newton) {
    ada_newton_ = std::move(ada_newton);
    return *this;
  }

  /// Number of ranks; 0 without a group.
  int64_t ranks() const { return count_; }
  int64_t dim() const { return dim_; }
  const AdaNewton& ada_newton() const { return ada_newton_; }

  /// @throws c10::Error if a setting is out of range.
  void validate() const {
    TORCH_CHECK(dim_ == 0 || dim_ == 1,
                "root_optim::ShardedAdaNewton: expected dim 0 (rows) or 1 (columns), got ", dim_);
    ada_newton_.validate();
  }
  void serialize(Fields& out) const {
    out.set("ranks", count_);
    out.set("dim", dim_);
    Fields nested;
    ada_newton_.serialize(nested);
    out.insert("ada_newton", nested);
  }
  void deserialize(const Fields& in) {
    ShardedAdaNewton read;
    read.count_ = in.get<int64_t>("ranks");
    read.dim_ = in.get<int64_t>("dim");
    read.ada_newton_.deserialize(in.nested("ada_newton"));
    *this = std::move(read);
  }
  /// Takes over the group.
  /// @throws c10::Error for another number of ranks than this has.
  void keep(const ShardedAdaNewton& own) {
    TORCH_CHECK(own.count_ == count_, "root_optim::load: expected a ShardedAdaNewton of ", count_,
                " ranks, as in the checkpoint, got one of ", own.count_,
                count_ > 0 ? ": set its group before loading" : "");
    ranks_ = own.ranks_;
  }
  /// @throws c10::Error for what AdaNewton would do without inverses, and where a group is wanting.
  void validate_for(int64_t rows, int64_t cols, const at::Tensor& parameter) const {
    validate();
    ada_newton_.validate_for(rows, cols, parameter);
    if (count_ == 0) return;
    TORCH_CHECK(ranks_, "root_optim::ShardedAdaNewton: expected a group of ", count_,
                " ranks, got none since the checkpoint was loaded: set it");
    TORCH_CHECK(
        ada_newton_.iteration_for(rows, cols, parameter) == Iteration::Rational,
        "root_optim::ShardedAdaNewton: expected Iteration::Rational, got NewtonSchulz, which "
        "AdaNewton's settings choose for ",
        rows, "x", cols, " on ", parameter.device(),
        ": set ada_newton(AdaNewton().iteration(Iteration::Rational))");
  }

  /// This rank's columns of the factors. Collective.
  at::Tensor operator()(const at::Tensor& x) const { return (*this)(x, Scratch()); }
  /// The same with what a step offers: see Scratch.
  at::Tensor operator()(const at::Tensor& x, Scratch scratch) const;

 private:
  struct Ranks {
    Ranks(detail::GroupPtr group, std::chrono::milliseconds timeout)
        : all(std::move(group), timeout) {}
    detail::Collectives all;
    int64_t calls = 0;
  };

  std::shared_ptr<Ranks> ranks_;
  int64_t count_ = 0;
  int64_t dim_ = 1;
  AdaNewton ada_newton_;
};

/// Root's.
template <>
struct OptimizerDefaults<SoftThreshold, ShardedAdaNewton>
    : OptimizerDefaults<SoftThreshold, AdaNewton> {};

/// `Root` for matrices of which each rank has some columns, or in other groups some rows.
///
/// Example:
///   root_optim::ShardedRoot optimizer(model->parameters(), root_optim::ShardedRootOptions(2e-3)
///       .orthogonalizer(root_optim::ShardedAdaNewton().group(process_group)));
using ShardedRoot = OrthogonalizedOptimizer<SoftThreshold, ShardedAdaNewton>;
using ShardedRootOptions = ShardedRoot::Options;  ///< of a group of `ShardedRoot`

inline at::Tensor ShardedAdaNewton::operator()(const at::Tensor& x, Scratch scratch) const {
  if (count_ == 0) return ada_newton_(x, scratch);
  constexpr const char* who = "ShardedAdaNewton";
  TORCH_CHECK(ranks_ != nullptr && x.defined() && x.dim() == 3, "root_optim::", who,
              ": expected a group and a batch [k, m, n], got ",
              ranks_ ? c10::str(x.sizes()) : std::string("no group"));
  detail::Collectives& ranks = ranks_->all;
  TORCH_CHECK(ranks.lost().empty(), "root_optim::", who,
              ": expected ranks in step, got a failure in ", ranks.lost(),
              "; load a checkpoint in new processes");
  ranks.at(c10::str(who, ", call ", ++ranks_->calls));

  std::string error;
  int64_t settings = 0, size = 0;
  at::Tensor part = x;
  detail::attempt(error, [&] {
    detail::check_matrices(x, who);
    detail::check_no_autograd(x, who);
    validate_for(x.size(1), x.size(2), x);
    TORCH_CHECK(x.numel() > 0, "root_optim::", who, ": expected shards that are not empty, got ",
                x.sizes());
    if (dim_ == 0) part = x.transpose(1, 2);
    size = part.size(2);
    detail::Checksum sum;
    sum.add(detail::policy_fields(*this));
    settings = sum.value();
  });
  detail::Agreement agreement = detail::start_agreement(
      ranks, error,
      {{"numbers of calls of ShardedAdaNewton", ranks_->calls},
       {"settings of ShardedAdaNewton", settings},
       {"numbers of matrices in a batch", error.empty() ? x.size(0) : 0},
       {"sizes of shards in the dimension that is not cut", error.empty() ? part.size(1) : 0},
       {"dtypes", static_cast<int64_t>(x.scalar_type())}},
      {size});
  const std::vector<std::vector<int64_t>> all = detail::finish_agreement(ranks, agreement);
  int64_t whole = 0;
  for (const std::vector<int64_t>& one : all) whole += one.back();
  const int64_t k = x.size(0), m = part.size(1);
  const std::array<int64_t, 2> shape{dim_ == 0 ? whole : m, dim_ == 0 ? m : whole};
  RationalStages stages;
  detail::attempt(error, [&] {
    TORCH_CHECK(whole >= m, "root_optim::", who, ": expected ", dim_ == 0 ? "rows" : "columns",
                " that are together at least ", m, ", got ", whole,
                ": spread the longer side, or name them in DistributedOptions::sharded");
    ada_newton_.validate_for(shape[0], shape[1], x);
    TORCH_CHECK(ada_newton_.iteration_for(shape[0], shape[1], x) == Iteration::Rational,
                "root_optim::", who, ": expected stages for ", shape[0], "x", shape[1],
                " in the table, got triples");
    stages = ada_newton_.stages(shape[0], shape[1]);
  });
  if (!error.empty()) detail::refuse_on_all(error);  // the same on all ranks

  const auto join = [&](const at::Tensor& numbers, c10d::ReduceOp::RedOpType operation) {
    detail::Started started = ranks.all_reduce(numbers, operation);
    ranks.wait(started);
  };
  const at::Tensor stopped = scratch.failed != nullptr ? *scratch.failed : at::Tensor();
  detail::OtherColumns others;
  others.join_max = [&](const at::Tensor& largest) {
    // What one rank does not step, no rank steps.
    if (stopped.defined()) {
      largest.masked_fill_(stopped.view({-1, 1, 1}), std::numeric_limits<double>::infinity());
    }
    join(largest, c10d::ReduceOp::MAX);
  };
  others.add_gram = [&](const at::Tensor& gram) { join(gram, c10d::ReduceOp::SUM); };
  at::Tensor failed = at::zeros({k}, x.options().dtype(at::kBool));
  const at::ScalarType dtype =
      ada_newton_.precision_for(x) == Precision::Float64 ? at::kDouble : at::kFloat;
  at::Tensor factor =
      detail::orthogonalize_wide(part, stages, dtype, false, failed, scratch, others);
  const at::Tensor flags = failed.to(at::kByte);
  join(flags, c10d::ReduceOp::MAX);
  if (scratch.failed != nullptr) *scratch.failed = flags.to(at::kBool);
  if (scratch.whole != nullptr) *scratch.whole = shape;
  if (dim_ == 0) factor = factor.transpose(1, 2);
  return factor.to(x.scalar_type());
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
