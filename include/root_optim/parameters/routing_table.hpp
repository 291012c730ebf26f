// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Parameter groups from a module or from a list of names and tensors. A table says which parameter
// follows which rule, in which layout and why, and makes the groups to construct an optimizer with. How
// a parameter is judged is in routing.hpp. A flat list of tensors needs no table: the optimizer's
// `Rule::Auto` judges it by shape (suitability.hpp).
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>  // TORCH_CHECK
#include <torch/nn/module.h>
#include <torch/optim/optimizer.h>  // OptimizerParamGroup

#include <algorithm>
#include <cstddef>
#include <iterator>  // begin
#include <memory>
#include <ostream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <root_optim/parameters/layout.hpp>   // MatrixLayout
#include <root_optim/parameters/routing.hpp>  // RoutingEntry, RoutingOptions, route_entries
#include <root_optim/parameters/rule.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

namespace detail {

/// Columns name | shape | rule | layout | reason, aligned, one line an entry.
std::string format_entries(const std::vector<RoutingEntry>& entries);

}  // namespace detail

/// Which parameter goes where: made by `route`, printed by `<<`, turned into groups by `groups()`.
template <class Options>
class RoutingTable {
 public:
  /// The table of `entries`, whose groups get copies of `options`; where `own` is given, one an entry, of
  /// those.
  RoutingTable(std::vector<RoutingEntry> entries, Options options, std::vector<Options> own = {});

  /// One entry per parameter, in the order of the module's `named_parameters()`.
  const std::vector<RoutingEntry>& entries() const& { return entries_; }
  /// By value from a temporary, so that `for (auto& entry : route(...).entries())` does not dangle.
  std::vector<RoutingEntry> entries() && { return std::move(entries_); }

  /// One group per rule, layout and options, each with a complete copy of the options in which rule,
  /// layout and names are set.
  ///
  /// Order: the orthogonalized groups, the one with the default layout first and the others as they
  /// first appear in the table; AdamW last. Of each, those with the table's options first, then those
  /// with options of their own as they first appear. What no parameter has makes no group.
  std::vector<torch::optim::OptimizerParamGroup> groups() const;

  /// The table as text for logs, one line for each parameter.
  std::string to_string() const { return detail::format_entries(entries_); }

  friend std::ostream& operator<<(std::ostream& stream, const RoutingTable& table) {
    return stream << table.to_string();
  }

 private:
  void add_groups(std::vector<torch::optim::OptimizerParamGroup>& groups, Rule rule,
                  const MatrixLayout& layout) const;

  std::vector<RoutingEntry> entries_;
  Options options_;
  std::vector<Options> own_;  // empty, or one an entry
};

template <class Options>
RoutingTable<Options>::RoutingTable(std::vector<RoutingEntry> entries, Options options,
                                    std::vector<Options> own)
    : entries_(std::move(entries)), options_(std::move(options)), own_(std::move(own)) {
  TORCH_CHECK(own_.empty() || own_.size() == entries_.size(),
              "root_optim::RoutingTable: expected no own options or one an entry, got ",
              own_.size(), " for ", entries_.size(), " entries");
}

template <class Options>
ROOT_OPTIM_COLD std::vector<torch::optim::OptimizerParamGroup> RoutingTable<Options>::groups()
    const {
  std::vector<MatrixLayout> layouts{MatrixLayout()};
  for (const RoutingEntry& entry : entries_) {
    if (entry.rule == Rule::Orthogonalized &&
        std::find(layouts.begin(), layouts.end(), entry.layout) == layouts.end()) {
      layouts.push_back(entry.layout);
    }
  }
  std::vector<torch::optim::OptimizerParamGroup> result;
  for (const MatrixLayout& layout : layouts) add_groups(result, Rule::Orthogonalized, layout);
  add_groups(result, Rule::AdamW, MatrixLayout());
  return result;
}

template <class Options>
ROOT_OPTIM_COLD void RoutingTable<Options>::add_groups(
    std::vector<torch::optim::OptimizerParamGroup>& groups, Rule rule,
    const MatrixLayout& layout) const {
  struct Group {
    const Options* options;
    std::vector<at::Tensor> parameters;
    std::vector<std::string> names;
  };
  std::vector<Group> found{{&options_, {}, {}}};
  for (size_t i = 0; i < entries_.size(); ++i) {
    const RoutingEntry& entry = entries_[i];
    if (entry.rule != rule || (rule == Rule::Orthogonalized && entry.layout != layout)) continue;
    const Options& options = own_.empty() ? options_ : own_[i];
    auto group = std::find_if(found.begin(), found.end(), [&options](const Group& other) {
      return other.options->differing(options).empty();
    });
    if (group == found.end()) group = found.insert(found.end(), Group{&options, {}, {}});
    group->parameters.push_back(entry.parameter);
    group->names.push_back(entry.name);
  }
  for (Group& group : found) {
    if (group.parameters.empty()) continue;
    auto options = std::make_unique<Options>(*group.options);
    options->rule(rule).layout(layout).names(std::move(group.names));
    groups.emplace_back(std::move(group.parameters), std::move(options));
  }
}

/// Whether common recipes take no weight decay on a parameter: everything below rank 2 (biases, gains of
/// norms, single numbers), and whatever type or name call a normalization, a gain or a bias.
inline bool is_norm_or_bias(const RoutingEntry& entry) {
  return entry.parameter.dim() < 2 || entry.kind == "normalization" || entry.kind == "gain" ||
         entry.kind == "bias";
}

/// The override that takes the weight decay off norms and biases (`is_norm_or_bias`).
struct NoDecayOnNormsAndBiases {
  /// Sets the weight decay of both rules to 0 for a norm or bias.
  template <class Options>
  void operator()(const RoutingEntry& entry, Options& options) const {
    if (is_norm_or_bias(entry)) options.weight_decay(0).adamw_weight_decay(0);
  }
};

/// Ready to use: `param_groups(*model, options, no_decay_on_norms_and_biases)`, or called in an override of
/// your own.
inline constexpr NoDecayOnNormsAndBiases no_decay_on_norms_and_biases{};

namespace detail {

template <class Options>
ROOT_OPTIM_COLD void check_routable(const Options& options, const std::string& what) {
  options.validate();
  TORCH_CHECK(
      options.rule() == Rule::Auto && options.layout() == MatrixLayout() && options.names().empty(),
      "root_optim::route: expected ", what, ", got rule ", to_string(options.rule()), ", layout '",
      to_string(options.layout()), "' and ", options.names().size(), " names");
}

/// The table that `entries_by` makes of an override of entries.
/// @param change takes an entry, or an entry and its own copy of the options.
template <class Options, class Override, class EntriesBy>
ROOT_OPTIM_COLD RoutingTable<Options> make_table(const Options& options, const Override& change,
                                                 const EntriesBy& entries_by) {
  check_routable(options,
                 "options without rule, layout and names, which it sets per parameter (use the "
                 "override)");
  using Callable = std::decay_t<Override>;
  if constexpr (std::is_invocable_v<Callable&, RoutingEntry&, Options&>) {
    Callable call = change;
    std::vector<Options> own;
    std::vector<RoutingEntry> entries = entries_by([&](RoutingEntry& entry) {
      Options options_of_entry = options;
      call(entry, options_of_entry);
      check_routable(options_of_entry,
                     "the override to set rule and layout of the entry, not of "
                     "its options, for parameter '" +
                         entry.name + "'");
      own.push_back(std::move(options_of_entry));
    });
    for (size_t i = 0; i < entries.size(); ++i) {
      std::string names;
      for (const std::string& name : options.differing(own[i])) {
        names += (names.empty() ? "; own " : ", ") + name;
      }
      entries[i].reason += names;
    }
    return {std::move(entries), options, std::move(own)};
  } else {
    static_assert(std::is_constructible_v<RoutingOverride, const Override&>,
                  "root_optim::route: the override must take (RoutingEntry&) or (RoutingEntry&, "
                  "Options&)");
    return {entries_by(RoutingOverride(change)), options};
  }
}

/// Removes the templates below from overload resolution for modules and for what is no range.
template <class Range, class = decltype(std::begin(std::declval<const Range&>()))>
using RequireNamedTensors = std::enable_if_t<!std::is_base_of_v<torch::nn::Module, Range>>;

}  // namespace detail

/// Decides for every parameter of a module whether it is orthogonalized or follows AdamW, and how it
/// becomes matrices.
///
/// The type and name of its module decide. The weights of Linear and of convolutions (one matrix a
/// group) and the gates and projections of recurrent and attention modules are orthogonalized.
/// Embeddings, output heads, normalizations, biases, depthwise kernels and everything of rank < 2 follow
/// AdamW. Other parameters go by their names (`name_table`). If the name says nothing either, the shape
/// decides, or `RoutingOptions::unknown` sends them to AdamW. A matrix with a side < 8 or an aspect
/// > 256 follows AdamW whatever it belongs to. The full list is in docs/routing.md.
///
/// A tied tensor counts once, under its first name, and follows AdamW if any of its names does.
/// Frozen parameters are listed; the optimizer skips what has no gradient. Undefined ones are left
/// out, and so are those that require no gradient and are not real floating-point.
///
/// @param module        need not be held by a shared_ptr; classes derived from LibTorch's count as
///                      what they derive from.
/// @param options       what every group gets a copy of; rule, layout and names must be as
///                      constructed, since this function sets them.
/// @param override_entry called for every entry with `(RoutingEntry&)` or `(RoutingEntry&, Options&)`; may
///                      change rule, layout and reason of the entry, and whatever else it likes in its own
///                      copy of the options, by which the groups then split; optional.
/// @param routing       names of the output heads, and the rule of unknown parameters; optional.
/// @throws c10::Error if a parameter that requires a gradient is not real floating-point, an override
///                    does not fit its parameter or would have no effect, an output head names
///                    nothing, or the options are out of range.
/// Example: tests/unit/parameters/test_param_groups.cpp
template <class Options, class Override = RoutingOverride>
ROOT_OPTIM_COLD RoutingTable<Options> route(const torch::nn::Module& module, const Options& options,
                                            const Override& override_entry = {},
                                            const RoutingOptions& routing = {}) {
  return detail::make_table(options, override_entry, [&](const RoutingOverride& change) {
    return detail::route_entries(module, change, routing);
  });
}

/// The same for a list of names and tensors, where no module's type is known: a
/// `torch::jit::Module`'s `named_parameters()`, a `torch::OrderedDict`, a map, a vector of pairs.
///
/// Names are paths, as in a module: "layers.0.up.weight". Only name and shape decide, so name the output
/// heads, and give the layouts of fused weights by the override.
/// @param parameters a range whose elements are a name and a tensor; every name once.
/// @throws c10::Error as above, and for a name that occurs twice.
template <class Range, class Options, class Override = RoutingOverride,
          class = detail::RequireNamedTensors<Range>>
ROOT_OPTIM_COLD RoutingTable<Options> route(const Range& parameters, const Options& options,
                                            const Override& override_entry = {},
                                            const RoutingOptions& routing = {}) {
  return detail::make_table(options, override_entry, [&](const RoutingOverride& change) {
    return detail::route_entries(detail::list_registrations(parameters), change, routing);
  });
}

/// The groups of `route`, to construct an optimizer with: `Root optimizer(param_groups(*model,
/// options))`. Same parameters and errors.
template <class Options, class Override = RoutingOverride>
ROOT_OPTIM_COLD std::vector<torch::optim::OptimizerParamGroup> param_groups(
    const torch::nn::Module& module, const Options& options, const Override& override_entry = {},
    const RoutingOptions& routing = {}) {
  return route(module, options, override_entry, routing).groups();
}

/// The same for a list of names and tensors: `param_groups(scripted.named_parameters(), options)`.
template <class Range, class Options, class Override = RoutingOverride,
          class = detail::RequireNamedTensors<Range>>
ROOT_OPTIM_COLD std::vector<torch::optim::OptimizerParamGroup> param_groups(
    const Range& parameters, const Options& options, const Override& override_entry = {},
    const RoutingOptions& routing = {}) {
  return route(parameters, options, override_entry, routing).groups();
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/parameters/detail/routing_table_impl.hpp>
#endif
