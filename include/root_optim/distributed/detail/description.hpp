// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What must be equal on all ranks before they share an optimizer, as text, so that a difference can be named.
#pragma once

#include <ATen/Parallel.h>  // get_num_threads
#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>  // TORCH_CHECK
#include <torch/version.h>

#include <cstddef>
#include <cstdint>
#include <sstream>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include <root_optim/checkpoint/detail/checksum.hpp>
#include <root_optim/core/fields.hpp>
#include <root_optim/core/state_key.hpp>
#include <root_optim/distributed/detail/stand_in.hpp>
#include <root_optim/distributed/options.hpp>
#include <root_optim/optimizer/detail/group_options.hpp>
#include <root_optim/optimizer/detail/option_values.hpp>
#include <root_optim/optimizer/detail/plan.hpp>
#include <root_optim/optimizer/options.hpp>  // FilterPlace, OnLoad
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/parameters/layout.hpp>
#include <root_optim/parameters/param_state.hpp>
#include <root_optim/stages/norm_gate.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

inline std::string text_of_field(const Fields::Value& value) {
  std::ostringstream text;
  text << std::boolalpha;
  text.precision(17);
  std::visit(
      [&text](const auto& held) {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
          text << held;
        } else {
          text << '[';
          for (size_t i = 0; i < held.size(); ++i) text << (i > 0 ? ", " : "") << held[i];
          text << ']';
        }
      },
      value);
  return text.str();
}

/// The options of a group, those that checkpoints do not keep included.
template <class Options>
ROOT_OPTIM_COLD Fields all_fields(const Options& options) {
  Fields fields;
  Options::each_option([&](const char* name, int64_t, OnLoad, auto member, const auto&) {
    store(fields, name, options.*member);
  });
  return fields;
}

/// Options that no step may change, because the owners follow from them: rules, layouts, shapes, batches.
template <class Options>
int64_t checksum_of_structure(const std::vector<PlannedParam<Options>>& planned) {
  Checksum sum;
  for (const PlannedParam<Options>& item : planned) {
    sum.add(static_cast<int64_t>(item.group));
    sum.add(static_cast<int64_t>(item.index));
    sum.add(static_cast<int64_t>(item.rule));
    sum.add(to_string(item.options->layout()));
    sum.add(item.options->batch_bytes().value_or(-1));
    sum.add(item.options->master_weights());
    sum.add(item.options->filter_place() == FilterPlace::AllGradients);
    sum.add(item.parameter.sizes().vec());
    sum.add(static_cast<int64_t>(item.parameter.scalar_type()));
    sum.add(item.parameter.device().str());
  }
  return sum.value();
}

/// All options of all groups.
template <class Options>
int64_t checksum_of_options(const Groups& groups) {
  Checksum sum;
  for (size_t g = 0; g < groups.size(); ++g) sum.add(all_fields(group_options<Options>(groups, g)));
  return sum.value();
}

/// The state of all parameters, and the gate's.
inline int64_t checksum_of_state(const Groups& groups, const StateMap& states,
                                 const GateState& gate) {
  Checksum sum;
  for (const at::Tensor* tensor : {&gate.norms, &gate.run, &gate.strikes}) sum.add(*tensor);
  for (const auto& group : groups) {
    for (const at::Tensor& parameter : group.params()) {
      const auto found = states.find(state_key(parameter));
      const auto* state =
          found == states.end() ? nullptr : dynamic_cast<const ParamState*>(found->second.get());
      sum.add(state != nullptr);
      if (state == nullptr) continue;
      sum.add(state->step());
      for (const ParamState::Slot& slot : ParamState::slot_list()) sum.add(state->*slot.tensor);
    }
  }
  return sum.value();
}

/// One line for each thing that must be equal.
template <class Options>
std::string description_of(const Groups& groups, const StateMap& states, const GateState& gate,
                           const DistributedOptions& distributed) {
  std::ostringstream text;
  text << "version of root_optim: " << version << '\n';
  text << "version of LibTorch: " << TORCH_VERSION << '\n';
  text << "number of threads: " << at::get_num_threads() << '\n';
  text << "bucket_bytes: " << distributed.bucket_bytes() << '\n';
  text << "number of groups: " << groups.size() << '\n';
  for (size_t g = 0; g < groups.size(); ++g) {
    const Options& options = group_options<Options>(groups, g);
    const std::string group = "group " + std::to_string(g) + ", ";
    text << group << "number of parameters: " << groups[g].params().size() << '\n';
    for (size_t i = 0; i < groups[g].params().size(); ++i) {
      const at::Tensor& parameter = groups[g].params()[i];
      text << group << "parameter " << i << ": "
           << (i < options.names().size() ? "'" + options.names()[i] + "' " : "")
           << c10::str(parameter.sizes(), " ", c10::toString(parameter.scalar_type()), " ",
                       parameter.device().is_cpu() ? "cpu" : "device")
           << '\n';
    }
    for (const auto& [name, value] : all_fields(options).values()) {
      if (name != "names") text << group << name << ": " << text_of_field(value) << '\n';
    }
  }
  text << "state, by its checksum: " << checksum_of_state(groups, states, gate) << '\n';
  for (size_t g = 0; g < groups.size(); ++g) {
    for (size_t i = 0; i < groups[g].params().size(); ++i) {
      if (is_stand_in(groups[g].params()[i])) continue;  // ranks have different shards
      Checksum sum;
      sum.add(groups[g].params()[i]);
      text << "values of "
           << describe(groups[g].params()[i], g, i, group_options<Options>(groups, g).names())
           << ", by their checksum: " << sum.value() << '\n';
    }
  }
  return text.str();
}

/// Refuses descriptions that are not all equal, and names the first difference.
inline void check_descriptions(const std::vector<std::string>& of_ranks) {
  for (size_t r = 1; r < of_ranks.size(); ++r) {
    if (of_ranks[r] == of_ranks[0]) continue;
    std::istringstream first(of_ranks[0]), other(of_ranks[r]);
    std::string expected, got;
    do {
      if (!std::getline(first, expected)) expected = "nothing more";
      if (!std::getline(other, got)) got = "nothing more";
    } while (expected == got);
    TORCH_CHECK(false, "root_optim::distribute: expected the same on every rank, got '", expected,
                "' on rank 0 and '", got, "' on rank ", r);
  }
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
