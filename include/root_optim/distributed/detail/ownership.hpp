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

/// The owner of each unit.
///
/// Matrices: the longest first, each to the rank with the least to do. AdamW's tensors then level the bytes
/// of state: the largest first, each to the rank that keeps the least. Ties go to the lower rank.
inline std::vector<int64_t> owners_of(const std::vector<Unit>& units, int64_t ranks) {
  std::vector<int64_t> owner(units.size());
  std::vector<double> cost(static_cast<size_t>(ranks)), bytes(static_cast<size_t>(ranks));
  const auto give = [&](size_t unit, const std::vector<double>& load) {
    const auto least = std::min_element(load.begin(), load.end()) - load.begin();
    owner[unit] = least;
    cost[static_cast<size_t>(least)] += units[unit].cost;
    bytes[static_cast<size_t>(least)] += static_cast<double>(units[unit].state_bytes);
  };
  for (const size_t u : descending(
           units, [](const Unit& unit) { return !unit.adamw; },
           [](const Unit& unit) { return unit.cost; })) {
    give(u, cost);
  }
  for (const size_t u : descending(
           units, [](const Unit& unit) { return unit.adamw; },
           [](const Unit& unit) { return static_cast<double>(unit.state_bytes); })) {
    give(u, bytes);
  }
  return owner;
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
