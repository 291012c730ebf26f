// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The step of an optimizer whose parameters ranks share, and what becomes of its state.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>  // NoGradGuard
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <numeric>  // gcd
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/core/state_key.hpp>
#include <root_optim/distributed/detail/agreement.hpp>
#include <root_optim/distributed/detail/collectives.hpp>
#include <root_optim/distributed/detail/description.hpp>
#include <root_optim/distributed/detail/ownership.hpp>
#include <root_optim/distributed/detail/step_adamw.hpp>
#include <root_optim/distributed/options.hpp>
#include <root_optim/kernels/workspace.hpp>
#include <root_optim/optimizer/detail/batch.hpp>
#include <root_optim/optimizer/detail/commit.hpp>
#include <root_optim/optimizer/detail/next_state.hpp>  // slot_shape
#include <root_optim/optimizer/detail/pending.hpp>
#include <root_optim/optimizer/detail/plan.hpp>
#include <root_optim/optimizer/detail/ranks.hpp>
#include <root_optim/optimizer/detail/step_adamw.hpp>
#include <root_optim/optimizer/detail/step_matrices.hpp>
#include <root_optim/optimizer/options.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/parameters/layout.hpp>
#include <root_optim/parameters/param_state.hpp>
#include <root_optim/parameters/rule.hpp>
#include <root_optim/stages/detail/fused_adamw.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Between how many rows an AdamW tensor may be cut: where 64 numbers end, which the kernel takes at once.
/// 0: it may not, because it is little, because the kernel does not take it (operators would treat the ends of
/// parts in another way), or because the filter has to see all of it.
template <class Options>
int64_t rows_at_once(const PlannedParam<Options>& item) {
  constexpr int64_t numbers = 64, least = 4096;
  const at::Tensor& x = item.parameter;
  if (item.rule != Rule::AdamW || x.dim() == 0 || x.numel() < least ||
      x.scalar_type() != state_dtype(x) || !fused_adamw_takes(x, x, x) ||
      item.options->filter_place() == FilterPlace::AllGradients) {
    return 0;
  }
  return numbers / std::gcd(numbers, x.numel() / x.size(0));
}

/// The units of a step, batch by batch. Depends on nothing that differs between ranks.
template <class Options>
std::vector<Unit> units_of(const std::vector<PlannedParam<Options>>& planned) {
  std::vector<Unit> units;
  const std::vector<std::vector<size_t>> batches = batches_of(planned);
  for (size_t b = 0; b < batches.size(); ++b) {
    const bool adamw = planned[batches[b].front()].rule == Rule::AdamW;
    for (const size_t i : batches[b]) {
      const PlannedParam<Options>& item = planned[i];
      const auto elements = static_cast<double>(item.parameter.numel());
      const auto state = item.parameter.numel() *
                         static_cast<int64_t>(c10::elementSize(state_dtype(item.parameter)));
      if (adamw || i == batches[b].front()) units.push_back({{}, b, adamw, 0, 0, 0});
      Unit& unit = units.back();
      unit.rows_at_once = rows_at_once(item);
      unit.rows = unit.rows_at_once > 0 ? item.parameter.size(0) : 0;
      unit.members.push_back(i);
      unit.state_bytes += adamw ? 2 * state : state;
      unit.value_bytes += static_cast<int64_t>(item.parameter.nbytes());
      if (adamw) {
        unit.cost += adamw_cost(elements);
        continue;
      }
      for (const MatrixShape matrix :
           matrix_shapes(item.parameter.sizes(), item.options->layout())) {
        const auto rows = static_cast<double>(matrix.rows), cols = static_cast<double>(matrix.cols);
        const double count = item.options->layout().batch() ? elements / (rows * cols) : 1;
        unit.cost += matrices_cost(count, rows, cols);
      }
    }
  }
  return units;
}

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
                  StateMap& states, std::string error)
      : ranks_(std::move(group), options.timeout()), bucket_bytes_(options.bucket_bytes()) {
    std::string description;
    attempt(error, [&] {
      options.validate();
      description = description_of<Options>(groups, states, options);
      share(groups);
    });
    Checksum sum;
    sum.add(description);
    // The texts themselves travel only if they differ.
    agree(ranks_, error);
    bool equal = true;
    for (const auto& one : ranks_.gather_numbers({sum.value()})) equal &= one[0] == sum.value();
    if (!equal) check_descriptions(ranks_.gather_texts(description));
    keep_own(groups, states);
  }

  at::Tensor step(const Groups& groups, StateMap& states, Workspace* workspace) override {
    check_not_lost();
    at::Tensor skipped;
    in_step([&] { skipped = step_together(groups, states, workspace); });
    return skipped;
  }

  const StateMap& whole_state() const override {
    TORCH_CHECK(
        whole_,
        "root_optim::save: expected `consolidate` on all ranks since the last step, to this "
        "rank (",
        ranks_.rank(), "), got a rank that has a part of the state only");
    return *whole_;
  }

  void loaded(const Groups& groups, StateMap& states) override {
    loaded_ = checksum_of_state(groups, states);
    steps_ = 0;
    whole_.reset();
    keep_own(groups, states);
  }

  void forget(const at::Tensor& parameter, StateMap& states) override {
    for (const Piece& piece : pieces_) {
      if (piece.whole.is_same(parameter)) states.erase(state_key(piece.tensor));
    }
  }

  const at::Tensor& kept_as(const at::Tensor& parameter) const override {
    for (const Piece& piece : pieces_) {
      if (piece.owner == ranks_.rank() && piece.whole.is_same(parameter)) return piece.tensor;
    }
    return parameter;
  }

  void release() override {
    whole_.reset();
    room_.clear();
  }

  /// Collective: brings the state of all parameters to one rank.
  void consolidate(const Groups& groups, const StateMap& states, int64_t to);

  int64_t rank() const { return ranks_.rank(); }
  /// Who owns what, in the order in which it is stepped.
  const std::vector<std::vector<Item>>& buckets() const { return buckets_; }

 private:
  using Planned = PlannedParam<Options>;
  void consolidate_together(const Groups& groups, const StateMap& states, int64_t to);

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
      tensor.set_data(of(whole.detach()));
      tensor.mutable_grad() = whole.grad().defined() ? of(whole.grad()) : at::Tensor();
    }
  };

  /// A bucket on its way.
  struct Flight {
    Agreement agreement;
    std::vector<Started> values;
    std::vector<Pending> own;
    Commit received;
    std::vector<at::Tensor> cut;  ///< parameters of which it has pieces
  };

  /// Where an item's values lie in its bucket: 16 bytes are a multiple of every dtype's size.
  static int64_t aligned(int64_t bytes) { return (bytes + 15) / 16 * 16; }

  void check_not_lost() const {
    TORCH_CHECK(ranks_.lost().empty(),
                "root_optim::distributed: expected ranks in step, got a failure in ", ranks_.lost(),
                "; the ranks may differ by a bucket now: load a checkpoint in new processes");
  }

  /// f(), after whose errors the ranks are in step only if every one has thrown it.
  template <class F>
  void in_step(const F& f) {
    try {
      f();
    } catch (const AgreedError&) {
      throw;
    } catch (const std::exception& error) {
      ranks_.lose(error.what());
      throw;
    }
  }

  at::Tensor step_together(const Groups& groups, StateMap& states, Workspace* workspace) {
    ranks_.at("step " + std::to_string(++steps_));
    whole_.reset();
    std::vector<Planned> planned;
    int64_t options = 0;
    std::string error;
    attempt(error, [&] {
      for (size_t g = 0; g < groups.size(); ++g) refuse_alone(group_options<Options>(groups, g), g);
      planned = planned_params<Options>(
          groups, states, [this](size_t g, size_t i) { return owner(g, i) == ranks_.rank(); });
      TORCH_CHECK(structure_of(planned) == structure_,
                  "root_optim::step: expected the parameters, rules, layouts and batch_bytes that "
                  "`distribute` saw, got others");
      options = options_of<Options>(groups);
      add_pieces(planned, states);
      make_room(planned);
    });
    agree_on_step(planned, options, error);

    // From here on, errors are told with the bucket.
    std::map<const Item*, Batch<Options>> own;
    std::map<const Item*, AdamWParts> parts;
    attempt(error, [&] {
      std::vector<Batch<Options>> batches;
      for_each_own_item([&](const Item& item) {
        Batch<Options> batch = make_batch(planned, item.members, states);
        if (batch.parameters.empty()) return;
        batches.push_back(batch);
        own.emplace(&item, std::move(batch));
      });
      workspace->set_limit(workspace_bytes(batches) + bytes_in_flight());
    });
    join_flags(planned, own, parts, error);

    at::Tensor skipped;
    std::optional<Flight> before;
    size_t flights = 0;
    for (size_t b = 0; b < buckets_.size(); ++b) {
      if (!bucket_steps(planned, buckets_[b])) continue;
      ranks_.at("step " + std::to_string(steps_) + ", bucket " + std::to_string(b));
      Flight flight = send_off(planned, b, flights++ % 2, own, parts, workspace, error);
      for (const Pending& pending : flight.own) {
        if (!skipped.defined()) skipped = pending.skipped;
      }
      if (before) {
        try {
          land(*before);
        } catch (...) {
          drain(flight);
          throw;
        }
      }
      before.emplace(std::move(flight));
    }
    if (before) land(*before);
    for (const Piece& piece : pieces_) {
      if (skipped.defined() && piece.tensor.is_same(skipped)) skipped = piece.whole;
    }
    return skipped;
  }

  /// Options that one process alone can honour.
  static void refuse_alone(const Options& options, size_t group) {
    TORCH_CHECK(!options.capturable(),
                "root_optim::distributed: expected steps that need not be captured, got "
                "`capturable` in group ",
                group, ": ranks wait for each other on the host");
    TORCH_CHECK(options.gate() == 0, "root_optim::distributed: expected no `gate`, got ",
                options.gate(), " in group ", group, ": no rank filters all gradients of a step");
    TORCH_CHECK(options.momentum_warmup() == 0,
                "root_optim::distributed: expected no `momentum_warmup`, got ",
                options.momentum_warmup(), " in group ", group,
                ": what steps together would depend on state that one rank has");
  }

  /// Decides who owns what.
  void share(const Groups& groups) {
    const StateMap none;
    const auto planned =
        planned_params<Options>(groups, none, [](size_t, size_t) { return false; });
    for (size_t g = 0; g < groups.size(); ++g) refuse_alone(group_options<Options>(groups, g), g);
    structure_ = structure_of(planned);
    params_ = static_cast<int64_t>(planned.size());
    owner_.clear();
    for (const auto& group : groups) owner_.emplace_back(group.params().size(), 0);
    constexpr int64_t least_bytes = int64_t{1} << 14;  // of a piece that fills a bucket
    const std::vector<Unit> whole = units_of(planned);
    std::vector<Unit> units;
    std::vector<int64_t> owner;
    for (const Share& share :
         shares_of(whole, ranks_.size(), (std::max)(bucket_bytes_, least_bytes))) {
      Unit unit = whole[share.unit];
      const bool is_piece = share.rows < unit.rows;
      for (const size_t i : unit.members) {
        owner_[planned[i].group][planned[i].index] = is_piece ? nobody : share.owner;
      }
      if (is_piece) {
        const size_t i = unit.members.front();
        pieces_.push_back({planned[i].parameter, i, share.owner, share.first, share.rows, {}});
        pieces_.back().tensor = pieces_.back().of(planned[i].parameter.detach());
        unit.members = {planned.size() + pieces_.size() - 1};
        unit.cost *= static_cast<double>(share.rows) / static_cast<double>(unit.rows);
        unit.state_bytes = unit.state_bytes / unit.rows * share.rows;
        unit.value_bytes = unit.value_bytes / unit.rows * share.rows;
      }
      units.push_back(std::move(unit));
      owner.push_back(share.owner);
    }
    buckets_ = buckets_of(items_of(units, owner, bucket_bytes_), ranks_.size(), bucket_bytes_);
  }

  /// Puts the pieces behind the parameters, with the state of those that are stepped here.
  void add_pieces(std::vector<Planned>& planned, const StateMap& states) {
    for (Piece& piece : pieces_) {
      Planned part = planned[piece.position];  // without state: nobody owns the whole
      piece.whole = part.parameter;
      piece.follow();
      part.parameter = piece.tensor;
      if (part.steps && piece.owner == ranks_.rank()) {
        const std::string where =
            describe(piece.whole, part.group, part.index, part.options->names());
        part.state = next_state(find_state(states, piece.tensor, part.options->layout(), where),
                                piece.tensor, part.rule, *part.options, where);
      }
      planned.push_back(std::move(part));
    }
  }

  /// Rank 0 for a parameter that `distribute` did not see: the step refuses it. `nobody` for one that is cut.
  int64_t owner(size_t group, size_t index) const {
    return group < owner_.size() && index < owner_[group].size() ? owner_[group][index] : 0;
  }

  void keep_own(const Groups& groups, StateMap& states) const {
    for (const Piece& piece : pieces_) {
      const auto found = states.find(state_key(piece.whole));
      if (found == states.end() || piece.owner != ranks_.rank()) continue;
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
        if (owner(g, i) != ranks_.rank()) states.erase(state_key(groups[g].params()[i]));
      }
    }
  }

  static bool item_steps(const std::vector<Planned>& planned, const Item& item) {
    return std::any_of(item.members.begin(), item.members.end(),
                       [&](size_t i) { return planned[i].steps; });
  }
  static bool bucket_steps(const std::vector<Planned>& planned, const std::vector<Item>& bucket) {
    return std::any_of(bucket.begin(), bucket.end(),
                       [&](const Item& item) { return item_steps(planned, item); });
  }

  template <class F>
  void for_each_own_item(const F& f) const {
    for (const std::vector<Item>& bucket : buckets_) {
      for (const Item& item : bucket) {
        if (item.owner == ranks_.rank()) f(item);
      }
    }
  }

  /// What the results of this rank's items in two buckets take at most.
  size_t bytes_in_flight() const {
    double most = 0;
    for (const std::vector<Item>& bucket : buckets_) {
      double bytes = 0;
      for (const Item& item : bucket) {
        if (item.owner == ranks_.rank()) bytes += static_cast<double>(item.bytes);
      }
      most = (std::max)(most, bytes);
    }
    return static_cast<size_t>(6 * most);  // values and two moments, twice
  }

  /// Takes the memory of two buckets before any rank depends on this one.
  void make_room(const std::vector<Planned>& planned) {
    std::map<std::string, std::pair<at::Device, int64_t>> most;  // a device's largest bucket
    for (const std::vector<Item>& bucket : buckets_) {
      std::map<std::string, int64_t> bytes;
      for (const Item& item : bucket) {
        for (const size_t i : item.members) {
          const at::Tensor& parameter = planned[i].parameter;
          int64_t& sum = bytes[parameter.device().str()];
          sum += aligned(static_cast<int64_t>(parameter.nbytes()));
          auto& largest =
              most.emplace(parameter.device().str(), std::pair(parameter.device(), int64_t{0}))
                  .first->second.second;
          largest = (std::max)(largest, sum);
        }
      }
    }
    for (const auto& [name, room] : most) {
      std::vector<at::Tensor>& two = room_[name];
      while (two.size() < 2) {
        two.push_back(
            at::empty({room.second}, at::TensorOptions().dtype(at::kByte).device(room.first)));
      }
    }
  }

  /// @throws c10::Error on every rank; nothing has changed then.
  void agree_on_step(const std::vector<Planned>& planned, int64_t options,
                     const std::string& error) {
    std::vector<Agreed> agreed{{"numbers of steps since `distribute` or loading", steps_},
                               {"options", options},
                               {"checkpoints to have been loaded", loaded_}};
    // Which parameters have a gradient, 64 to a number.
    std::vector<int64_t> bits(static_cast<size_t>(params_ + 63) / 64);
    const size_t count = (std::min)(planned.size(), static_cast<size_t>(params_));
    for (size_t i = 0; i < count; ++i) {
      if (planned[i].steps) bits[i / 64] |= static_cast<int64_t>(uint64_t{1} << i % 64);
    }
    Agreement agreement = start_agreement(ranks_, error, agreed, bits);
    const std::vector<std::vector<int64_t>> all = finish_agreement(ranks_, agreement);
    for (size_t i = 0; i < count; ++i) {
      const auto has = [&](size_t rank) {
        return (all[rank][1 + agreed.size() + i / 64] >> i % 64 & 1) != 0;
      };
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

  /// NonFinite::SkipGroup: of the AdamW parameters of a group on one device, one such gradient stops all, whoever owns
  /// them. Collective.
  void join_flags(const std::vector<Planned>& planned, std::map<const Item*, Batch<Options>>& own,
                  std::map<const Item*, AdamWParts>& parts, std::string& error) {
    std::map<size_t, at::Tensor> flags;  // by batch
    attempt(error, [&] {
      for (auto& [item, batch] : own) {
        if (!item->adamw) continue;
        AdamWParts& mine = parts[item] = adamw_parts(batch);
        if (batch.options->non_finite() != NonFinite::Propagate) {
          for (auto& [way, part] : mine) part.wholes = wholes_of(part);
          guard_parts(mine);
        }
        if (batch.options->non_finite() != NonFinite::SkipGroup) continue;
        const at::Tensor usable = all_usable(mine);
        at::Tensor& flag = flags[item->batch];
        flag = flag.defined() ? flag.bitwise_and(usable) : usable;
      }
    });
    // One number for each batch that has gradients, on any rank; batches of one device together.
    std::map<std::string, std::pair<std::vector<size_t>, std::vector<at::Tensor>>> by_device;
    std::map<size_t, at::Device> batches;
    for (const std::vector<Item>& bucket : buckets_) {
      for (const Item& item : bucket) {
        const Planned& first = planned[item.members.front()];
        if (item.adamw && first.options->non_finite() == NonFinite::SkipGroup &&
            item_steps(planned, item)) {
          batches.emplace(item.batch, first.parameter.device());
        }
      }
    }
    for (const auto& [batch, device] : batches) {
      auto& [which, numbers] = by_device[device.str()];
      which.push_back(batch);
      const auto found = flags.find(batch);
      numbers.push_back(found != flags.end() && error.empty()
                            ? found->second.to(at::kInt)
                            : at::ones({}, at::TensorOptions().dtype(at::kInt).device(device)));
    }
    for (auto& [device, of_device] : by_device) {
      auto& [which, numbers] = of_device;
      const at::Tensor joined = at::stack(numbers);
      Started started = ranks_.all_reduce(joined, c10d::ReduceOp::MIN);
      ranks_.wait(started);
      const std::vector<at::Tensor> usable = joined.to(at::kBool).unbind(0);
      for (size_t i = 0; i < which.size(); ++i) flags[which[i]] = usable[i];
    }
    attempt(error, [&] {
      for (auto& [item, mine] : parts) {
        const auto found = flags.find(item->batch);
        if (found == flags.end()) continue;
        for (auto& [way, part] : mine) part.guard.decide(found->second);
      }
    });
  }

  /// The gradients that those of a part are of; nothing if none is cut.
  std::vector<at::Tensor> wholes_of(const AdamWPart& part) const {
    std::vector<at::Tensor> wholes = part.gradients;
    bool any = false;
    for (size_t i = 0; i < wholes.size(); ++i) {
      for (const Piece& piece : pieces_) {
        if (!piece.tensor.is_same(part.parameters[i])) continue;
        wholes[i] = as_dtype(piece.whole.grad(), wholes[i].scalar_type());
        any = true;
      }
    }
    return any ? wholes : std::vector<at::Tensor>();
  }

  /// Computes this rank's items of a bucket and starts what travels.
  /// @param half which half of the room: two buckets are on their way
  Flight send_off(const std::vector<Planned>& planned, size_t bucket, size_t half,
                  std::map<const Item*, Batch<Options>>& own,
                  std::map<const Item*, AdamWParts>& parts, Workspace* workspace,
                  std::string& error) {
    Flight flight;
    std::map<const void*, at::Tensor> next;  // values that this rank has computed, by parameter
    attempt(error, [&] {
      for (const Item& item : buckets_[bucket]) {
        const auto batch = own.find(&item);
        if (batch == own.end()) continue;
        if (item.adamw) {
          flight.own.push_back(pending_adamw(parts[&item], *batch->second.options, workspace));
          parts.erase(&item);
        } else {
          flight.own.push_back(step_matrices(batch->second, /*weight=*/{}, workspace));
        }
        const Pending& pending = flight.own.back();
        for (size_t i = 0; i < pending.parameters.size(); ++i) {
          next[pending.parameters[i].unsafeGetTensorImpl()] = pending.values[i];
        }
      }
    });

    // The values of each owner and device lie side by side, in the order of the bucket.
    std::map<std::pair<int64_t, std::string>, std::vector<const Planned*>> sent;
    for (const Item& item : buckets_[bucket]) {
      for (const size_t i : item.members) {
        if (!planned[i].steps) continue;
        if (i >= static_cast<size_t>(params_)) {
          flight.cut.push_back(pieces_[i - static_cast<size_t>(params_)].whole);
        }
        sent[{item.owner, planned[i].parameter.device().str()}].push_back(&planned[i]);
      }
    }
    std::map<std::string, int64_t> used;
    std::vector<std::pair<int64_t, at::Tensor>> messages;
    for (const auto& [from, params] : sent) {
      const auto& [owner, device] = from;
      const at::Tensor& room = room_[device][half];
      const int64_t begin = used[device];
      int64_t& end = used[device];
      for (const Planned* item : params) {
        const at::Tensor& parameter = item->parameter;
        const auto bytes = static_cast<int64_t>(parameter.nbytes());
        const at::Tensor place =
            room.narrow(0, end, bytes).view(parameter.scalar_type()).view(parameter.sizes());
        end += aligned(bytes);
        if (owner == ranks_.rank()) {
          attempt(error, [&, p = &parameter] { place.copy_(next.at(p->unsafeGetTensorImpl())); });
        } else {
          attempt(error, [&, p = &parameter] { flight.received.add({*p}, {place}); });
        }
      }
      messages.emplace_back(owner, room.narrow(0, begin, end - begin));
    }
    flight.agreement = start_agreement(ranks_, error, {{"numbers of steps", steps_}});
    if (ranks_.size() > 1) {
      for (const auto& [owner, values] : messages) {
        flight.values.push_back(ranks_.broadcast(values, owner));
      }
    }
    return flight;
  }

  /// Waits for a bucket and commits it.
  /// @throws c10::Error on every rank if any has failed to compute its part; nothing of it is committed
  /// then.
  void land(Flight& flight) {
    try {
      finish_agreement(ranks_, flight.agreement);
    } catch (...) {
      if (ranks_.lost().empty()) {  // its buffers are used again
        for (Started& started : flight.values) ranks_.wait(started);
      }
      throw;
    }
    for (Started& started : flight.values) ranks_.wait(started);
    for (Pending& pending : flight.own) pending.commit();
    flight.received.run();
    for (const at::Tensor& whole : flight.cut) whole.unsafeGetTensorImpl()->bump_version();
  }

  /// Waits for a bucket that comes to nothing: an earlier one has failed on some rank.
  void drain(Flight& flight) {
    if (!ranks_.lost().empty()) return;
    ranks_.wait(flight.agreement.started);
    for (Started& started : flight.values) ranks_.wait(started);
  }

  static constexpr int64_t nobody = -1;

  Collectives ranks_;
  int64_t bucket_bytes_;
  std::vector<Piece> pieces_;
  int64_t structure_ = 0;
  int64_t params_ = 0;                       // that have entries
  std::vector<std::vector<int64_t>> owner_;  // by group and index
  std::vector<std::vector<Item>> buckets_;
  std::map<std::string, std::vector<at::Tensor>> room_;  // by device, two buckets
  int64_t steps_ = 0;                                    // since `distribute`, or loading
  int64_t loaded_ = 0;                                   // the checksum of what was loaded
  std::optional<StateMap> whole_;
};

template <class Options>
void SharedOptimizer<Options>::consolidate(const Groups& groups, const StateMap& states,
                                           int64_t to) {
  check_not_lost();
  in_step([&] { consolidate_together(groups, states, to); });
}

template <class Options>
void SharedOptimizer<Options>::consolidate_together(const Groups& groups, const StateMap& states,
                                                    int64_t to) {
  ranks_.at("consolidate");
  whole_.reset();
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
    TORCH_CHECK(to >= 0 && to < ranks_.size(), "root_optim::consolidate: expected a rank below ",
                ranks_.size(), ", got ", to);
    for (size_t g = 0; g < groups.size(); ++g) {
      const Options& options = group_options<Options>(groups, g);
      for (size_t i = 0; i < groups[g].params().size(); ++i) {
        const at::Tensor& parameter = groups[g].params()[i];
        if (parameter.numel() == 0) continue;
        ++seen;
        const auto add = [&, index = i, group = g](const at::Tensor& kept, int64_t by,
                                                   const Piece* piece) {
          const ParamState* state =
              by == ranks_.rank() ? find_state(states, kept, options.layout(),
                                               describe(parameter, group, index, options.names()))
                                  : nullptr;
          params.push_back({parameter, &options.layout(), by, state, piece});
        };
        if (owner(g, i) != nobody) add(parameter, owner(g, i), nullptr);
        for (const Piece& piece : pieces_) {
          if (piece.whole.is_same(parameter)) add(piece.tensor, piece.owner, &piece);
        }
      }
    }
    TORCH_CHECK(seen == params_, "root_optim::consolidate: expected the ", params_,
                " parameters that `distribute` saw, got ", seen);
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
  agree(ranks_, error, {{"numbers of steps", steps_}, {"targets of `consolidate`", to}});
  Started summed = ranks_.all_reduce(counts, c10d::ReduceOp::SUM);
  ranks_.wait(summed);

  // What travels, with memory for it, before any rank waits for another.
  struct Message {
    int64_t owner;
    at::Tensor tensor;
    int tag;
  };
  std::vector<Message> messages;
  std::optional<StateMap> whole;
  attempt(error, [&] {
    if (to == ranks_.rank()) whole.emplace();
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
        if (param.owner == ranks_.rank()) {  // as the receiver expects it
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
  agree(ranks_, error);
  for (const Message& message : messages) {
    Started started = to == ranks_.rank()
                          ? ranks_.receive(message.tensor, message.owner, message.tag)
                          : ranks_.send(message.tensor, to, message.tag);
    ranks_.wait(started);
  }
  whole_ = std::move(whole);
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
