// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Who steps what, and what travels together. Nothing here depends on the rank that asks.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// What one rank steps for life: a batch of matrices, or one tensor that follows AdamW.
struct Unit {
  std::vector<size_t> members;  ///< positions among the parameters
  size_t batch;                 ///< which batch of the step they belong to
  bool adamw;
  double cost;          ///< of a step, in floating-point operations or what takes as long
  int64_t state_bytes;  ///< that its owner keeps
  int64_t value_bytes;  ///< that its owner sends
  int64_t rows = 0;     ///< of a tensor that may be cut between them; 0: it may not
  int64_t rows_at_once =
      1;  ///< it is cut at multiples of so many, which are 64 numbers: for equal bits
  /// Rank r steps the rows from homes[r] to homes[r + 1], which it has a shard of; empty: whoever has room for them.
  std::vector<int64_t> homes = {};
};

/// A unit, or some of its rows, and who steps it.
struct Share {
  size_t unit;
  int64_t owner;
  int64_t first = 0, rows = 0;  ///< as many as the unit has: all of it
};

/// A batch, or its owner's part of it, that is computed and travels as one.
struct Item {
  std::vector<size_t> members;
  size_t batch;
  bool adamw;
  int64_t owner;
  double cost;
  int64_t bytes;
};

/// The orthogonalization of count matrices, small × large: five quintic steps, and the passes over memory
/// beside them. Only the balance of the ranks depends on it.
inline double matrices_cost(double count, double rows, double cols) {
  const double s = (std::min)(rows, cols), l = (std::max)(rows, cols);
  return count * (5 * (4 * s * s * l + 2 * s * s * s) + 1000 * s * l);
}
inline double adamw_cost(double elements) { return 500 * elements; }

/// The indices of units that `of` selects, by `key` from the largest down; equal ones by position.
template <class Select, class Key>
std::vector<size_t> descending(const std::vector<Unit>& units, const Select& select,
                               const Key& key) {
  std::vector<size_t> order;
  for (size_t u = 0; u < units.size(); ++u) {
    if (select(units[u])) order.push_back(u);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return key(units[a]) > key(units[b]); });
  return order;
}

/// What every load is raised to by `more` that fills up the lowest.
inline double level_of(std::vector<double> loads, double more) {
  std::sort(loads.begin(), loads.end());
  double sum = more;
  for (size_t i = 0; i < loads.size(); ++i) {
    sum += loads[i];
    const double level = sum / static_cast<double>(i + 1);
    if (i + 1 == loads.size() || level <= loads[i + 1]) return level;
  }
  return sum;
}

/// Who steps what.
///
/// Matrices: the longest first, each to the rank with the least to do. AdamW's tensors then level the bytes
/// of state: those that cannot be cut the largest first, each to the rank that keeps the least; then the
/// others fill one rank after the other. Ties go to the lower rank. Rows that are at home somewhere stay there.
/// @param most_bytes of values in one part of a tensor that is cut
inline std::vector<Share> shares_of(const std::vector<Unit>& units, int64_t ranks,
                                    int64_t most_bytes) {
  std::vector<int64_t> owner(units.size());
  std::vector<double> cost(static_cast<size_t>(ranks)), bytes(static_cast<size_t>(ranks));
  const auto give = [&](size_t unit, const std::vector<double>& load) {
    const auto least = std::min_element(load.begin(), load.end()) - load.begin();
    owner[unit] = least;
    cost[static_cast<size_t>(least)] += units[unit].cost;
    bytes[static_cast<size_t>(least)] += static_cast<double>(units[unit].state_bytes);
  };
  std::vector<Share> shares;
  // The bytes of state of the least that can be cut off, and how many of those one part may have.
  const auto least = [](const Unit& unit) {
    return static_cast<double>(unit.state_bytes) * static_cast<double>(unit.rows_at_once) /
           static_cast<double>(unit.rows);
  };
  const auto most_cuts = [&](const Unit& unit) {
    return static_cast<double>(most_bytes) * static_cast<double>(unit.state_bytes) /
           static_cast<double>(unit.value_bytes) / least(unit);
  };
  for (size_t u = 0; u < units.size(); ++u) {
    const Unit& unit = units[u];
    for (size_t r = 0; r + 1 < unit.homes.size(); ++r) {
      const auto most = static_cast<int64_t>(
          (std::max)((std::min)(most_cuts(unit), static_cast<double>(unit.rows)), 1.0));
      for (int64_t first = unit.homes[r]; first < unit.homes[r + 1];) {
        const int64_t rows = (std::min)(most * unit.rows_at_once, unit.homes[r + 1] - first);
        shares.push_back({u, static_cast<int64_t>(r), first, rows});
        bytes[r] +=
            least(unit) * static_cast<double>(rows) / static_cast<double>(unit.rows_at_once);
        first += rows;
      }
    }
  }
  for (const size_t u : descending(
           units, [](const Unit& unit) { return !unit.adamw; },
           [](const Unit& unit) { return unit.cost; })) {
    give(u, cost);
  }
  for (const size_t u : descending(
           units, [](const Unit& unit) { return unit.adamw && unit.rows == 0; },
           [](const Unit& unit) { return static_cast<double>(unit.state_bytes); })) {
    give(u, bytes);
  }

  const auto is_cut = [](const Unit& unit) { return unit.rows > 0 && unit.homes.empty(); };
  double to_cut = 0;
  for (size_t u = 0; u < units.size(); ++u) {
    if (units[u].rows == 0) shares.push_back({u, owner[u]});
    if (is_cut(units[u])) to_cut += static_cast<double>(units[u].state_bytes);
  }
  const double level = level_of(bytes, to_cut);
  for (const size_t u : descending(units, is_cut, least)) {  // what is cut finely comes last
    const Unit& unit = units[u];
    const double cut = least(unit), most = most_cuts(unit);
    for (int64_t first = 0; first < unit.rows;) {
      // The first rank that it goes into, else the one with most room.
      auto rank = std::find_if(bytes.begin(), bytes.end(),
                               [&](double load) { return level - load >= cut; });
      if (rank == bytes.end()) rank = std::min_element(bytes.begin(), bytes.end());
      const double cuts = (std::max)((std::min)((level - *rank) / cut, most), 1.0);
      const int64_t rows =
          (std::min)(static_cast<int64_t>(cuts) * unit.rows_at_once, unit.rows - first);
      shares.push_back({u, rank - bytes.begin(), first, rows});
      *rank += cut * static_cast<double>(rows) / static_cast<double>(unit.rows_at_once);
      first += rows;
    }
  }
  return shares;
}

/// The units as items: AdamW's tensors of one batch and owner together, up to `bucket_bytes`.
inline std::vector<Item> items_of(const std::vector<Unit>& units, const std::vector<int64_t>& owner,
                                  int64_t bucket_bytes) {
  std::vector<Item> items;
  for (size_t u = 0; u < units.size(); ++u) {
    const Unit& unit = units[u];
    const auto joins = std::find_if(items.rbegin(), items.rend(), [&](const Item& item) {
      return item.owner == owner[u] && item.batch == unit.batch;
    });
    if (unit.adamw && joins != items.rend() && joins->bytes + unit.value_bytes <= bucket_bytes) {
      joins->members.insert(joins->members.end(), unit.members.begin(), unit.members.end());
      joins->cost += unit.cost;
      joins->bytes += unit.value_bytes;
    } else {
      items.push_back(
          {unit.members, unit.batch, unit.adamw, owner[u], unit.cost, unit.value_bytes});
    }
  }
  return items;
}

/// The items in buckets of at most `bucket_bytes`, or of one item. All ranks get ahead at one pace: the next
/// item is of the rank whose items so far cost least.
inline std::vector<std::vector<Item>> buckets_of(std::vector<Item> items, int64_t ranks,
                                                 int64_t bucket_bytes) {
  std::vector<std::vector<Item>> buckets;
  std::vector<double> done(static_cast<size_t>(ranks));
  int64_t bytes = 0;
  while (!items.empty()) {
    auto next = items.begin();
    for (auto item = items.begin(); item != items.end(); ++item) {
      if (done[static_cast<size_t>(item->owner)] < done[static_cast<size_t>(next->owner)]) {
        next = item;
      }
    }
    if (buckets.empty() || bytes + next->bytes > bucket_bytes) {
      buckets.emplace_back();
      bytes = 0;
    }
    bytes += next->bytes;
    done[static_cast<size_t>(next->owner)] += next->cost;
    buckets.back().push_back(std::move(*next));
    items.erase(next);
  }
  return buckets;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
