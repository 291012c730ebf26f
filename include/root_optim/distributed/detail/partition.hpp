// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Which rank owns which parameters, or rows of them, and in which buckets their values travel.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/core/state_key.hpp>
#include <root_optim/distributed/detail/description.hpp>
#include <root_optim/distributed/detail/ownership.hpp>
#include <root_optim/distributed/detail/shards.hpp>
#include <root_optim/distributed/detail/stand_in.hpp>
#include <root_optim/distributed/detail/units.hpp>
#include <root_optim/optimizer/detail/group_options.hpp>
#include <root_optim/optimizer/detail/next_state.hpp>
#include <root_optim/optimizer/detail/plan.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Rows of a tensor that follows AdamW, which has several owners. Among the parameters of a step pieces come
/// behind the last parameter.
struct Piece {
  at::Tensor whole;  ///< the parameter
  size_t position;   ///< of it among the parameters
  int64_t owner, first, rows;
  at::Tensor tensor;  ///< the rows. One object for life: the state knows it by its address.

  at::Tensor of(const at::Tensor& x) const { return x.narrow(0, first, rows); }

  /// Follows a parameter that has other memory, or another gradient.
  void follow() {
    if (is_stand_in(whole)) return;  // the rows come from shards (shard_exchange.hpp)
    tensor.set_data(of(whole.detach()));
    tensor.mutable_grad() = whole.grad().defined() ? of(whole.grad()) : at::Tensor();
  }
};

/// All of a sharded parameter, or the rows that have one owner.
struct ShardedBlock {
  size_t param;  ///< among the sharded ones
  int64_t owner;
  at::Tensor tensor;  ///< as it is stepped: without memory where it is not, and between steps
  at::Tensor shard;   ///< this rank's, as of this step
  std::vector<Slice> slices;
  bool in_place = false;  ///< whether, in this step, `tensor` is memory of `shard`

  /// Whether its owner has all of it.
  bool is_at_home() const { return slices.size() == 1 && slices.front().holder == owner; }
};

/// Who owns what of an optimizer. Only `rank` differs between ranks, and what follows from it.
struct Partition {
  static constexpr int64_t nobody = -1;  ///< the owner of a parameter that is cut

  int64_t rank = 0;                         ///< this one
  int64_t structure = 0;                    ///< `checksum_of_structure` of the parameters
  int64_t params = 0;                       ///< that have entries
  std::vector<std::vector<int64_t>> owner;  ///< by group and index
  std::vector<Piece> pieces;
  std::vector<std::vector<size_t>> batches;  ///< as `batches_of` one process
  std::vector<std::vector<Item>> buckets;    ///< in the order in which they are stepped
  std::map<size_t, ShardedBlock> sharded;    ///< by position among parameters and pieces

  /// Rank 0 for a parameter that `distribute` did not see: the step refuses it. `nobody` for one that is cut.
  int64_t owner_of(size_t group, size_t index) const {
    return group < owner.size() && index < owner[group].size() ? owner[group][index] : 0;
  }
  bool owns(size_t group, size_t index) const { return owner_of(group, index) == rank; }
  bool owns(const Piece& piece) const { return piece.owner == rank; }
  bool owns(const Item& item) const { return item.owner == rank; }

  template <class F>
  void for_each_own_item(const F& f) const {
    for (const std::vector<Item>& bucket : buckets) {
      for (const Item& item : bucket) {
        if (owns(item)) f(item);
      }
    }
  }

  /// What the results of this rank's items in two buckets take at most.
  size_t bytes_in_flight() const {
    double most = 0;
    for (const std::vector<Item>& bucket : buckets) {
      double bytes = 0;
      for (const Item& item : bucket) {
        if (owns(item)) bytes += static_cast<double>(item.bytes);
      }
      most = (std::max)(most, bytes);
    }
    return static_cast<size_t>(6 * most);  // values and two moments, twice
  }
};

/// Decides who owns what, as rank `rank` of `size` sees it.
/// @param groups with wholes in the place of shards
template <class Options>
Partition partition_of(const Groups& groups, int64_t rank, int64_t size, int64_t bucket_bytes,
                       const Shards& shards = {}) {
  const StateMap none;
  const auto planned = planned_params<Options>(groups, none, [](size_t, size_t) { return false; });
  Partition partition;
  partition.rank = rank;
  partition.structure = checksum_of_structure(planned);
  partition.params = static_cast<int64_t>(planned.size());
  for (const auto& group : groups) partition.owner.emplace_back(group.params().size(), 0);
  constexpr int64_t least_bytes = int64_t{1} << 14;  // of a piece that fills a bucket
  partition.batches = batches_of(planned);
  std::vector<Unit> uncut = units_of(planned, partition.batches);
  for (Unit& unit : uncut) {
    const at::Tensor& first = planned[unit.members.front()].parameter;
    if (unit.rows > 0) unit.homes = shards.homes(first, unit.rows_at_once);
  }
  std::vector<Unit> units;
  std::vector<int64_t> owner;
  for (const Share& share : shares_of(uncut, size, (std::max)(bucket_bytes, least_bytes))) {
    Unit unit = uncut[share.unit];
    const bool is_piece = share.rows < unit.rows;
    for (const size_t i : unit.members) {
      partition.owner[planned[i].group][planned[i].index] =
          is_piece ? Partition::nobody : share.owner;
    }
    if (is_piece) {
      std::vector<Piece>& pieces = partition.pieces;
      const size_t i = unit.members.front();
      pieces.push_back({planned[i].parameter, i, share.owner, share.first, share.rows, {}});
      const at::Tensor whole = planned[i].parameter.detach();
      if (is_stand_in(whole)) {
        std::vector<int64_t> shape = whole.sizes().vec();
        shape.front() = share.rows;
        pieces.back().tensor = stand_in(shape, whole.options());
      } else {
        pieces.back().tensor = pieces.back().of(whole);
      }
      unit.members = {planned.size() + pieces.size() - 1};
      unit.cost *= static_cast<double>(share.rows) / static_cast<double>(unit.rows);
      unit.state_bytes = unit.state_bytes / unit.rows * share.rows;
      unit.value_bytes = unit.value_bytes / unit.rows * share.rows;
    }
    units.push_back(std::move(unit));
    owner.push_back(share.owner);
  }
  partition.buckets = buckets_of(items_of(units, owner, bucket_bytes), size, bucket_bytes);
  return partition;
}

/// Puts the pieces behind the parameters, with the state of those that are stepped here.
template <class Options>
void add_pieces(Partition& partition, std::vector<PlannedParam<Options>>& planned,
                const StateMap& states) {
  for (Piece& piece : partition.pieces) {
    PlannedParam<Options> part = planned[piece.position];  // without state: nobody owns the whole
    piece.whole = part.parameter;
    piece.follow();
    part.parameter = piece.tensor;
    if (part.steps && partition.owns(piece)) {
      const std::string where =
          describe(piece.whole, part.group, part.index, part.options->names());
      part.state = next_state(find_state(states, piece.tensor, part.options->layout(), where),
                              piece.tensor, part.rule, *part.options, where);
    }
    planned.push_back(std::move(part));
  }
}

/// Whether anything of it has a gradient.
template <class Options>
bool item_steps(const std::vector<PlannedParam<Options>>& planned, const Item& item) {
  return std::any_of(item.members.begin(), item.members.end(),
                     [&](size_t i) { return planned[i].steps; });
}
template <class Options>
bool bucket_steps(const std::vector<PlannedParam<Options>>& planned,
                  const std::vector<Item>& bucket) {
  return std::any_of(bucket.begin(), bucket.end(),
                     [&](const Item& item) { return item_steps(planned, item); });
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
