// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What owners step of sharded parameters comes to them before the step: values and gradients. The new values
// travel back with the buckets (bucket_exchange.hpp).
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/core/finite.hpp>
#include <root_optim/distributed/detail/agreement.hpp>
#include <root_optim/distributed/detail/collectives.hpp>
#include <root_optim/distributed/detail/partition.hpp>
#include <root_optim/distributed/detail/shards.hpp>
#include <root_optim/distributed/detail/stand_in.hpp>
#include <root_optim/kernels/max_abs.hpp>
#include <root_optim/optimizer/detail/group_options.hpp>
#include <root_optim/optimizer/options.hpp>  // NonFinite
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Which blocks of sharded parameters have one owner each.
/// @param wholes the groups that the partition is of
inline void add_sharded(Partition& partition, const Groups& wholes, const Shards& shards) {
  size_t position = 0;
  for (size_t g = 0; g < wholes.size(); ++g) {
    for (size_t i = 0; i < wholes[g].params().size(); ++i) {
      const at::Tensor& whole = wholes[g].params()[i];
      if (whole.numel() == 0) continue;
      for (size_t s = 0; s < shards.params().size(); ++s) {
        const ShardedParam& param = shards.params()[s];
        if (!param.whole.is_same(whole)) continue;
        if (partition.owner_of(g, i) != Partition::nobody) {
          partition.sharded[position] = {
              s, partition.owner_of(g, i), whole, {}, param.slices(0, whole.size(0))};
        }
        for (size_t p = 0; p < partition.pieces.size(); ++p) {
          const Piece& piece = partition.pieces[p];
          if (!piece.whole.is_same(whole)) continue;
          partition.sharded[static_cast<size_t>(partition.params) + p] = {
              s, piece.owner, piece.tensor, {}, param.slices(piece.first, piece.rows)};
        }
      }
      ++position;
    }
  }
}

/// While it lives, what stands for sharded parameters has what this rank steps of them; then nothing again.
class GatheredShards {
 public:
  explicit GatheredShards(Partition& partition, const Shards& shards)
      : partition_(partition), shards_(shards) {}
  GatheredShards(const GatheredShards&) = delete;
  GatheredShards& operator=(const GatheredShards&) = delete;
  ~GatheredShards() {
    try {
      for (auto& [position, block] : partition_.sharded) release(block.tensor);
      for (const ShardedParam& param : shards_.params()) release(param.whole);
    } catch (...) {  // for want of memory: what is left is replaced in the next step
    }
  }

  /// Collective.
  /// @param dtypes of the gradients, by parameter; Undefined: it has none and is not stepped
  /// @throws c10::Error on every rank if memory is wanting on one; nothing has changed then.
  void gather(Collectives& ranks, const std::vector<at::ScalarType>& dtypes) {
    struct Message {
      at::Tensor tensor;
      int64_t peer;
      int tag;
      bool sends;
    };
    std::vector<Message> messages;
    std::vector<std::pair<at::Tensor, at::Tensor>> copies;  // to, from; behind the messages
    std::string error;
    attempt(error, [&] {
      int tag = 0;
      for (size_t p = 0; p < dtypes.size(); ++p) {
        const at::Tensor& whole = shards_.params()[p].whole;
        if (dtypes[p] == at::ScalarType::Undefined) continue;
        whole.mutable_grad() = gradient_stand_in(whole.sizes(), whole.options().dtype(dtypes[p]));
      }
      for (auto& [position, block] : partition_.sharded) {
        block.shard = shards_.params()[block.param].shard;
        const at::ScalarType dtype = dtypes[block.param];
        if (dtype == at::ScalarType::Undefined) continue;
        const bool owns = block.owner == ranks.rank();
        block.in_place = false;
        if (owns && block.is_at_home()) {
          const Slice& slice = block.slices.front();
          const at::Tensor values = slice.of_shard(block.shard.detach());
          const at::Tensor gradient = slice.of_shard(block.shard.grad());
          block.in_place = values.is_contiguous() && gradient.is_contiguous();
          if (block.in_place) {
            block.tensor.set_data(values);
            block.tensor.mutable_grad() = gradient;
            tag += 2;
            continue;
          }
        }
        if (owns) {
          const auto shape = block.tensor.sizes().vec();
          const at::TensorOptions options = block.tensor.options().requires_grad(false);
          block.tensor.set_data(at::empty(shape, options));
          block.tensor.mutable_grad() = at::empty(shape, options.dtype(dtype));
        }
        for (const Slice& slice : block.slices) {
          const bool holds = slice.holder == ranks.rank();
          for (const bool is_gradient : {false, true}) {
            ++tag;
            const auto to = [&, &b = block] {
              return slice.of_block(is_gradient ? b.tensor.grad() : b.tensor.detach());
            };
            const auto from = [&, &b = block] {
              return slice.of_shard(is_gradient ? b.shard.grad() : b.shard.detach());
            };
            if (owns && holds) {
              copies.emplace_back(to(), from());
            } else if (owns) {
              const at::Tensor place = to();
              at::Tensor received = place;
              if (!place.is_contiguous()) {
                received = at::empty(place.sizes(), place.options());
                copies.emplace_back(place, received);
              }
              messages.push_back({received, slice.holder, tag, false});
            } else if (holds) {
              messages.push_back({from().contiguous(), block.owner, tag, true});
            }
          }
        }
      }
    });
    agree(ranks, error);
    // Of two ranks the lower one sends first: a transport may make a message wait for the one before.
    std::vector<Started> started;
    for (const bool first : {true, false}) {
      for (const Message& message : messages) {
        if (((ranks.rank() < message.peer) == message.sends) != first) continue;
        const at::Tensor bytes = message.tensor.view({-1}).view(at::kByte);
        started.push_back(message.sends ? ranks.send(bytes, message.peer, message.tag)
                                        : ranks.receive(bytes, message.peer, message.tag));
      }
    }
    for (Started& one : started) ranks.wait(one);
    for (const auto& [to, from] : copies) to.copy_(from);
  }

 private:
  static void release(const at::Tensor& tensor) {
    tensor.mutable_grad().reset();
    if (tensor.numel() > 0 && !is_stand_in(tensor)) {
      tensor.set_data(stand_in(tensor.sizes().vec(), tensor.options()));
    }
  }

  Partition& partition_;
  const Shards& shards_;
};

/// Checks shards and their gradients, and tells the others which there are. Collective.
/// @return the dtypes of the gradients, by parameter; Undefined: no rank has one
/// @throws c10::Error on every rank; nothing has changed then.
template <class Options>
std::vector<at::ScalarType> agree_on_shards(Collectives& ranks, Shards& shards,
                                            const Groups& groups) {
  constexpr int64_t none = -1, empty_shard = -2;
  std::vector<int64_t> own(shards.params().size(), none);
  std::string error;
  attempt(error, [&] {
    shards.template follow<Options>(groups, static_cast<size_t>(ranks.rank()));
    for (size_t p = 0; p < own.size(); ++p) {
      const ShardedParam& param = shards.params()[p];
      const at::Tensor& gradient = param.shard.grad();
      if (param.shard.numel() == 0) own[p] = empty_shard;
      if (!gradient.defined() || param.shard.numel() == 0) continue;
      const Options& options = group_options<Options>(groups, param.group);
      const std::string where = describe(param.shard, param.group, param.index, options.names());
      check_gradient(param.shard, gradient, where);
      TORCH_CHECK(options.non_finite() != NonFinite::Raise ||
                      is_finite(max_abs(gradient.reshape({1, -1})).reshape({}).item<double>()),
                  "root_optim::step: expected a finite gradient, got Inf or NaN for ", where);
      own[p] = static_cast<int64_t>(gradient.scalar_type());
    }
  });
  Agreement agreement = start_agreement(ranks, error, {}, own);
  const std::vector<std::vector<int64_t>> all = finish_agreement(ranks, agreement);
  std::vector<at::ScalarType> dtypes;
  for (size_t p = 0; p < own.size(); ++p) {
    size_t first = all.size();  // a rank that has some of it
    for (size_t r = 0; r < all.size(); ++r) {
      if (all[r][1 + p] == empty_shard) continue;
      if (first == all.size()) first = r;
      if (all[r][1 + p] == all[first][1 + p]) continue;
      const ShardedParam& param = shards.params()[p];
      refuse_on_all(
          c10::str("root_optim::step: expected a gradient of one dtype for all shards or "
                   "for none, got another on rank ",
                   r, " than on rank ", first, ", or none on one of them, of ",
                   describe(param.whole, param.group, param.index,
                            group_options<Options>(groups, param.group).names())));
    }
    const bool has = first < all.size() && all[first][1 + p] != none;
    dtypes.push_back(has ? static_cast<at::ScalarType>(all[first][1 + p])
                         : at::ScalarType::Undefined);
  }
  return dtypes;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
