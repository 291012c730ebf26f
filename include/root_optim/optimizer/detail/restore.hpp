// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// From a checkpoint to the options and the state of an optimizer, with every check, and back.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>   // IntArrayRef
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <algorithm>  // find_if
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <root_optim/checkpoint/checkpoint.hpp>
#include <root_optim/core/fields.hpp>
#include <root_optim/core/policy.hpp>
#include <root_optim/core/state_key.hpp>
#include <root_optim/optimizer/detail/group_options.hpp>
#include <root_optim/optimizer/detail/next_state.hpp>  // find_state
#include <root_optim/optimizer/detail/option_values.hpp>
#include <root_optim/optimizer/detail/upgrade.hpp>
#include <root_optim/optimizer/options.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/parameters/layout.hpp>
#include <root_optim/parameters/param_state.hpp>
#include <root_optim/parameters/rule.hpp>
#include <root_optim/stages/norm_gate.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// A parameter's part of a checkpoint.
CheckpointParam to_checkpoint(const at::Tensor& parameter, const StateMap& states);

/// The checkpoint of an optimizer's groups and state: on the CPU, so that machines without the optimizer's
/// device read it, too. It shares tensors that are there already.
template <class Options>
ROOT_OPTIM_COLD Checkpoint to_checkpoint(const Groups& groups, const StateMap& states) {
  Checkpoint checkpoint;
  for (size_t g = 0; g < groups.size(); ++g) {
    CheckpointGroup group;
    group.options = group_options<Options>(groups, g).fields();
    for (const at::Tensor& parameter : groups[g].params()) {
      group.params.push_back(to_checkpoint(parameter, states));
    }
    checkpoint.push_back(std::move(group));
  }
  return checkpoint;
}

/// A gate as checkpoints keep it: on the CPU.
ROOT_OPTIM_COLD inline GateState stored_gate(const GateState& gate) {
  if (!gate.norms.defined()) return {};
  return {gate.norms.cpu(), gate.run.cpu(), gate.strikes.cpu()};
}

/// What an optimizer becomes by loading a checkpoint.
template <class Options>
struct Restored {
  std::vector<Options> options;  ///< one a group
  StateMap states;
  LoadReport report;
  GateState gate;
};

/// A copy of a stored gate on a device; undefined tensors stay so.
/// @throws c10::Error if it is none that `norm_gate` could have left.
GateState restored_gate(const GateState& stored, at::Device device);

/// A copy of a stored state as a parameter needs it: the archive, and whoever else reads it, keeps its own.
ParamState restored_state(const ParamState& stored, const at::Tensor& parameter,
                          const MatrixLayout& layout, const std::string& where);

// ---- Options -------------------------------------------------------------------------------------------

template <class T, class = void>
struct has_to_string : std::false_type {};
template <class T>
struct has_to_string<T, std::void_t<decltype(to_string(std::declval<const T&>()))>>
    : std::true_type {};

/// An option as a message shows it.
template <class T>
ROOT_OPTIM_COLD std::string text_of(const T& value) {
  if constexpr (has_to_string<T>::value) {
    return to_string(value);
  } else if constexpr (std::is_same_v<T, bool>) {
    return value ? "true" : "false";
  } else if constexpr (std::is_enum_v<T>) {
    return std::to_string(static_cast<int64_t>(value));
  } else if constexpr (std::is_arithmetic_v<T>) {
    return c10::str(value);
  } else {
    return "another one";
  }
}

/// Whether two values of an option are stored alike.
template <class T>
ROOT_OPTIM_COLD bool stored_alike(const T& a, const T& b) {
  Fields of_a, of_b;
  store(of_a, "value", a);
  store(of_b, "value", b);
  return of_a == of_b;
}

/// Refuses a checkpoint in which a parameter has another shape or rule, becomes other matrices, or differs
/// in an option that its state depends on.
template <class Options>
ROOT_OPTIM_COLD void check_same_structure(const Options& own, const Options& stored,
                                          const at::Tensor& parameter,
                                          const std::vector<int64_t>& stored_shape,
                                          const std::string& where) {
  TORCH_CHECK(parameter.sizes() == c10::IntArrayRef(stored_shape),
              "root_optim::load: expected the shape of ", where, ", got ",
              c10::IntArrayRef(stored_shape));
  const auto refuse = [&where](const char* option, const std::string& expected,
                               const std::string& got) {
    TORCH_CHECK(false, "root_optim::load: expected ", option, ' ', expected, " for ", where,
                ", got ", got, " in the checkpoint: build the optimizer with the ", option,
                " that it was saved with");
  };
  const Rule rule = resolve_rule(own.rule(), own.layout(), parameter, where),
             stored_rule = resolve_rule(stored.rule(), stored.layout(), parameter, where);
  if (rule != stored_rule) refuse("rule", to_string(rule), to_string(stored_rule));
  if (rule == Rule::Orthogonalized && own.layout() != stored.layout()) {
    refuse("layout", "'" + to_string(own.layout()) + "'", "'" + to_string(stored.layout()) + "'");
  }
  Options::each_option([&](const char* name, int64_t, OnLoad on_load, auto member, const auto&) {
    if (on_load == OnLoad::Structure && !stored_alike(own.*member, stored.*member)) {
      refuse(name, text_of(own.*member), text_of(stored.*member));
    }
  });
}

/// The options of a group after loading, which the list in options.hpp decides one by one.
template <class Options>
ROOT_OPTIM_COLD Options merged(const Options& own, Options stored) {
  std::vector<std::string> names = own.names().empty() ? stored.names() : own.names();
  Options::each_option([&](const char*, int64_t, OnLoad on_load, auto member, const auto&) {
    if (on_load != OnLoad::Restored) stored.*member = own.*member;
    if constexpr (has_keep<std::decay_t<decltype(own.*member)>>::value) {
      (stored.*member).keep(own.*member);
    }
  });
  stored.names(std::move(names));
  if (!stored.base_lr())
    stored.base_lr(own.base_lr());  // a file that does not know it takes none away
  return stored;
}

/// The options of every group of a checkpoint, brought to the present format.
template <class Options>
ROOT_OPTIM_COLD std::vector<Options> stored_options(StoredCheckpoint& stored) {
  upgrade(stored.groups, stored.format);
  std::vector<Options> all;
  for (size_t g = 0; g < stored.groups.size(); ++g) {
    naming_group(g, [&] { all.push_back(Options::from_fields(stored.groups[g].options)); });
  }
  return all;
}

// ---- Names ---------------------------------------------------------------------------------------------

/// The names of each group's parameters; empty where it has none.
using GroupNames = std::vector<std::vector<std::string>>;

/// Where a parameter stands.
struct Place {
  size_t group, index;
};
using Places = std::map<std::string, Place>;

/// Refuses names that are not one per parameter.
void check_names(const std::vector<std::string>& names, size_t params, size_t group);

/// Where each name stands; nullopt if a parameter has none or a name occurs twice.
/// @param params how many parameters each group has
std::optional<Places> places_of(const GroupNames& names, const std::vector<size_t>& params);

/// The names of `a` that `b` lacks.
std::vector<std::string> only_in(const Places& a, const Places& b);

/// @throws c10::Error with the lists if one side has names that the other lacks.
void check_same_names(const Places& own, const Places& stored);

/// Both sides of a load.
template <class Options>
struct Sides {
  std::vector<Options> stored;               ///< the options of the checkpoint, one a group
  std::optional<Places> own_places, places;  ///< by name, the optimizer's and the checkpoint's
};

template <class Options>
ROOT_OPTIM_COLD Sides<Options> both_sides(const Groups& groups, StoredCheckpoint& checkpoint) {
  Sides<Options> sides{stored_options<Options>(checkpoint), {}, {}};
  GroupNames own_names, names;
  std::vector<size_t> own_params, params;
  for (size_t g = 0; g < groups.size(); ++g) {
    own_names.push_back(group_options<Options>(groups, g).names());
    own_params.push_back(groups[g].params().size());
    check_names(own_names[g], own_params[g], g);
  }
  for (size_t g = 0; g < sides.stored.size(); ++g) {
    names.push_back(sides.stored[g].names());
    params.push_back(checkpoint.groups[g].params.size());
    check_names(names[g], params[g], g);
  }
  sides.own_places = places_of(own_names, own_params);
  sides.places = places_of(names, params);
  return sides;
}

// ---- Loading -------------------------------------------------------------------------------------------

/// Explains by names why two sides do not fit, if they have names: which parameters are missing and surplus,
/// or which one is in another group because its rule or its layout is another.
template <class Options>
ROOT_OPTIM_COLD void check_by_name(const Groups& groups, const Checkpoint& checkpoint,
                                   const Sides<Options>& sides) {
  if (!sides.own_places || !sides.places) return;
  check_same_names(*sides.own_places, *sides.places);
  for (const auto& [name, place] : *sides.own_places) {
    const Place& there = sides.places->at(name);
    const auto& own = group_options<Options>(groups, place.group);
    const at::Tensor& parameter = groups[place.group].params()[place.index];
    check_same_structure(own, sides.stored[there.group], parameter,
                         checkpoint[there.group].params[there.index].shape,
                         describe(parameter, place.group, place.index, own.names()));
  }
}

/// @throws c10::Error if the checkpoint does not fit the groups; nothing has changed then.
template <class Options>
ROOT_OPTIM_COLD Restored<Options> restore(const Groups& groups, StoredCheckpoint stored) {
  const Sides<Options> sides = both_sides<Options>(groups, stored);
  const Checkpoint& checkpoint = stored.groups;
  check_by_name(groups, checkpoint, sides);
  const char* advice =
      sides.own_places && sides.places
          ? "; LoadOptions().strict(false) loads by name"
          : "; with names on both sides, as param_groups sets them, this message says which";
  TORCH_CHECK(checkpoint.size() == groups.size(), "root_optim::load: expected ", groups.size(),
              " parameter groups, got ", checkpoint.size(), advice);
  Restored<Options> result;
  for (size_t g = 0; g < checkpoint.size(); ++g) {
    const auto& parameters = groups[g].params();
    const Options& own = group_options<Options>(groups, g);
    TORCH_CHECK(checkpoint[g].params.size() == parameters.size(), "root_optim::load: expected ",
                parameters.size(), " parameters in group ", g, ", got ",
                checkpoint[g].params.size(), advice);
    const auto& names = own.names().empty() ? sides.stored[g].names() : own.names();
    Options options = merged(own, sides.stored[g]);
    for (size_t i = 0; i < parameters.size(); ++i) {
      const at::Tensor& parameter = parameters[i];
      const std::string where = describe(parameter, g, i, names);
      const CheckpointParam& param = checkpoint[g].params[i];
      TORCH_CHECK(own.names().empty() || sides.stored[g].names().empty() ||
                      sides.stored[g].names()[i] == own.names()[i],
                  "root_optim::load: expected the state of ", where, ", got that of '",
                  sides.stored[g].names()[i], "'", advice);
      check_same_structure(own, sides.stored[g], parameter, param.shape, where);
      if (resolve_rule(own.rule(), own.layout(), parameter, where) == Rule::Orthogonalized) {
        for (const MatrixShape matrix : matrix_shapes(parameter.sizes(), own.layout())) {
          validate_policy_for(options.orthogonalizer(), matrix.rows, matrix.cols, parameter);
        }
      }
      ParamState state = restored_state(param.state, parameter, own.layout(), where);
      if (state.step() > 0) {
        result.states[state_key(parameter)] = std::make_unique<ParamState>(std::move(state));
      }
      result.report.loaded.push_back(names.empty() ? where : names[i]);
    }
    result.options.push_back(std::move(options));
  }
  const Groups::const_iterator first =
      std::find_if(groups.begin(), groups.end(), [](const auto& g) { return !g.params().empty(); });
  if (first != groups.end()) {
    result.gate = restored_gate(stored.gate, first->params().front().device());
  }
  return result;
}

/// The state of every parameter that the checkpoint has by that name and that fits; all else as it is.
/// @throws c10::Error if names are missing or occur twice, or for content that no optimizer has written.
template <class Options>
ROOT_OPTIM_COLD Restored<Options> restore_by_name(const Groups& groups, const StateMap& states,
                                                  StoredCheckpoint stored) {
  const Sides<Options> sides = both_sides<Options>(groups, stored);
  TORCH_CHECK(
      sides.own_places && sides.places,
      "root_optim::load: expected a name of its own for every parameter, which strict(false) goes "
      "by, got none or one twice in the ",
      sides.own_places ? "checkpoint" : "optimizer");
  Restored<Options> result;
  result.report.surplus = only_in(*sides.places, *sides.own_places);
  for (size_t g = 0; g < groups.size(); ++g) {
    const Options& own = group_options<Options>(groups, g);
    for (size_t i = 0; i < groups[g].params().size(); ++i) {
      const at::Tensor& parameter = groups[g].params()[i];
      const std::string& name = own.names()[i];
      const std::string where = describe(parameter, g, i, own.names());
      const auto there = sides.places->find(name);
      bool fits = there != sides.places->end();
      if (!fits) result.report.missing.push_back(name);
      ParamState state;
      if (fits) {
        const auto [group, index] = there->second;
        const CheckpointParam& param = stored.groups[group].params[index];
        try {
          check_same_structure(own, sides.stored[group], parameter, param.shape, where);
        } catch (const c10::Error& error) {
          result.report.unfit[name] = error.what_without_backtrace();
          fits = false;
        }
        if (fits) state = restored_state(param.state, parameter, own.layout(), where);
      }
      if (fits) {
        result.report.loaded.push_back(name);
      } else if (const ParamState* present = find_state(states, parameter, own.layout(), where)) {
        state = *present;
      }
      if (state.step() > 0) {
        result.states[state_key(parameter)] = std::make_unique<ParamState>(std::move(state));
      }
    }
    result.options.push_back(own);
  }
  return result;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/optimizer/detail/restore_impl.hpp>
#endif
