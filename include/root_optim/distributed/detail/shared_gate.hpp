// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The gate of a step over ranks: each takes the norms of what it owns, and one small exchange makes one norm of
// them, summed as one process does.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/distributed/detail/agreement.hpp>
#include <root_optim/distributed/detail/collectives.hpp>
#include <root_optim/distributed/detail/ownership.hpp>
#include <root_optim/distributed/detail/partition.hpp>
#include <root_optim/kernels/workspace.hpp>
#include <root_optim/optimizer/detail/batch.hpp>
#include <root_optim/optimizer/detail/gate.hpp>
#include <root_optim/optimizer/detail/plan.hpp>
#include <root_optim/stages/norm_gate.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// What the ranks know of gradients, one number for each that may have one, in the order of the step's batches,
/// so that those of a batch lie side by side; pieces come behind.
struct SharedNorms {
  std::vector<int64_t> place;  ///< of each parameter and piece with a gradient; -1: it has none
  at::Tensor numbers;  ///< norms, then 1 for each that is not usable, [2, count]; 0: another rank's

  at::Tensor norms() const { return numbers.select(0, 0); }
  at::Tensor faults() const { return numbers.select(0, 1); }
};

template <class Options>
SharedNorms no_norms(const Partition& partition, const std::vector<PlannedParam<Options>>& planned,
                     const at::Device& device) {
  SharedNorms shared{std::vector<int64_t>(planned.size(), -1), {}};
  int64_t count = 0;
  const auto add = [&](size_t i) {
    if (planned[i].steps) shared.place[i] = count++;
  };
  for (const std::vector<size_t>& batch : partition.batches) {
    for (const size_t i : batch) add(i);
  }
  for (size_t i = static_cast<size_t>(partition.params); i < planned.size(); ++i) add(i);
  shared.numbers = at::zeros({2, count}, at::TensorOptions(device).dtype(at::kDouble));
  return shared;
}

/// The norms of what this rank owns of an item. Of a tensor that is cut the first owner takes it of the whole, if it
/// has that; else each of its rows.
template <class Options>
void take_norms(const Item& item, const Partition& partition,
                const std::vector<PlannedParam<Options>>& planned, bool in_parts,
                Workspace* workspace, SharedNorms& to) {
  const PlannedParam<Options>& first = planned[item.members.front()];
  Batch<Options> batch{first.options, first.rule, {}, {}};
  std::vector<int64_t> places;
  const auto params = static_cast<size_t>(partition.params);
  for (const size_t i : item.members) {
    if (!planned[i].steps) continue;
    if (i < params || in_parts) {
      batch.parameters.push_back(planned[i].parameter);
      places.push_back(to.place[i]);
    } else if (const Piece& piece = partition.pieces[i - params]; piece.first == 0) {
      batch.parameters.push_back(piece.whole);
      places.push_back(to.place[piece.position]);
    }
  }
  if (places.empty()) return;
  const GradientNorms of = norms_of(batch, workspace);
  const at::Tensor faults = of.usable.bitwise_not();
  for (size_t k = 0; k < places.size(); ++k) {
    to.norms().select(0, places[k]).copy_(of.norms.select(0, static_cast<int64_t>(k)));
    to.faults().select(0, places[k]).copy_(faults.select(0, static_cast<int64_t>(k)));
  }
}

/// Makes one norm of those of the rows of each tensor that is cut.
inline void join_pieces(const Partition& partition, SharedNorms& shared) {
  const std::vector<Piece>& pieces = partition.pieces;
  const auto params = static_cast<size_t>(partition.params);
  for (size_t p = 0; p < pieces.size();) {
    size_t end = p;  // the pieces of a parameter come in a row
    while (end < pieces.size() && pieces[end].position == pieces[p].position) ++end;
    const int64_t whole = shared.place[pieces[p].position], first = shared.place[params + p];
    if (whole >= 0) {
      const auto count = static_cast<int64_t>(end - p);
      shared.norms().select(0, whole).copy_(
          at::linalg_vector_norm(shared.norms().narrow(0, first, count)));
      shared.faults().select(0, whole).copy_(shared.faults().narrow(0, first, count).sum());
    }
    p = end;
  }
}

/// `gated_step` over ranks. Collective. No host synchronization with the device: the numbers travel as the values
/// do. The bits are those of one process; if owners have their rows of gradients alone, but for the norms of tensors
/// that are cut, which are then summed by their parts.
/// @param in_parts whether owners have their rows of gradients alone
template <class Options>
std::optional<GatedStep> gated_together(Collectives& ranks, const Partition& partition,
                                        const std::vector<PlannedParam<Options>>& planned,
                                        bool in_parts, const GateState& state, Workspace* workspace,
                                        std::string& error) {
  const auto first = std::find_if(planned.begin(), planned.end(),
                                  [](const PlannedParam<Options>& item) { return item.steps; });
  if (first == planned.end() || first->options->gate() == 0) return std::nullopt;
  SharedNorms shared = no_norms(partition, planned, first->parameter.device());
  attempt(error, [&] {
    partition.for_each_own_item([&](const Item& item) {
      take_norms(item, partition, planned, in_parts, workspace, shared);
    });
  });
  // Every number is one rank's, and 0 on the others: their sum is exact.
  Started started = ranks.all_reduce(shared.numbers, c10d::ReduceOp::SUM);
  ranks.wait(started);

  std::optional<GatedStep> result;
  attempt(error, [&] {
    if (in_parts) join_pieces(partition, shared);
    at::Tensor squares;
    int64_t begin = 0;
    for (const std::vector<size_t>& batch : partition.batches) {
      const auto count =
          std::count_if(batch.begin(), batch.end(), [&](size_t i) { return planned[i].steps; });
      if (count == 0) continue;
      const GradientNorms of{shared.norms().narrow(0, begin, count),
                             shared.faults().narrow(0, begin, count).eq(0)};
      begin += count;
      const PlannedParam<Options>& any = planned[batch.front()];
      const at::Tensor more = squares_of(of, any.rule, *any.options);
      squares = squares.defined() ? squares.add_(more) : more;
    }
    result = gated(std::move(squares), state, *first->options);
  });
  return result;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
