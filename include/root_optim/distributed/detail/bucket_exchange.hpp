// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A bucket's way: what a rank has computed goes to the others, and is committed where all have computed theirs.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/Device.h>
#include <c10/util/accumulate.h>  // multiply_integers

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <root_optim/distributed/detail/agreement.hpp>
#include <root_optim/distributed/detail/collectives.hpp>
#include <root_optim/distributed/detail/ownership.hpp>
#include <root_optim/distributed/detail/partition.hpp>
#include <root_optim/distributed/detail/shards.hpp>
#include <root_optim/optimizer/detail/commit.hpp>
#include <root_optim/optimizer/detail/pending.hpp>
#include <root_optim/optimizer/detail/plan.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Where an item's values lie in its bucket: 16 bytes are a multiple of every dtype's size.
inline int64_t aligned(int64_t bytes) { return (bytes + 15) / 16 * 16; }

/// Memory of a bucket, by device, and that of two: one travels while the next one is computed.
using BucketMemory = std::map<std::string, at::Tensor>;
using Room = std::array<BucketMemory, 2>;

/// Takes what the largest of `buckets` needs on each device, twice, unless `room` has it.
/// @param size_of(thing) the name of the device, and the bytes, of a thing in a bucket
template <class Thing, class SizeOf>
void take_room(Room& room, const std::vector<std::vector<Thing>>& buckets, const SizeOf& size_of) {
  std::map<std::string, int64_t> most;
  for (const std::vector<Thing>& bucket : buckets) {
    std::map<std::string, int64_t> bytes;
    for (const Thing& thing : bucket) {
      const auto [device, size] = size_of(thing);
      bytes[device] += size;
    }
    for (const auto& [device, sum] : bytes) most[device] = (std::max)(most[device], sum);
  }
  for (BucketMemory& memory : room) {
    for (const auto& [device, bytes] : most) {
      if (memory.count(device) > 0) continue;
      memory[device] = at::empty({bytes}, at::TensorOptions(at::Device(device)).dtype(at::kByte));
    }
  }
}

/// Takes it for a step, before any rank depends on this one.
template <class Options>
void make_room(Room& room, const Partition& partition,
               const std::vector<PlannedParam<Options>>& planned) {
  const auto size_of = [&](const Item& item) {
    int64_t bytes = 0;
    for (const size_t i : item.members) {
      bytes += aligned(static_cast<int64_t>(planned[i].parameter.nbytes()));
      const auto sharded = partition.sharded.find(i);
      if (sharded != partition.sharded.end()) {  // each slice may end with a gap
        bytes += aligned(1) * static_cast<int64_t>(sharded->second.slices.size());
      }
    }
    const at::Tensor& first = planned[item.members.front()].parameter;  // a batch has one device
    return std::pair(first.device().str(), bytes);
  };
  take_room(room, partition.buckets, size_of);
}

/// A bucket on its way.
struct Flight {
  Agreement agreement;
  std::vector<Started> values;
  std::vector<Pending> own;
  Commit received;
  std::vector<at::Tensor> cut;  ///< parameters of which it has pieces
};

/// Starts what travels of a bucket.
/// @param own what this rank has computed of it
/// @param half which half of the room: two buckets are on their way
/// @param steps what all ranks must have counted
template <class Options>
Flight send_off(Collectives& ranks, const Partition& partition,
                const std::vector<PlannedParam<Options>>& planned, const std::vector<Item>& bucket,
                std::vector<Pending> own, const Room& room, size_t half, int64_t steps,
                std::string& error) {
  Flight flight;
  flight.own = std::move(own);
  std::map<const void*, at::Tensor> next;  // values that this rank has computed, by parameter
  for (const Pending& pending : flight.own) {
    for (size_t i = 0; i < pending.parameters.size(); ++i) {
      next[pending.parameters[i].unsafeGetTensorImpl()] = pending.values[i];
    }
  }

  // The values of each owner and device lie side by side, in the order of the bucket. Those of a sharded parameter
  // go to the ranks that have shards of it, all others to everyone.
  constexpr int64_t everyone = -1;
  struct Sent {
    const PlannedParam<Options>* item;
    const ShardedBlock* block;
    const Slice* slice;
  };
  std::map<std::tuple<int64_t, int64_t, std::string>, std::vector<Sent>> sent;
  const auto params = static_cast<size_t>(partition.params);
  for (const Item& item : bucket) {
    for (const size_t i : item.members) {
      if (!planned[i].steps) continue;
      if (i >= params) flight.cut.push_back(partition.pieces[i - params].whole);
      const std::string device = planned[i].parameter.device().str();
      const auto sharded = partition.sharded.find(i);
      if (sharded == partition.sharded.end()) {
        sent[{item.owner, everyone, device}].push_back({&planned[i], nullptr, nullptr});
        continue;
      }
      if (sharded->second.in_place) {  // committed where it is
        flight.cut.push_back(sharded->second.shard);
        continue;
      }
      for (const Slice& slice : sharded->second.slices) {
        sent[{item.owner, slice.holder, device}].push_back({&planned[i], &sharded->second, &slice});
      }
    }
  }
  std::map<std::string, int64_t> used;
  struct Message {
    int64_t owner, to;
    at::Tensor values;
    int tag;
  };
  std::vector<Message> messages;
  int tag = static_cast<int>(half);
  for (const auto& [way, items] : sent) {
    const auto& [owner, to, device] = way;
    if (owner != to) tag += 2;
    if (to != everyone && to != ranks.rank() && owner != ranks.rank()) continue;
    const at::Tensor& memory = room[half].at(device);
    const int64_t begin = used[device];
    int64_t& end = used[device];
    const bool ours = owner == ranks.rank(),
               received = to == ranks.rank() || (to == everyone && !ours);
    for (const Sent& one : items) {
      const at::Tensor& parameter = one.item->parameter;
      const std::vector<int64_t> shape =
          one.slice == nullptr ? parameter.sizes().vec() : one.slice->shape(parameter.sizes());
      const int64_t bytes =
          c10::multiply_integers(shape) * static_cast<int64_t>(parameter.element_size());
      const at::Tensor place =
          memory.narrow(0, end, bytes).view(parameter.scalar_type()).view(shape);
      end += aligned(bytes);
      attempt(error, [&] {
        if (ours) {
          const at::Tensor& values = next.at(one.item->parameter.unsafeGetTensorImpl());
          place.copy_(one.slice == nullptr ? values : one.slice->of_block(values));
        }
        if (received) {
          flight.received.add(
              {one.slice == nullptr ? one.item->parameter : one.slice->of_shard(one.block->shard)},
              {place});
        }
      });
    }
    if (to != ranks.rank() || !ours) {
      messages.push_back({owner, to, memory.narrow(0, begin, end - begin), tag});
    }
  }
  flight.agreement = start_agreement(ranks, error, {{"numbers of steps", steps}});
  if (ranks.size() > 1) {
    for (const Message& message : messages) {
      const auto& [owner, to, values, message_tag] = message;
      flight.values.push_back(to == everyone          ? ranks.broadcast(values, owner)
                              : owner == ranks.rank() ? ranks.send(values, to, message_tag)
                                                      : ranks.receive(values, owner, message_tag));
    }
  }
  return flight;
}

/// Waits for a bucket and commits it.
/// @throws c10::Error on every rank if any has failed to compute its part; nothing of it is committed
/// then.
inline void land(Collectives& ranks, Flight& flight) {
  try {
    finish_agreement(ranks, flight.agreement);
  } catch (...) {
    if (ranks.lost().empty()) {  // its buffers are used again
      for (Started& started : flight.values) ranks.wait(started);
    }
    throw;
  }
  for (Started& started : flight.values) ranks.wait(started);
  for (Pending& pending : flight.own) pending.commit();
  flight.received.run();
  for (const at::Tensor& whole : flight.cut) whole.unsafeGetTensorImpl()->bump_version();
}

/// Waits for a bucket that comes to nothing: an earlier one has failed on some rank.
inline void drain(Collectives& ranks, Flight& flight) {
  if (!ranks.lost().empty()) return;
  ranks.wait(flight.agreement.started);
  for (Started& started : flight.values) ranks.wait(started);
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
