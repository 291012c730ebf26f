// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Parameters of which each rank has a shard: which rank has what, and the wholes that the optimizer steps in
// their place.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>   // IntArrayRef
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/core/state_key.hpp>
#include <root_optim/distributed/detail/agreement.hpp>
#include <root_optim/distributed/detail/collectives.hpp>
#include <root_optim/distributed/detail/description.hpp>
#include <root_optim/distributed/detail/stand_in.hpp>
#include <root_optim/distributed/options.hpp>
#include <root_optim/distributed/sharded_layout.hpp>
#include <root_optim/optimizer/detail/group_options.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// What a shard and a block of rows of its whole have in common.
struct Slice {
  int64_t holder;                   ///< the rank that has the shard
  int64_t dim, first, size;         ///< of it in the block
  int64_t shard_first, shard_rows;  ///< of it in the shard, whose other dimensions it has whole

  at::Tensor of_block(const at::Tensor& x) const { return x.narrow(dim, first, size); }
  at::Tensor of_shard(const at::Tensor& x) const { return x.narrow(0, shard_first, shard_rows); }
  /// @param block its shape
  std::vector<int64_t> shape(c10::IntArrayRef block) const {
    std::vector<int64_t> sizes = block.vec();
    sizes[static_cast<size_t>(dim)] = size;
    return sizes;
  }
};

/// A parameter of which each rank has a shard.
struct ShardedParam {
  size_t group, index;
  int64_t dim;
  std::vector<int64_t> starts;  ///< where each rank's shard begins, and where the last one ends
  at::Tensor shard;             ///< this rank's
  at::Tensor whole;             ///< in its place among the parameters. One object for life

  /// What ranks have of its rows.
  std::vector<Slice> slices(int64_t first, int64_t rows) const {
    std::vector<Slice> all;
    for (size_t r = 0; r + 1 < starts.size(); ++r) {
      const int64_t begin = starts[r], end = starts[r + 1];
      Slice slice{static_cast<int64_t>(r), dim, begin, end - begin, first, rows};
      if (dim == 0) {
        const int64_t from = (std::max)(begin, first), to = (std::min)(end, first + rows);
        slice = {slice.holder, 0, from - first, to - from, from - begin, to - from};
      }
      if (slice.size > 0) all.push_back(slice);
    }
    return all;
  }
};

/// The sharded parameters of an optimizer.
class Shards {
 public:
  Shards() = default;

  /// Collective.
  /// @param error of this rank by now
  /// @throws c10::Error on every rank if shards do not make the wholes, or ranks differ otherwise.
  template <class Options>
  static Shards gathered(Collectives& ranks,
                         const std::vector<std::pair<at::Tensor, ShardedLayout>>& sharded,
                         const Groups& groups, const StateMap& states, std::string error) {
    Shards shards;
    std::string text;
    std::vector<int64_t> sizes, wholes;
    attempt(error, [&] {
      for (size_t g = 0; g < groups.size(); ++g) {
        const Options& options = group_options<Options>(groups, g);
        for (size_t i = 0; i < groups[g].params().size(); ++i) {
          const at::Tensor& shard = groups[g].params()[i];
          const auto is_this = [&](const auto& one) { return one.first.is_same(shard); };
          const auto count = std::count_if(sharded.begin(), sharded.end(), is_this);
          if (count == 0) continue;
          const std::string where = describe(shard, g, i, options.names());
          TORCH_CHECK(count == 1, "root_optim::distribute: expected one ShardedLayout of ", where,
                      ", got ", count);
          const ShardedLayout& layout =
              std::find_if(sharded.begin(), sharded.end(), is_this)->second;
          check_parameter(shard, where);
          TORCH_CHECK(layout.dim() < shard.dim(),
                      "root_optim::distribute: expected a ShardedLayout along a dimension of ",
                      where, ", got ", layout.dim());
          TORCH_CHECK(states.count(state_key(shard)) == 0,
                      "root_optim::distribute: expected no state yet of the shard ", where,
                      ": load after `distribute`");
          std::vector<int64_t> shape = shard.sizes().vec();
          int64_t& size = shape[static_cast<size_t>(layout.dim())];
          sizes.push_back(std::exchange(size, layout.whole()));
          wholes.push_back(layout.whole());
          text += c10::str("shards, group ", g, ", parameter ", i, ": of ", c10::IntArrayRef(shape),
                           " along dimension ", layout.dim(), ", ",
                           c10::toString(shard.scalar_type()), '\n');
          shards.params_.push_back({g, i, layout.dim(), {}, shard, {}});
          shards.params_.back().whole = stand_in(shape, shard.options());
        }
      }
      TORCH_CHECK(shards.params_.size() == sharded.size(),
                  "root_optim::distribute: expected a ShardedLayout for parameters of the "
                  "optimizer, got ",
                  sharded.size(), ", of which ", shards.params_.size(), " are");
    });
    agree(ranks, error);
    check_descriptions(ranks.gather_texts(text));
    if (shards.params_.empty()) return shards;
    const std::vector<std::vector<int64_t>> of_ranks = ranks.gather_numbers(sizes);
    for (size_t p = 0; p < shards.params_.size(); ++p) {
      ShardedParam& param = shards.params_[p];
      param.starts.push_back(0);
      std::string sum;
      for (const std::vector<int64_t>& one : of_ranks) {
        param.starts.push_back(param.starts.back() + one[p]);
        sum += (sum.empty() ? "" : " + ") + std::to_string(one[p]);
      }
      TORCH_CHECK(param.starts.back() == wholes[p],
                  "root_optim::distribute: expected shards that are together ", wholes[p],
                  " along dimension ", param.dim, " of ",
                  describe(param.whole, param.group, param.index,
                           group_options<Options>(groups, param.group).names()),
                  ", got ", sum, " on the ranks");
    }
    return shards;
  }

  bool empty() const { return params_.empty(); }
  /// Whether a parameter is a shard.
  bool has(size_t group, size_t index) const {
    return std::any_of(params_.begin(), params_.end(), [&](const ShardedParam& param) {
      return param.group == group && param.index == index;
    });
  }
  const std::vector<ShardedParam>& params() const { return params_; }

  /// The groups with wholes in the place of shards. Valid until the next call.
  const Groups& wholes(const Groups& groups) {
    if (empty()) return groups;
    wholes_.clear();
    for (const auto& group : groups) wholes_.push_back(group);
    for (const ShardedParam& param : params_) {
      TORCH_CHECK(is_in(groups, param),
                  "root_optim::step: expected the parameters that `distribute` saw, got fewer");
      wholes_[param.group].params()[param.index] = param.whole;
    }
    return wholes_;
  }

  /// Follows parameters that were replaced.
  /// @throws c10::Error for shards that are not as `distribute` saw them.
  template <class Options>
  void follow(const Groups& groups, size_t rank) {
    for (ShardedParam& param : params_) {
      TORCH_CHECK(is_in(groups, param),
                  "root_optim::step: expected the parameters that `distribute` saw, got fewer");
      const at::Tensor& shard = groups[param.group].params()[param.index];
      const std::string where = describe(shard, param.group, param.index,
                                         group_options<Options>(groups, param.group).names());
      check_parameter(shard, where);
      std::vector<int64_t> shape = param.whole.sizes().vec();
      shape[static_cast<size_t>(param.dim)] = param.starts[rank + 1] - param.starts[rank];
      TORCH_CHECK(shard.sizes() == c10::IntArrayRef(shape) &&
                      shard.scalar_type() == param.whole.scalar_type() &&
                      shard.device() == param.whole.device(),
                  "root_optim::step: expected the shard that `distribute` saw, of shape ",
                  c10::IntArrayRef(shape), ", got ", where);
      param.shard = shard;
    }
  }

  /// Where the rows begin that each rank has, and where the last one's end, at multiples of `rows_at_once`; nothing if
  /// it is not sharded by rows.
  /// @param whole the parameter
  std::vector<int64_t> homes(const at::Tensor& whole, int64_t rows_at_once) const {
    std::vector<int64_t> rows;
    for (const ShardedParam& param : params_) {
      if (!param.whole.is_same(whole) || param.dim != 0) continue;
      for (const int64_t start : param.starts) {
        rows.push_back(
            (std::min)((start + rows_at_once / 2) / rows_at_once * rows_at_once, whole.size(0)));
      }
      rows.back() = whole.size(0);
    }
    return rows;
  }

  /// The tensor under which the state of a parameter is kept if it is not cut.
  const at::Tensor& whole_of(const at::Tensor& parameter) const {
    for (const ShardedParam& param : params_) {
      if (param.shard.is_same(parameter)) return param.whole;
    }
    return parameter;
  }
  /// The other way.
  const at::Tensor& shard_of(const at::Tensor& parameter) const {
    for (const ShardedParam& param : params_) {
      if (param.whole.is_same(parameter)) return param.shard;
    }
    return parameter;
  }

 private:
  static bool is_in(const Groups& groups, const ShardedParam& param) {
    return param.group < groups.size() && param.index < groups[param.group].params().size();
  }

  std::vector<ShardedParam> params_;
  Groups wholes_;
};

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
