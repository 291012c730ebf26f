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
  /// The table of `entries`, whose groups get copies of `options`.
  RoutingTable(std::vector<RoutingEntry> entries, Options options)
      : entries_(std::move(entries)), options_(std::move(options)) {}

  /// One entry per parameter, in the order of the module's `named_parameters()`.
  const std::vector<RoutingEntry>& entries() const& { return entries_; }
  /// By value from a temporary, so that `for (auto& entry : route(...).entries())` does not dangle.
  std::vector<RoutingEntry> entries() && { return std::move(entries_); }

  /// One group per rule and layout, each with a complete copy of the options in which rule, layout
  /// and names are set.
  ///
  /// Order: the orthogonalized groups, the one with the default layout first and the others as they
  /// first appear in the table; AdamW last. Rules and layouts that no parameter has make no group.
  std::vector<torch::optim::OptimizerParamGroup> groups() const;

  /// The table as text for logs, one line for each parameter.
  std::string to_string() const { return detail::format_entries(entries_); }

  friend std::ostream& operator<<(std::ostream& stream, const RoutingTable& table) {
    return stream << table.to_string();
  }

 private:
  void add_group(std::vector<torch::optim::OptimizerParamGroup>& groups, Rule rule,
                 const MatrixLayout& layout) const;

  std::vector<RoutingEntry> entries_;
  Options options_;
};

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
  for (const MatrixLayout& layout : layouts) add_group(result, Rule::Orthogonalized, layout);
  add_group(result, Rule::AdamW, MatrixLayout());
  return result;
}

template <class Options>
ROOT_OPTIM_COLD void RoutingTable<Options>::add_group(
    std::vector<torch::optim::OptimizerParamGroup>& groups, Rule rule,
    const MatrixLayout& layout) const {
  std::vector<at::Tensor> parameters;
  std::vector<std::string> names;
  for (const RoutingEntry& entry : entries_) {
    if (entry.rule != rule || (rule == Rule::Orthogonalized && entry.layout != layout)) continue;
    parameters.push_back(entry.parameter);
    names.push_back(entry.name);
  }
  if (parameters.empty()) return;
  auto options = std::make_unique<Options>(options_);
  options->rule(rule).layout(layout).names(std::move(names));
  groups.emplace_back(std::move(parameters), std::move(options));
}

namespace detail {

template <class Options>
void check_routable(const Options& options) {
  options.validate();
  TORCH_CHECK(
      options.rule() == Rule::Auto && options.layout() == MatrixLayout() && options.names().empty(),
      "root_optim::route: expected options without rule, layout and names, which it sets per "
      "parameter (use the override), got rule ",
      to_string(options.rule()), ", layout '", to_string(options.layout()), "' and ",
      options.names().size(), " names");
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
/// @param override_entry may change rule, layout and reason of every entry; optional.
/// @param routing       names of the output heads, and the rule of unknown parameters; optional.
/// @throws c10::Error if a parameter that requires a gradient is not real floating-point, an override
///                    does not fit its parameter or would have no effect, an output head names
///                    nothing, or the options are out of range.
/// Example: tests/unit/parameters/test_param_groups.cpp
template <class Options>
RoutingTable<Options> route(const torch::nn::Module& module, const Options& options,
                            const RoutingOverride& override_entry = {},
                            const RoutingOptions& routing = {}) {
  detail::check_routable(options);
  return {detail::route_entries(module, override_entry, routing), options};
}

/// The same for a list of names and tensors, where no module's type is known: a
/// `torch::jit::Module`'s `named_parameters()`, a `torch::OrderedDict`, a map, a vector of pairs.
///
/// Names are paths, as in a module: "layers.0.up.weight". Only name and shape decide, so name the output
/// heads, and give the layouts of fused weights by the override.
/// @param parameters a range whose elements are a name and a tensor; every name once.
/// @throws c10::Error as above, and for a name that occurs twice.
template <class Range, class Options, class = detail::RequireNamedTensors<Range>>
RoutingTable<Options> route(const Range& parameters, const Options& options,
                            const RoutingOverride& override_entry = {},
                            const RoutingOptions& routing = {}) {
  detail::check_routable(options);
  return {detail::route_entries(detail::list_registrations(parameters), override_entry, routing),
          options};
}

/// The groups of `route`, to construct an optimizer with: `Root optimizer(param_groups(*model,
/// options))`. Same parameters and errors.
template <class Options>
std::vector<torch::optim::OptimizerParamGroup> param_groups(
    const torch::nn::Module& module, const Options& options,
    const RoutingOverride& override_entry = {}, const RoutingOptions& routing = {}) {
  return route(module, options, override_entry, routing).groups();
}

/// The same for a list of names and tensors: `param_groups(scripted.named_parameters(), options)`.
template <class Range, class Options, class = detail::RequireNamedTensors<Range>>
std::vector<torch::optim::OptimizerParamGroup> param_groups(
    const Range& parameters, const Options& options, const RoutingOverride& override_entry = {},
    const RoutingOptions& routing = {}) {
  return route(parameters, options, override_entry, routing).groups();
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/parameters/detail/routing_table_impl.hpp>
#endif
