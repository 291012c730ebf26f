// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// From a checkpoint to the options and the state of an optimizer, with every check, and back.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>   // IntArrayRef
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <root_optim/checkpoint/checkpoint.hpp>
#include <root_optim/core/policy.hpp>
#include <root_optim/core/state_key.hpp>
#include <root_optim/optimizer/detail/group_options.hpp>
#include <root_optim/optimizer/detail/next_state.hpp>  // slot_shape
#include <root_optim/optimizer/detail/upgrade.hpp>
#include <root_optim/optimizer/options.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/parameters/layout.hpp>
#include <root_optim/parameters/param_state.hpp>
#include <root_optim/parameters/rule.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// The checkpoint of an optimizer's groups and state: on the CPU, so that machines without the optimizer's
/// device read it, too. It shares tensors that are there already.
template <class Options>
Checkpoint to_checkpoint(const Groups& groups, const StateMap& states) {
  Checkpoint checkpoint;
  for (size_t g = 0; g < groups.size(); ++g) {
    CheckpointGroup group;
    group.options = group_options<Options>(groups, g).fields();
    for (const at::Tensor& parameter : groups[g].params()) {
      CheckpointParam stored{parameter.sizes().vec(), {}};
      const auto found = states.find(state_key(parameter));
      if (found != states.end()) stored.state = dynamic_cast<const ParamState&>(*found->second);
      for (const ParamState::Slot& slot : ParamState::slot_list()) {
        at::Tensor& tensor = stored.state.*slot.tensor;
        if (tensor.defined()) tensor = tensor.cpu();
      }
      group.params.push_back(std::move(stored));
    }
    checkpoint.push_back(std::move(group));
  }
  return checkpoint;
}

/// What an optimizer becomes by loading a checkpoint.
template <class Options>
struct Restored {
  std::vector<Options> options;  ///< one a group
  StateMap states;
};

/// A copy of a stored state as a parameter needs it: the archive, and whoever else reads it, keeps its own.
ParamState restored_state(const ParamState& stored, const at::Tensor& parameter,
                          const MatrixLayout& layout, const std::string& where);

/// Refuses a checkpoint in which a parameter follows another rule, or becomes other matrices.
template <class Options>
void check_same_matrices(const Options& own, const Options& stored, const at::Tensor& parameter,
                         const std::string& where) {
  const Rule rule = resolve_rule(own.rule(), own.layout(), parameter, where),
             stored_rule = resolve_rule(stored.rule(), stored.layout(), parameter, where);
  TORCH_CHECK(rule == stored_rule, "root_optim::load: expected rule ", to_string(rule), " for ",
              where, ", got ", to_string(stored_rule),
              " in the checkpoint: build the optimizer with the rule that it was saved with");
  TORCH_CHECK(rule != Rule::Orthogonalized || own.layout() == stored.layout(),
              "root_optim::load: expected layout '", to_string(own.layout()), "' for ", where,
              ", got '", to_string(stored.layout()),
              "' in the checkpoint: build the optimizer with the layout that it was saved with");
  if (rule != Rule::Orthogonalized) return;
  for (const MatrixShape matrix : matrix_shapes(parameter.sizes(), own.layout())) {
    validate_policy_for(stored.orthogonalizer(), matrix.rows, matrix.cols, parameter);
  }
}

/// An option as a message shows it.
template <class T>
std::string text_of(const T& value) {
  if constexpr (std::is_same_v<T, MomentumForm>) return to_string(value);
  if constexpr (std::is_enum_v<T>) return std::to_string(static_cast<int64_t>(value));
  return "another one";
}

/// The options of a group after loading, which the list in options.hpp decides one by one.
/// @throws c10::Error if an option that is structure differs.
template <class Options>
Options merged(const Options& own, Options stored, size_t group) {
  std::vector<std::string> names = own.names().empty() ? stored.names() : own.names();
  Options::each_option([&](const char* name, int64_t, OnLoad on_load, auto member, const auto&) {
    if constexpr (std::is_enum_v<std::decay_t<decltype(own.*member)>>) {
      TORCH_CHECK(on_load != OnLoad::Structure || own.*member == stored.*member,
                  "root_optim::load: expected ", name, ' ', text_of(own.*member), " in group ",
                  group, ", got ", text_of(stored.*member),
                  " in the checkpoint: build the optimizer with the value that it was saved with");
    }
    if (on_load != OnLoad::Restored) stored.*member = own.*member;
  });
  stored.names(std::move(names));
  if (!stored.base_lr())
    stored.base_lr(own.base_lr());  // a file that does not know it takes none away
  return stored;
}

/// Refuses names that are not one per parameter.
void check_names(const std::vector<std::string>& names, size_t params, size_t group);

/// @throws c10::Error if the checkpoint does not fit the groups; nothing has changed then.
template <class Options>
Restored<Options> restore(const Groups& groups, StoredCheckpoint stored) {
  Checkpoint& checkpoint = stored.groups;
  upgrade(checkpoint, stored.format);
  TORCH_CHECK(checkpoint.size() == groups.size(), "root_optim::load: expected ", groups.size(),
              " parameter groups, got ", checkpoint.size());
  Restored<Options> result;
  for (size_t g = 0; g < checkpoint.size(); ++g) {
    const auto& parameters = groups[g].params();
    const Options& own = group_options<Options>(groups, g);
    TORCH_CHECK(checkpoint[g].params.size() == parameters.size(), "root_optim::load: expected ",
                parameters.size(), " parameters in group ", g, ", got ",
                checkpoint[g].params.size());
    Options stored_options;
    naming_group(g, [&] { stored_options = Options::from_fields(checkpoint[g].options); });
    check_names(own.names(), parameters.size(), g);
    check_names(stored_options.names(), parameters.size(), g);
    for (size_t i = 0; i < parameters.size(); ++i) {
      const std::string where = describe(parameters[i], g, i, own.names());
      const CheckpointParam& param = checkpoint[g].params[i];
      TORCH_CHECK(parameters[i].sizes() == c10::IntArrayRef(param.shape),
                  "root_optim::load: expected the shape of ", where, ", got ",
                  c10::IntArrayRef(param.shape));
      TORCH_CHECK(own.names().empty() || stored_options.names().empty() ||
                      stored_options.names()[i] == own.names()[i],
                  "root_optim::load: expected the state of ", where, ", got that of '",
                  stored_options.names()[i], "'");
      check_same_matrices(own, stored_options, parameters[i], where);
      ParamState state = restored_state(param.state, parameters[i], own.layout(), where);
      if (state.step() > 0) {
        result.states[state_key(parameters[i])] = std::make_unique<ParamState>(std::move(state));
      }
    }
    result.options.push_back(merged(own, std::move(stored_options), g));
  }
  return result;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/optimizer/detail/restore_impl.hpp>
#endif
