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

/// The state of all parameters on one rank. Collective.
/// @param taken steps, as many on all ranks
/// @param to the rank that gets it
/// @return it there; nothing on the others
template <class Options>
std::optional<StateMap> consolidated(Collectives& ranks, const Partition& partition,
                                     const Groups& groups, const StateMap& states, int64_t taken,
                                     int64_t to) {
  ranks.at("consolidate");
  const auto& list = ParamState::slot_list();
  struct Param {
    at::Tensor parameter;
    const MatrixLayout* layout;
    int64_t owner;
    const ParamState* state;       // here
    const Piece* piece = nullptr;  // of the parameter, if it is cut
  };
  std::vector<Param> params;
  int64_t seen = 0;
  std::string error;
  // Of every parameter, from its owner: its steps, and which slots it has.
  at::Tensor counts;
  attempt(error, [&] {
    TORCH_CHECK(to >= 0 && to < ranks.size(), "root_optim::consolidate: expected a rank below ",
                ranks.size(), ", got ", to);
    for (size_t g = 0; g < groups.size(); ++g) {
      const Options& options = group_options<Options>(groups, g);
      for (size_t i = 0; i < groups[g].params().size(); ++i) {
        const at::Tensor& parameter = groups[g].params()[i];
        if (parameter.numel() == 0) continue;
        ++seen;
        const auto add = [&, index = i, group = g](const at::Tensor& kept, int64_t by,
                                                   const Piece* piece) {
          const ParamState* state =
              by == ranks.rank() ? find_state(states, kept, options.layout(),
                                              describe(parameter, group, index, options.names()))
                                 : nullptr;
          params.push_back({parameter, &options.layout(), by, state, piece});
        };
        if (partition.owner_of(g, i) != Partition::nobody)
          add(parameter, partition.owner_of(g, i), nullptr);
        for (const Piece& piece : partition.pieces) {
          if (piece.whole.is_same(parameter)) add(piece.tensor, piece.owner, &piece);
        }
      }
    }
    TORCH_CHECK(seen == partition.params, "root_optim::consolidate: expected the ",
                partition.params, " parameters that `distribute` saw, got ", seen);
    counts = at::zeros({static_cast<int64_t>(params.size()), 2}, at::kLong);
    for (size_t p = 0; p < params.size(); ++p) {
      if (params[p].state == nullptr) continue;
      auto* mine = counts.data_ptr<int64_t>() + 2 * p;
      mine[0] = params[p].state->step();
      for (size_t s = 0; s < list.size(); ++s) {
        if ((params[p].state->*list[s].tensor).defined()) mine[1] |= int64_t{1} << s;
      }
    }
  });
  agree(ranks, error, {{"numbers of steps", taken}, {"targets of `consolidate`", to}});
  Started summed = ranks.all_reduce(counts, c10d::ReduceOp::SUM);
  ranks.wait(summed);

  // What travels, with memory for it, before any rank waits for another.
  struct Message {
    int64_t owner;
    at::Tensor tensor;
    int tag;
  };
  std::vector<Message> messages;
  std::optional<StateMap> whole;
  attempt(error, [&] {
    if (to == ranks.rank()) whole.emplace();
    for (size_t p = 0; p < params.size(); ++p) {
      const Param& param = params[p];
      const int64_t steps = counts.data_ptr<int64_t>()[2 * p],
                    has = counts.data_ptr<int64_t>()[2 * p + 1];
      if (steps == 0) continue;
      ParamState* state = nullptr;  // where it comes together
      if (whole) {
        auto& entry = (*whole)[state_key(param.parameter)];
        if (!entry) entry = std::make_unique<ParamState>();
        state = static_cast<ParamState*>(entry.get());
        state->step(steps);
      }
      for (size_t s = 0; s < list.size(); ++s) {
        if ((has >> s & 1) == 0) continue;
        const bool count = list[s].kind == ParamState::Kind::Count;
        if (count && param.piece != nullptr && param.piece->first > 0)
          continue;  // as the first one's
        const at::ScalarType dtype = count ? at::kLong : state_dtype(param.parameter);
        at::Tensor tensor;
        if (param.owner == ranks.rank()) {  // as the receiver expects it
          tensor = (param.state->*list[s].tensor).to(param.parameter.device(), dtype).contiguous();
        }
        if (state != nullptr) {
          at::Tensor& held = (*state).*list[s].tensor;
          if (tensor.defined() && param.piece == nullptr) {
            held = tensor;
          } else {
            if (!held.defined()) {
              held = at::empty(slot_shape(list[s].kind, param.parameter, *param.layout),
                               param.parameter.options().dtype(dtype).requires_grad(false));
            }
            const at::Tensor place = count || param.piece == nullptr ? held : param.piece->of(held);
            if (tensor.defined()) place.copy_(tensor);
            tensor = place;
          }
        }
        if (tensor.defined() && param.owner != to) {
          messages.push_back({param.owner, tensor, static_cast<int>(p * list.size() + s)});
        }
      }
    }
  });
  agree(ranks, error);
  for (const Message& message : messages) {
    Started started = to == ranks.rank() ? ranks.receive(message.tensor, message.owner, message.tag)
                                         : ranks.send(message.tensor, to, message.tag);
    ranks.wait(started);
  }
  return whole;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
