// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Makes one entry for each parameter of a torch::nn::Module, or of a list of names and tensors: its
// rule, its layout and the reason. The type and name of the module it belongs to decide, and its shape.
// parameters/routing_table.hpp has the table of entries and the parameter groups made of it;
// name_table.hpp judges names, suitability.hpp judges shapes. docs/routing.md shows which parameter goes
// where.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>  // IntArrayRef
#include <torch/nn/module.h>

#include <functional>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/parameters/detail/registration.hpp>
#include <root_optim/parameters/layout.hpp>
#include <root_optim/parameters/name_table.hpp>  // default_output_heads
#include <root_optim/parameters/rule.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// Where one parameter goes, and why.
struct RoutingEntry {
  std::string name;      ///< as in `module.named_parameters()`; of a tied tensor, the first name
  at::Tensor parameter;  ///< the module's own tensor, not a copy
  Rule rule;             ///< Orthogonalized or AdamW
  MatrixLayout layout;   ///< used by Orthogonalized
  std::string reason;    ///< in words, for the table
  std::string kind;  ///< what it is, the reason's first words: "linear", "normalization", "bias", …

  c10::IntArrayRef shape() const { return parameter.sizes(); }  ///< of the parameter
};

/// Called for every entry, in the order of the module's parameters; may change rule, layout and reason.
/// `Rule::Auto` has the shape judged under the entry's layout, and so does a new layout for an entry
/// that follows AdamW by its shape. A layout without effect, under AdamW or below rank 2, is an error.
using RoutingOverride = std::function<void(RoutingEntry&)>;

/// Settings of `route` beside the override. A list of names stands for `output_heads` alone:
/// `route(model, options, {}, {"decoder.out"})`.
class RoutingOptions {
 public:
  RoutingOptions() = default;
  /// With these output heads; not explicit.
  RoutingOptions(std::vector<std::string> output_heads) : output_heads_(std::move(output_heads)) {}
  /// The same in braces.
  RoutingOptions(std::initializer_list<std::string> output_heads) : output_heads_(output_heads) {}

  /// The names of the output heads: each of a parameter ("head.weight"), of a module with everything in
  /// it ("decoder.head"), or the last component of either ("head"). Default: none, which stands for
  /// `default_output_heads()`.
  RoutingOptions& output_heads(std::vector<std::string> names);
  /// The rule of parameters of rank >= 2 about which neither type nor name says anything. Auto (the
  /// default): by their shape, and the table says "unknown, by shape: check". AdamW: all follow AdamW.
  /// @throws c10::Error for Orthogonalized.
  RoutingOptions& unknown(Rule rule);

  const std::vector<std::string>& output_heads() const { return output_heads_; }
  Rule unknown() const { return unknown_; }

 private:
  std::vector<std::string> output_heads_;
  Rule unknown_ = Rule::Auto;
};

namespace detail {

/// The entries of `parameters/routing_table.hpp`'s `route`, which documents the parameters.
std::vector<RoutingEntry> route_entries(std::vector<Registration> registrations,
                                        const RoutingOverride& change,
                                        const RoutingOptions& routing);

std::vector<RoutingEntry> route_entries(const torch::nn::Module& module,
                                        const RoutingOverride& change,
                                        const RoutingOptions& routing);

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/parameters/detail/routing_impl.hpp>
#endif
