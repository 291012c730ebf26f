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
#include <root_optim/kernels/symmetric_product.hpp>  // mirror_upper
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
/// Error:   to the exact factor that of one process with the whole, within 5e-4 (measured: at most 1.6e-4). Bits
///          depend on the number of ranks, since R is summed in another order.
/// Cost:    4m²n_r FLOP a stage, and its inverses, about m³ a pole, on every rank. A rank sends 2(N − 1)/N · k · m²
///          numbers a stage, k maxima, k flags, and two small all_gathers. The default has one stage.
/// Memory:  as AdaNewton's, with Gram matrices of m × m, whatever n_r is.
/// Sync:    the host waits for the other ranks, so that no CUDA graph may contain it.
/// Failure: a matrix that the step cannot take on one rank no rank steps; all count it as skipped. What one rank throws
///          before anything has changed all ranks throw.
/// Without a group it is AdaNewton.
///
/// What else looks at a matrix sees this rank's columns alone: Rule::Auto, the filter, the balance of updates, the gate.
/// A norm to clip by is that of all ranks: sum the squares of theirs. GradientReducer is for parameters that every rank
/// has whole. An optimizer with this policy steps on its own: it is not for `distribute`, and each rank saves and loads
/// its own checkpoint, which knows the rank; the group is the program's, which sets one before it loads.
///
/// Collective: `step` on all ranks. They step the same matrices in the same batches, which is compared before anything
/// changes; uneven shards may need batch_bytes(0), one matrix a batch.
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
    rank_ = ranks_->all.rank();
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
    settings(out);
    out.set("rank", rank_);
  }
  void deserialize(const Fields& in) {
    ShardedAdaNewton read;
    read.count_ = in.get<int64_t>("ranks");
    read.rank_ = in.get<int64_t>("rank");
    read.dim_ = in.get<int64_t>("dim");
    read.ada_newton_.deserialize(in.nested("ada_newton"));
    *this = std::move(read);
  }
  /// Takes over the group.
  /// @throws c10::Error for another rank, or another number of ranks, than this has.
  void keep(const ShardedAdaNewton& own) {
    TORCH_CHECK(own.count_ == count_ && own.rank_ == rank_,
                "root_optim::load: expected a ShardedAdaNewton ", describe(),
                ", as in the checkpoint, got one ", own.describe(),
                own.count_ == 0 ? ": set its group before loading" : "");
    ranks_ = own.ranks_;
  }
  /// @throws c10::Error where a group is wanting; without one as AdaNewton. Whole shapes are judged in the call.
  void validate_for(int64_t rows, int64_t cols, const at::Tensor& parameter) const {
    validate();
    if (count_ == 0) ada_newton_.validate_for(rows, cols, parameter);
    TORCH_CHECK(count_ == 0 || ranks_, "root_optim::ShardedAdaNewton: expected a group ",
                describe(), ", got none since the options were read: set it");
  }

  /// What a step asks before anything changes: ranks go on with equal batches, or none does. Collective.
  /// @param batches a checksum of them
  /// @param error what this rank has met; empty if nothing
  /// @throws c10::Error on every rank if they differ or any has met something.
  void begin_step(int64_t batches, const std::string& error) const;
  /// Whether ranks have rows of a matrix: its Gram matrix is then of columns.
  bool has_rows() const { return count_ > 0 && dim_ == 0; }

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

  /// What is equal on all ranks.
  void settings(Fields& out) const {
    out.set("ranks", count_);
    out.set("dim", dim_);
    Fields nested;
    ada_newton_.serialize(nested);
    out.insert("ada_newton", nested);
  }
  std::string describe() const {
    return count_ == 0 ? "without a group" : c10::str("as rank ", rank_, " of ", count_);
  }
  /// f(ranks), as `detail::in_step`, by the name `what`.
  template <class F>
  void in_step(const char* what, const F& f) const;

  std::shared_ptr<Ranks> ranks_;
  int64_t count_ = 0, rank_ = 0;
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

template <class F>
void ShardedAdaNewton::in_step(const char* what, const F& f) const {
  TORCH_CHECK(ranks_, "root_optim::ShardedAdaNewton: expected a group ", describe(), ", got none");
  detail::Collectives& ranks = ranks_->all;
  detail::in_step(ranks, "ShardedAdaNewton", "", [&] {
    ranks.at(c10::str("ShardedAdaNewton, ", what, ' ', ++ranks_->calls));
    f(ranks);
  });
}

inline void ShardedAdaNewton::begin_step(int64_t batches, const std::string& error) const {
  if (count_ == 0) return;
  in_step("start of a step, call", [&](detail::Collectives& ranks) {
    detail::agree(ranks, error,
                  {{"numbers of calls of ShardedAdaNewton", ranks_->calls},
                   {"batches (which matrices have a gradient, their rules, and, but for "
                    "batch_bytes(0), sizes of shards)",
                    batches}});
  });
}

inline at::Tensor ShardedAdaNewton::operator()(const at::Tensor& x, Scratch scratch) const {
  if (count_ == 0) return ada_newton_(x, scratch);
  at::Tensor factor;
  in_step("call", [&](detail::Collectives& ranks) {
    constexpr const char* who = "ShardedAdaNewton";
    std::string error;
    int64_t own_settings = 0, k = 0, m = 0, own = 0, precision = 0;
    at::Tensor part;
    detail::attempt(error, [&] {
      detail::check_matrices(x, who);
      detail::check_no_autograd(x, who);
      TORCH_CHECK(x.dim() == 3 && x.numel() > 0, "root_optim::", who,
                  ": expected a batch [k, m, n] that is not empty, got ", x.sizes());
      part = dim_ == 0 ? x.transpose(1, 2) : x;
      k = part.size(0);
      m = part.size(1);
      own = part.size(2);
      precision = static_cast<int64_t>(ada_newton_.precision_for(x));
      Fields fields;
      settings(fields);
      detail::Checksum sum;
      sum.add(fields);
      own_settings = sum.value();
    });
    detail::Agreement agreement = detail::start_agreement(
        ranks, error,
        {{"numbers of calls of ShardedAdaNewton", ranks_->calls},
         {"settings of ShardedAdaNewton", own_settings},
         {"numbers of matrices in a batch", k},
         {"sizes of shards in the dimension that is not cut", m},
         {"dtypes", x.defined() ? static_cast<int64_t>(x.scalar_type()) : 0},
         {"precisions of products", precision},
         {"devices", x.defined() ? static_cast<int64_t>(x.device().type()) : 0}},
        {own});
    int64_t whole = 0;
    for (const std::vector<int64_t>& one : detail::finish_agreement(ranks, agreement)) {
      whole += one.back();
    }

    // From here on all ranks judge the same.
    const std::array<int64_t, 2> shape{dim_ == 0 ? whole : m, dim_ == 0 ? m : whole};
    RationalStages stages;
    detail::attempt(error, [&] {
      TORCH_CHECK(whole >= m, "root_optim::", who, ": expected ", dim_ == 0 ? "rows" : "columns",
                  " that are together at least ", m, ", got ", whole,
                  ": spread the longer side, or name them in DistributedOptions::sharded");
      ada_newton_.validate_for(shape[0], shape[1], x);
      TORCH_CHECK(ada_newton_.iteration_for(shape[0], shape[1], x) == Iteration::Rational,
                  "root_optim::", who,
                  ": expected Iteration::Rational, got NewtonSchulz, which "
                  "AdaNewton's settings choose for ",
                  shape[0], "x", shape[1], " on ", x.device(),
                  ": set ada_newton(AdaNewton().iteration(Iteration::Rational))");
      stages = ada_newton_.stages(shape[0], shape[1]);
    });
    if (!error.empty()) detail::refuse_on_all(error);

    const auto join = [&](const at::Tensor& numbers, c10d::ReduceOp::RedOpType operation) {
      detail::Started started = ranks.all_reduce(numbers, operation);
      ranks.wait(started);
    };
    const at::Tensor failed =
        scratch.failed != nullptr && scratch.failed->defined()
            ? scratch.failed->clone()  // what one rank does not step, no rank steps
            : at::zeros({k}, x.options().dtype(at::kBool));
    if (part.element_size() < 4) {
      part = part.to(at::kFloat);
      scratch.overwrite = true;  // a copy
    }
    const bool in_float64 = precision == static_cast<int64_t>(Precision::Float64);
    factor = detail::orthogonalize_wide(
        part, stages, in_float64 ? at::kDouble : at::kFloat, /*in_bfloat16=*/false, failed, scratch,
        {[&](const at::Tensor& largest) { join(largest, c10d::ReduceOp::MAX); },
         [&](const at::Tensor& gram) {
           detail::mirror_upper(gram);
           join(gram, c10d::ReduceOp::SUM);
         }});
    const at::Tensor flags = failed.to(at::kByte);
    join(flags, c10d::ReduceOp::MAX);
    if (scratch.failed != nullptr) *scratch.failed = flags.to(at::kBool);
    if (scratch.whole != nullptr) *scratch.whole = shape;
    if (dim_ == 0) factor = factor.transpose(1, 2);
    factor = factor.to(x.scalar_type());
  });
  return factor;
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
