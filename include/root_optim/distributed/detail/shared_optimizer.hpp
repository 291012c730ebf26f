// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The step of an optimizer whose parameters ranks share: in which order they agree, compute, send and commit.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/checkpoint/detail/checksum.hpp>
#include <root_optim/core/state_key.hpp>
#include <root_optim/distributed/detail/agreement.hpp>
#include <root_optim/distributed/detail/bucket_exchange.hpp>
#include <root_optim/distributed/detail/collectives.hpp>
#include <root_optim/distributed/detail/description.hpp>
#include <root_optim/distributed/detail/gradient_agreement.hpp>
#include <root_optim/distributed/detail/own_part.hpp>
#include <root_optim/distributed/detail/ownership.hpp>
#include <root_optim/distributed/detail/partition.hpp>
#include <root_optim/distributed/detail/shard_exchange.hpp>
#include <root_optim/distributed/detail/shards.hpp>
#include <root_optim/distributed/detail/shared_gate.hpp>
#include <root_optim/distributed/detail/shared_state.hpp>
#include <root_optim/distributed/options.hpp>
#include <root_optim/kernels/workspace.hpp>
#include <root_optim/optimizer/detail/gate.hpp>
#include <root_optim/optimizer/detail/group_options.hpp>
#include <root_optim/optimizer/detail/pending.hpp>
#include <root_optim/optimizer/detail/plan.hpp>
#include <root_optim/optimizer/detail/ranks.hpp>
#include <root_optim/optimizer/optimizer.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/stages/norm_gate.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// What `distribute` gives an optimizer.
///
/// A step: all ranks agree on what steps; AdamW's flags, which decide for a whole group, are joined; then
/// bucket by bucket every rank computes what it owns and sends the values. While a bucket travels, the next
/// one is computed. A bucket is committed when every rank has said that it computed its part, and all parts
/// are here.
template <class Options>
class SharedOptimizer : public Ranks {
 public:
  /// Collective. @throws c10::Error on every rank if they do not agree.
  SharedOptimizer(GroupPtr group, const DistributedOptions& options, const Groups& groups,
                  StateMap& states, const GateState& gate, std::string error)
      : ranks_(std::move(group), options.timeout()) {
    shards_ = Shards::gathered<Options>(ranks_, options.sharded(), groups, states, error);
    const Groups& wholes = shards_.wholes(groups);
    std::string description;
    attempt(error, [&] {
      options.validate();
      description = description_of<Options>(wholes, states, gate, options);
      partition_ = partition_of<Options>(wholes, ranks_.rank(), ranks_.size(),
                                         options.bucket_bytes(), shards_);
      add_sharded(partition_, wholes, shards_);
      refuse_alone(groups);
    });
    Checksum sum;
    sum.add(description);
    // The texts themselves travel only if they differ.
    agree(ranks_, error);
    bool equal = true;
    for (const auto& one : ranks_.gather_numbers({sum.value()})) equal &= one[0] == sum.value();
    if (!equal) check_descriptions(ranks_.gather_texts(description));
    keep_own(partition_, wholes, states);
    // No rank has all of a sharded gradient that is cut.
    for (const Piece& piece : partition_.pieces) gradients_in_parts_ |= is_stand_in(piece.whole);
  }

  at::Tensor step(const Groups& groups, StateMap& states, GateState& gate,
                  Workspace* workspace) override {
    at::Tensor skipped;
    in_step([&] {
      ranks_.at("step " + std::to_string(++steps_));
      whole_.reset();
      GatheredShards gathered(partition_, shards_);
      if (!shards_.empty()) {
        gathered.gather(ranks_, agree_on_shards<Options>(ranks_, shards_, groups));
      }
      skipped = shards_.shard_of(step_together(shards_.wholes(groups), states, gate, workspace));
    });
    return skipped;
  }

  const Groups& whole_groups(const Groups& groups) override { return shards_.wholes(groups); }

  const StateMap& whole_state() const override {
    TORCH_CHECK(
        whole_,
        "root_optim::save: expected `consolidate` on all ranks since the last step, to this "
        "rank (",
        ranks_.rank(), "), got a rank that has a part of the state only");
    return *whole_;
  }

  void loaded(const Groups& groups, StateMap& states, const GateState& gate) override {
    const Groups& wholes = shards_.wholes(groups);
    loaded(checksum_of_state(wholes, states, gate));
    keep_own(partition_, wholes, states);
  }

  /// Called after a checkpoint was loaded of which every rank has its part.
  /// @param checksum of the checkpoint
  void loaded(int64_t checksum) {
    loaded_ = checksum;
    steps_ = 0;
    whole_.reset();
  }

  void forget(const at::Tensor& parameter, StateMap& states) override {
    const at::Tensor& whole = shards_.whole_of(parameter);
    states.erase(state_key(whole));
    for (const Piece& piece : partition_.pieces) {
      if (piece.whole.is_same(whole)) states.erase(state_key(piece.tensor));
    }
  }

  const at::Tensor& kept_as(const at::Tensor& parameter) const override {
    const at::Tensor& whole = shards_.whole_of(parameter);
    for (const Piece& piece : partition_.pieces) {
      if (partition_.owns(piece) && piece.whole.is_same(whole)) return piece.tensor;
    }
    return whole;
  }

  void release() override {
    whole_.reset();
    room_ = {};
  }

  /// Collective: brings the state of all parameters to one rank.
  void consolidate(const Groups& groups, const StateMap& states, int64_t to) {
    in_step([&] {
      whole_.reset();
      whole_ =
          consolidated<Options>(ranks_, partition_, shards_.wholes(groups), states, steps_, to);
    });
  }

  /// f(ranks), which is collective, by the name `what`.
  template <class F>
  void together(const char* what, const F& f) {
    in_step([&] {
      ranks_.at(what);
      f(ranks_);
    });
  }

  /// Steps since `distribute` or loading.
  int64_t steps() const { return steps_; }
  const GroupPtr& group() const { return ranks_.group(); }
  /// Who owns what.
  const Partition& partition() const { return partition_; }
  /// From now on owners alone have the gradients of a step. On all ranks alike.
  void gradients_at_owners() { gradients_in_parts_ = true; }
  const Shards& shards() const { return shards_; }

 private:
  using Planned = PlannedParam<Options>;

  template <class F>
  void in_step(const F& f) {
    detail::in_step(ranks_, "distributed", "the ranks may differ by a bucket now: ", f);
  }

  at::Tensor step_together(const Groups& groups, StateMap& states, GateState& gate,
                           Workspace* workspace) {
    std::vector<Planned> planned;
    int64_t options = 0;
    std::string error;
    attempt(error, [&] {
      refuse_alone(groups);
      check_gate<Options>(groups);
      planned = planned_params<Options>(
          groups, states, [this](size_t g, size_t i) { return partition_.owns(g, i); });
      TORCH_CHECK(checksum_of_structure(planned) == partition_.structure,
                  "root_optim::step: expected the parameters, rules, layouts and batch_bytes that "
                  "`distribute` saw, got others");
      options = checksum_of_options<Options>(groups);
      add_pieces(partition_, planned, states);
      make_room(room_, partition_, planned);
    });
    agree_on_step(planned, options, error);

    // From here on, errors are told with the bucket.
    OwnPart<Options> own;
    attempt(error, [&] { own.plan(partition_, planned, states, workspace); });
    const std::vector<at::Tensor> magnitudes =
        gradients_in_parts_ ? magnitudes_of_wholes(ranks_, partition_, planned, error)
                            : std::vector<at::Tensor>();
    join_flags(ranks_, partition_, planned, magnitudes, own, error);
    std::optional<GatedStep> gated =
        gated_together(ranks_, partition_, planned, gradients_in_parts_, gate, workspace, error);
    const at::Tensor weight = gated ? gated->weight : at::Tensor();

    at::Tensor skipped;
    std::optional<Flight> before;
    size_t flights = 0;
    for (size_t b = 0; b < partition_.buckets.size(); ++b) {
      const std::vector<Item>& bucket = partition_.buckets[b];
      if (!bucket_steps(planned, bucket)) continue;
      ranks_.at("step " + std::to_string(steps_) + ", bucket " + std::to_string(b));
      std::vector<Pending> computed;
      attempt(error, [&] { own.compute(bucket, weight, workspace, computed); });
      Flight flight = send_off(ranks_, partition_, planned, bucket, std::move(computed), room_,
                               flights++ % 2, steps_, error);
      for (const Pending& pending : flight.own) {
        if (!skipped.defined()) skipped = pending.skipped;
      }
      if (before) {
        try {
          land(ranks_, *before);
        } catch (...) {
          drain(ranks_, flight);
          throw;
        }
      }
      before.emplace(std::move(flight));
    }
    if (before) {
      land(ranks_, *before);
      gate = gated ? std::move(gated->state) : GateState();
    }
    for (const Piece& piece : partition_.pieces) {
      if (skipped.defined() && piece.tensor.is_same(skipped)) skipped = piece.whole;
    }
    return skipped;
  }

  /// Options that one process alone can honour.
  static void refuse_alone(const Groups& groups) {
    for (size_t g = 0; g < groups.size(); ++g) refuse_alone(group_options<Options>(groups, g), g);
  }
  static void refuse_alone(const Options& options, size_t group) {
    TORCH_CHECK(!options.capturable(),
                "root_optim::distributed: expected steps that need not be captured, got "
                "`capturable` in group ",
                group, ": ranks wait for each other on the host");
  }

  /// @throws c10::Error on every rank; nothing has changed then.
  void agree_on_step(const std::vector<Planned>& planned, int64_t options,
                     const std::string& error) {
    std::vector<Agreed> agreed{{"numbers of steps since `distribute` or loading", steps_},
                               {"options", options},
                               {"checkpoints to have been loaded", loaded_}};
    const auto params = static_cast<size_t>(partition_.params);
    const auto steps = [&](size_t i) { return i < planned.size() && planned[i].steps; };
    Agreement agreement = start_agreement(ranks_, error, agreed, presence_words(params, steps));
    const std::vector<std::vector<int64_t>> all = finish_agreement(ranks_, agreement);
    for (size_t i = 0; i < params; ++i) {
      const auto has = [&](size_t rank) { return is_present(all[rank], 1 + agreed.size(), i); };
      for (size_t r = 1; r < all.size(); ++r) {
        if (has(r) == has(0)) continue;
        const Planned& item = planned[i];
        refuse_on_all(c10::str(
            "root_optim::step: expected a gradient on all ranks or on none, got one on rank ",
            has(0) ? size_t{0} : r, ", but not on rank ", has(0) ? r : size_t{0}, ", of ",
            describe(item.parameter, item.group, item.index, item.options->names()),
            ": reduce gradients with GradientReducer"));
      }
    }
  }

  Collectives ranks_;
  Shards shards_;
  Partition partition_;
  Room room_;
  int64_t steps_ = 0;                // since `distribute`, or loading
  int64_t loaded_ = 0;               // the checksum of what was loaded
  bool gradients_in_parts_ = false;  // of some parameters owners have their rows alone
  std::optional<StateMap> whole_;
};

/// What `distribute` gave the optimizer; null without it.
template <class F, class O>
SharedOptimizer<OrthogonalizedOptions<F, O>>* shared_of(OrthogonalizedOptimizer<F, O>& optimizer) {
  return static_cast<SharedOptimizer<OrthogonalizedOptions<F, O>>*>(
      RanksAccess::ranks(optimizer).get());
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
