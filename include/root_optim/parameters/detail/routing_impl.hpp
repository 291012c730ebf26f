// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of parameters/routing.hpp: output heads, tied parameters and overrides. What a type or
// a name proposes is in proposal.hpp.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK, c10::Error
#include <torch/nn/module.h>

#include <cstddef>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <root_optim/parameters/detail/output_heads.hpp>
#include <root_optim/parameters/detail/proposal.hpp>
#include <root_optim/parameters/detail/registration.hpp>
#include <root_optim/parameters/layout.hpp>  // MatrixLayout
#include <root_optim/parameters/routing.hpp>
#include <root_optim/parameters/rule.hpp>
#include <root_optim/parameters/suitability.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE RoutingOptions& RoutingOptions::output_heads(
    std::vector<std::string> names) {
  output_heads_ = std::move(names);
  return *this;
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE RoutingOptions& RoutingOptions::unknown(Rule rule) {
  TORCH_CHECK(rule != Rule::Orthogonalized,
              "root_optim::RoutingOptions::unknown: expected auto or adamw, got ", to_string(rule));
  unknown_ = rule;
  return *this;
}

namespace detail {

/// An output head follows AdamW, whatever else it is.
ROOT_OPTIM_COLD inline Proposal propose_with_heads(const Registration& at, Rule unknown,
                                                   OutputHeads& heads) {
  const bool named = heads.named_by_caller(at);
  if (at.parameter.dim() >= 2) {
    if (named) return to_adamw("output head", Basis::Kind, ", as given");
    if (heads.named_by_default(at)) {
      return to_adamw("output head", Basis::Kind, " by the name \"" + at.given_name() + "\"");
    }
  }
  return propose(at, unknown);
}

/// An entry, and what its rule rests on.
struct Decision {
  RoutingEntry entry;
  Basis basis;
};

/// One decision for a parameter with all its names: the first of those that know most. An embedding
/// tied to an output head is both, so whatever calls for AdamW decides.
ROOT_OPTIM_COLD inline Decision resolve_ties(const std::vector<Registration>& names, Rule unknown,
                                             OutputHeads& heads) {
  Proposal chosen = propose_with_heads(names.front(), unknown, heads);
  std::string ties;
  for (size_t i = 1; i < names.size(); ++i) {
    Proposal other = propose_with_heads(names[i], unknown, heads);
    if (other.basis > chosen.basis) chosen = std::move(other);
    ties += (i == 1 ? "; tied to " : ", ") + names[i].name();
  }
  return {{names.front().name(), names.front().parameter, chosen.rule, chosen.layout,
           chosen.reason + ties, chosen.kind},
          chosen.basis};
}

/// The judgment of the entry's shape under its layout, in words; decides between the rules if the
/// rule is Auto.
ROOT_OPTIM_COLD inline std::string judge(RoutingEntry& entry, const std::string& parameter) {
  Suitability verdict{true, ""};
  try {
    verdict = suitability(entry.shape(), entry.layout);
  } catch (const c10::Error& error) {
    TORCH_CHECK(false, "root_optim::route: expected an override with a layout that fits ",
                parameter, ", got: ", error.what_without_backtrace());
  }
  if (entry.rule == Rule::Auto) {
    TORCH_CHECK(verdict.orthogonalize || entry.layout == MatrixLayout(),
                "root_optim::route: expected a layout whose matrices suit orthogonalization, or "
                "Rule::Orthogonalized to insist on it, got '",
                to_string(entry.layout), "', which makes ", verdict.reason, ", for ", parameter);
    entry.rule = verdict.orthogonalize ? Rule::Orthogonalized : Rule::AdamW;
    return " by shape, " + verdict.reason;
  }
  return ", " + verdict.reason;
}

/// Nothing that the override asks for is dropped: it holds, or it is an error.
ROOT_OPTIM_COLD inline void apply_override(const RoutingOverride& change, Decision& decision) {
  RoutingEntry& entry = decision.entry;
  const RoutingEntry before = entry;
  change(entry);
  TORCH_CHECK(
      entry.name == before.name && entry.parameter.is_same(before.parameter),
      "root_optim::route: expected the override to change rule, layout and reason only, got "
      "another name or tensor for parameter '",
      before.name, "'");
  if (entry.rule == before.rule && entry.layout == before.layout) return;

  const std::string parameter = c10::str("parameter '", entry.name, "' of shape ", entry.shape());
  const std::string layout = to_string(entry.layout);
  const bool asks_layout = entry.layout != before.layout && entry.layout != MatrixLayout();
  TORCH_CHECK(
      entry.parameter.dim() >= 2 || entry.rule != Rule::Orthogonalized,
      "root_optim::route: expected rank >= 2 for an override to the rule orthogonalized, got ",
      parameter);
  TORCH_CHECK(entry.parameter.dim() >= 2 || !asks_layout,
              "root_optim::route: expected rank >= 2 for an override of the layout, got '", layout,
              "' for ", parameter);
  if (entry.rule == Rule::AdamW && asks_layout) {
    TORCH_CHECK(before.rule == Rule::AdamW,
                "root_optim::route: expected no layout under Rule::AdamW, got '", layout, "' for ",
                parameter);
    TORCH_CHECK(decision.basis != Basis::Kind,
                "root_optim::route: expected Rule::Orthogonalized beside a layout for what follows "
                "AdamW by its type or name, got the layout '",
                layout, "' alone for ", parameter, " (", before.reason, ")");
    entry.rule = Rule::Auto;  // the shape decided, and this layout makes other matrices of it
  }
  const std::string judgment = entry.rule == Rule::AdamW ? "" : judge(entry, parameter);
  if (entry.rule == Rule::AdamW)
    entry.layout = MatrixLayout();  // the table's own, without meaning there
  entry.reason = entry.reason == before.reason
                     ? "override" + judgment + " (was " + to_string(before.rule) + ", " +
                           to_string(before.layout) + ": " + before.reason + ")"
                     : "override" + judgment + ": " + entry.reason;
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE std::vector<RoutingEntry> route_entries(
    std::vector<Registration> registrations, const RoutingOverride& change,
    const RoutingOptions& routing) {
  std::vector<std::vector<Registration>> parameters;  // each with all its names
  std::unordered_map<const c10::TensorImpl*, size_t> index;
  for (Registration& at : registrations) {
    const auto [found, is_new] =
        index.emplace(at.parameter.unsafeGetTensorImpl(), parameters.size());
    if (is_new) parameters.emplace_back();
    parameters[found->second].push_back(std::move(at));
  }

  OutputHeads heads(routing.output_heads());
  std::vector<Decision> decisions;
  decisions.reserve(parameters.size());
  for (const auto& names : parameters)
    decisions.push_back(resolve_ties(names, routing.unknown(), heads));
  heads.check_all_used();
  std::vector<RoutingEntry> entries;
  entries.reserve(decisions.size());
  for (Decision& decision : decisions) {
    if (change) apply_override(change, decision);
    entries.push_back(std::move(decision.entry));
  }
  return entries;
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE std::vector<RoutingEntry> route_entries(
    const torch::nn::Module& module, const RoutingOverride& change, const RoutingOptions& routing) {
  std::vector<Registration> registrations;
  collect_registrations(module, "", registrations);
  return route_entries(std::move(registrations), change, routing);
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
