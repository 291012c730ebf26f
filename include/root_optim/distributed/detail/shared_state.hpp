// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The state of an optimizer whose parameters ranks share: what each keeps of it, and all of it on one rank.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/core/state_key.hpp>
#include <root_optim/distributed/detail/agreement.hpp>
#include <root_optim/distributed/detail/collectives.hpp>
#include <root_optim/distributed/detail/partition.hpp>
#include <root_optim/distributed/detail/state_part.hpp>
#include <root_optim/optimizer/detail/group_options.hpp>
#include <root_optim/optimizer/detail/next_state.hpp>  // slot_shape
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/parameters/layout.hpp>
#include <root_optim/parameters/param_state.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Keeps of the state of all parameters what this rank owns.
inline void keep_own(const Partition& partition, const Groups& groups, StateMap& states) {
  for (const Piece& piece : partition.pieces) {
    const auto found = states.find(state_key(piece.whole));
    if (found == states.end() || !partition.owns(piece)) continue;
    const auto* whole = dynamic_cast<const ParamState*>(found->second.get());
    if (whole == nullptr) continue;
    auto state = std::make_unique<ParamState>();
    state->step(whole->step());
    for (const ParamState::Slot& slot : ParamState::slot_list()) {
      const at::Tensor& tensor = whole->*slot.tensor;
      if (!tensor.defined()) continue;
      if (slot.kind == ParamState::Kind::Count) (*state).*slot.tensor = tensor.clone();
      if (tensor.sizes() != piece.whole.sizes()) continue;
      (*state).*slot.tensor = piece.of(tensor).clone(at::MemoryFormat::Contiguous);
    }
    states[state_key(piece.tensor)] = std::move(state);
  }
  for (size_t g = 0; g < groups.size(); ++g) {
    for (size_t i = 0; i < groups[g].params().size(); ++i) {
      if (!partition.owns(g, i)) states.erase(state_key(groups[g].params()[i]));
    }
  }
}

/// The state of each part that this rank keeps; null for other ranks' parts, and for those without state.
template <class Options>
std::vector<const ParamState*> kept_states(const std::vector<StatePart>& parts,
                                           const Groups& groups, const StateMap& states,
                                           int64_t rank) {
  std::vector<const ParamState*> kept(parts.size());
  for (size_t p = 0; p < parts.size(); ++p) {
    const StatePart& part = parts[p];
    if (part.owner != rank) continue;
    kept[p] = find_state(states, part.tensor, group_options<Options>(groups, part.group).layout(),
                         describe_part<Options>(groups, part));
  }
  return kept;
}

/// Of each of these states its steps, and which slots it has; zeros for none.
inline at::Tensor counts_of(const std::vector<const ParamState*>& kept) {
  const auto& list = ParamState::slot_list();
  const at::Tensor counts = at::zeros({static_cast<int64_t>(kept.size()), 2}, at::kLong);
  for (size_t p = 0; p < kept.size(); ++p) {
    if (kept[p] == nullptr) continue;
    auto* mine = counts.data_ptr<int64_t>() + 2 * p;
    mine[0] = kept[p]->step();
    for (size_t s = 0; s < list.size(); ++s) {
      if ((kept[p]->*list[s].tensor).defined()) mine[1] |= int64_t{1} << s;
    }
  }
  return counts;
}

/// A slot of a part on its way to the rank where state comes together.
struct SlotMessage {
  int64_t owner;
  at::Tensor tensor;
  int tag;
};

/// What this rank sends, or receives, with memory for it.
/// @param counts those of all ranks
/// @param to the rank where state comes together
/// @param whole it, there; elsewhere nothing
template <class Options>
std::vector<SlotMessage> slot_messages(const std::vector<StatePart>& parts,
                                       const std::vector<const ParamState*>& kept,
                                       const at::Tensor& counts, const Groups& groups, int64_t to,
                                       std::optional<StateMap>& whole) {
  const auto& list = ParamState::slot_list();
  std::vector<SlotMessage> messages;
  for (size_t p = 0; p < parts.size(); ++p) {
    const StatePart& part = parts[p];
    const int64_t steps = counts.data_ptr<int64_t>()[2 * p],
                  has = counts.data_ptr<int64_t>()[2 * p + 1];
    if (steps == 0) continue;
    ParamState* state = nullptr;  // where it comes together
    if (whole) {
      auto& entry = (*whole)[state_key(part.parameter)];
      if (!entry) entry = std::make_unique<ParamState>();
      state = static_cast<ParamState*>(entry.get());
      state->step(steps);
    }
    const MatrixLayout& layout = group_options<Options>(groups, part.group).layout();
    for (size_t s = 0; s < list.size(); ++s) {
      const bool is_count = list[s].kind == ParamState::Kind::Count;
      if ((has >> s & 1) == 0 || (is_count && part.first > 0)) continue;  // as the first one's
      const at::ScalarType dtype = is_count ? at::kLong : state_dtype(part.parameter);
      at::Tensor own;
      if (kept[p] != nullptr) {  // as the receiver expects it
        own = (kept[p]->*list[s].tensor).to(part.parameter.device(), dtype).contiguous();
      }
      at::Tensor tensor = own;
      if (state != nullptr) {
        at::Tensor& held = state->*list[s].tensor;
        if (part.is_whole()) held = own;
        if (!held.defined()) {
          held = at::empty(slot_shape(list[s].kind, part.parameter, layout),
                           part.parameter.options().dtype(dtype).requires_grad(false));
        }
        tensor = part.is_whole() || is_count ? held : held.narrow(0, part.first, part.rows);
        if (own.defined() && !part.is_whole()) tensor.copy_(own);
      }
      if (tensor.defined() && part.owner != to) {
        messages.push_back({part.owner, tensor, static_cast<int>(p * list.size() + s)});
      }
    }
  }
  return messages;
}

/// The state of all parameters on one rank. Collective.
/// @param taken steps, as many on all ranks
/// @param to the rank that gets it
/// @return it there; nothing on the others
template <class Options>
std::optional<StateMap> consolidated(Collectives& ranks, const Partition& partition,
                                     const Groups& groups, const StateMap& states, int64_t taken,
                                     int64_t to) {
  ranks.at("consolidate");
  std::vector<StatePart> parts;
  std::vector<const ParamState*> kept;
  at::Tensor counts;  // from the owner of each part
  std::string error;
  attempt(error, [&] {
    TORCH_CHECK(to >= 0 && to < ranks.size(), "root_optim::consolidate: expected a rank below ",
                ranks.size(), ", got ", to);
    parts = parts_of(groups, &partition);
    kept = kept_states<Options>(parts, groups, states, ranks.rank());
    int64_t seen = 0;
    for (const auto& group : groups) {
      for (const at::Tensor& parameter : group.params()) seen += parameter.numel() > 0 ? 1 : 0;
    }
    TORCH_CHECK(seen == partition.params, "root_optim::consolidate: expected the ",
                partition.params, " parameters that `distribute` saw, got ", seen);
    counts = counts_of(kept);
  });
  agree(ranks, error, {{"numbers of steps", taken}, {"targets of `consolidate`", to}});
  Started summed = ranks.all_reduce(counts, c10d::ReduceOp::SUM);
  ranks.wait(summed);

  // Memory for what travels, before any rank waits for another.
  std::vector<SlotMessage> messages;
  std::optional<StateMap> whole;
  attempt(error, [&] {
    if (to == ranks.rank()) whole.emplace();
    messages = slot_messages<Options>(parts, kept, counts, groups, to, whole);
  });
  agree(ranks, error);
  for (const SlotMessage& message : messages) {
    Started started = to == ranks.rank() ? ranks.receive(message.tensor, message.owner, message.tag)
                                         : ranks.send(message.tensor, to, message.tag);
    ranks.wait(started);
  }
  return whole;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
