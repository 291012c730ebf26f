// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What ranks keep of the state of parameters, and how it comes together from other parts.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/ArrayRef.h>   // IntArrayRef
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <root_optim/distributed/detail/partition.hpp>
#include <root_optim/optimizer/detail/group_options.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>  // describe
#include <root_optim/parameters/param_state.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Rows of a parameter whose state one rank keeps: all of them, or some.
struct StatePart {
  size_t group, index;  ///< of the parameter
  int64_t position;     ///< of it among the parameters of all groups
  int64_t first, rows;
  int64_t owner;
  at::Tensor parameter;
  at::Tensor tensor;  ///< under which the state is kept: the parameter, or its rows

  bool is_whole() const { return tensor.is_same(parameter); }
};

/// `describe` of a part's parameter.
template <class Options>
std::string describe_part(const Groups& groups, const StatePart& part) {
  return describe(part.parameter, part.group, part.index,
                  group_options<Options>(groups, part.group).names());
}

/// A number is one row.
ROOT_OPTIM_COLD inline int64_t rows_of(c10::IntArrayRef shape) {
  return shape.empty() ? 1 : shape.front();
}

/// What all ranks keep; parameters without entries have no state.
/// @param partition nullptr: one process keeps everything
ROOT_OPTIM_COLD inline std::vector<StatePart> parts_of(const Groups& groups,
                                                       const Partition* partition) {
  std::vector<StatePart> parts;
  int64_t position = 0;
  for (size_t g = 0; g < groups.size(); ++g) {
    for (size_t i = 0; i < groups[g].params().size(); ++i, ++position) {
      const at::Tensor& whole = groups[g].params()[i];
      if (whole.numel() == 0) continue;
      const int64_t owner = partition == nullptr ? 0 : partition->owner_of(g, i);
      if (owner != Partition::nobody) {
        parts.push_back({g, i, position, 0, rows_of(whole.sizes()), owner, whole, whole});
        continue;
      }
      for (const Piece& piece : partition->pieces) {
        if (!piece.whole.is_same(whole)) continue;
        parts.push_back(
            {g, i, position, piece.first, piece.rows, piece.owner, whole, piece.tensor});
      }
    }
  }
  return parts;
}

/// State of a part, from that of other parts of its parameter.
class GatheredState {
 public:
  /// @param part whose state this becomes
  explicit GatheredState(const StatePart& part) : first_(part.first), rows_(part.rows) {}

  /// Whether any of these rows is among those of the part.
  bool needs(int64_t first, int64_t rows) const {
    return first < first_ + rows_ && first_ < first + rows;
  }

  /// Takes the rows that it needs of the state of `rows` rows. Of equal rows it takes the tensors themselves.
  /// @throws c10::Error if that is other state than what was taken before.
  ROOT_OPTIM_COLD void add(const ParamState& from, int64_t first, int64_t rows,
                           const std::string& where) {
    const int64_t begin = (std::max)(first, first_), end = (std::min)(first + rows, first_ + rows_);
    if (begin >= end) return;
    const bool begins = taken_ == 0;
    taken_ += end - begin;
    if (begin == first && end == first + rows && begin == first_ && end == first_ + rows_) {
      state_ = from;
      return;
    }
    if (begins) state_.step(from.step());
    TORCH_CHECK(state_.step() == from.step(), "root_optim::load_sharded: expected all rows of ",
                where, " after ", state_.step(), " steps, got some after ", from.step());
    for (const ParamState::Slot& slot : ParamState::slot_list()) {
      const at::Tensor& tensor = from.*slot.tensor;
      at::Tensor& held = state_.*slot.tensor;
      TORCH_CHECK(begins || tensor.defined() == held.defined(),
                  "root_optim::load_sharded: expected ", slot.name, " for all rows of ", where,
                  " or for none, got it for some");
      if (!tensor.defined()) continue;
      if (slot.kind == ParamState::Kind::Count) {  // the same for all rows
        held = tensor;
        continue;
      }
      TORCH_CHECK(tensor.dim() > 0 && tensor.size(0) == rows, "root_optim::load_sharded: expected ",
                  slot.name, " of ", rows, " rows for ", where, ", got ", tensor.sizes());
      if (!held.defined()) {
        std::vector<int64_t> shape = tensor.sizes().vec();
        shape.front() = rows_;
        held = at::empty(shape, tensor.options());
      }
      held.narrow(0, begin - first_, end - begin)
          .copy_(tensor.narrow(0, begin - first, end - begin));
    }
  }

  /// All of it.
  /// @throws c10::Error if rows are missing, or came twice.
  ROOT_OPTIM_COLD const ParamState& state(const std::string& where) const {
    TORCH_CHECK(taken_ == rows_, "root_optim::load_sharded: expected the state of ", rows_,
                " rows of ", where, ", got that of ", taken_);
    return state_;
  }

 private:
  int64_t first_, rows_, taken_ = 0;
  ParamState state_;
};

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
