// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of parameters/routing.hpp.
#pragma once

#include <c10/util/ArrayRef.h>                 // IntArrayRef
#include <c10/util/Exception.h>                // TORCH_CHECK, c10::Error
#include <torch/nn/functional/instancenorm.h>  // instancenorm.h of LibTorch 1.13 needs it first
#include <torch/nn/module.h>                   // Module
#include <torch/nn/modules/activation.h>       // MultiheadAttentionImpl
#include <torch/nn/modules/batchnorm.h>        // BatchNorm*Impl
#include <torch/nn/modules/conv.h>             // Conv*Impl, ConvTranspose*Impl
#include <torch/nn/modules/embedding.h>        // EmbeddingImpl, EmbeddingBagImpl
#include <torch/nn/modules/instancenorm.h>     // InstanceNorm*Impl
#include <torch/nn/modules/linear.h>           // LinearImpl
#include <torch/nn/modules/normalization.h>    // LayerNormImpl, GroupNormImpl
#include <torch/nn/modules/rnn.h>              // LSTMImpl, GRUImpl, RNNImpl and their cells

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <root_optim/parameters/detail/parameter_checks.hpp>  // complex_advice
#include <root_optim/parameters/layout.hpp>                   // MatrixLayout, matrix_shapes
#include <root_optim/parameters/name_table.hpp>               // find_name_row
#include <root_optim/parameters/routing.hpp>
#include <root_optim/parameters/rule.hpp>
#include <root_optim/parameters/suitability.hpp>  // suitability, matrix_suitability
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE const std::vector<std::string>& default_output_heads() {
  static const std::vector<std::string> names{"lm_head", "output_head", "head", "classifier"};
  return names;
}

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

/// What a proposal rests on. What is known better decides between the names of a tied tensor.
enum class Basis {
  Unknown,  ///< on the shape alone, or on `RoutingOptions::unknown`
  Matrix,   ///< type or name allow orthogonalization, and so does the shape
  Shape,    ///< type or name allow orthogonalization, the shape does not
  Kind      ///< type or name call for AdamW
};

/// A rule, a layout and a reason for one registration.
struct Proposal {
  Rule rule;
  MatrixLayout layout;
  std::string reason;
  Basis basis;
  std::string kind;
};

ROOT_OPTIM_COLD inline Proposal to_adamw(const std::string& kind, Basis basis = Basis::Kind,
                                         const std::string& rest = "") {
  return {Rule::AdamW, MatrixLayout(), kind + rest, basis, kind};
}

/// Orthogonalized if the shape allows it.
ROOT_OPTIM_COLD inline Proposal to_matrices(const std::string& kind, const Suitability& verdict,
                                            const MatrixLayout& layout) {
  const std::string reason = ": " + verdict.reason;
  if (!verdict.orthogonalize) return to_adamw(kind, Basis::Shape, reason);
  return {Rule::Orthogonalized, layout, kind + reason, Basis::Matrix, kind};
}

/// Whether `module` is one of these, or of a class derived from one; false without a module.
template <class... Impl>
ROOT_OPTIM_COLD bool is_any(const torch::nn::Module* module) {
  return ((dynamic_cast<const Impl*>(module) != nullptr) || ...);
}

/// The `groups` of a convolution of one of these classes; 0 for anything else.
template <class... Impl>
ROOT_OPTIM_COLD int64_t convolution_groups(const torch::nn::Module* module) {
  int64_t groups = 0;
  const auto read = [&groups](const auto* convolution) {
    if (convolution != nullptr) groups = convolution->options.groups();
  };
  (read(dynamic_cast<const Impl*>(module)), ...);
  return groups;
}

ROOT_OPTIM_COLD inline bool starts_with(const std::string& text, const std::string& prefix) {
  return text.compare(0, prefix.size(), prefix) == 0;
}

ROOT_OPTIM_COLD inline bool ends_with(const std::string& text, const std::string& suffix) {
  return text.size() >= suffix.size() &&
         text.compare(text.size() - suffix.size(), suffix.size(), suffix) == 0;
}

ROOT_OPTIM_COLD inline bool is_normalization(const torch::nn::Module* module) {
  namespace nn = torch::nn;
  return is_any<nn::LayerNormImpl, nn::GroupNormImpl, nn::BatchNorm1dImpl, nn::BatchNorm2dImpl,
                nn::BatchNorm3dImpl, nn::InstanceNorm1dImpl, nn::InstanceNorm2dImpl,
                nn::InstanceNorm3dImpl>(module);
}

ROOT_OPTIM_COLD inline bool is_number(const std::string& component) {
  return !component.empty() && component.find_first_not_of("0123456789") == std::string::npos;
}

/// The component of a parameter's name that says the most, and the one above it (empty if none):
/// "weight" and the numbers of lists are passed over, if there is anything else.
struct NameParts {
  std::string last;
  std::string above;
  bool in_list;  // a number stood below `last`
};

ROOT_OPTIM_COLD inline NameParts name_parts(const Registration& at) {
  std::string path = at.key == "weight" && !at.path.empty() ? at.path : at.name();
  const auto cut = [&path] {
    const size_t dot = path.rfind('.');
    std::string component = path.substr(dot == std::string::npos ? 0 : dot + 1);
    path.erase(dot == std::string::npos ? 0 : dot);
    return component;
  };
  NameParts parts{cut(), "", false};
  while (is_number(parts.last) && !path.empty()) {
    parts.last = cut();
    parts.in_list = true;
  }
  parts.above = cut();
  return parts;
}

/// Whether a tensor of rank 3 holds the weights of all experts of a mixture, [experts, m, n], by its
/// own name or by that of the module around it; `experts.0` is one expert of a list.
ROOT_OPTIM_COLD inline bool is_expert_stack(const NameParts& name, int64_t rank) {
  if (rank != 3 || name.in_list) return false;
  for (const std::string& component : {name.last, name.above}) {
    for (const std::string& word : words_of(component)) {
      if (word == "expert" || word == "experts") return true;
    }
  }
  return false;
}

ROOT_OPTIM_COLD inline Proposal propose_convolution(int64_t groups, bool transposed,
                                                    c10::IntArrayRef shape) {
  // weight: [out, in / groups, ...], transposed: [in, out / groups, ...]
  const int64_t inputs_per_group = transposed ? shape[0] / groups : shape[1];
  if (groups > 1 && inputs_per_group == 1) return to_adamw("depthwise convolution");
  MatrixLayout layout;
  if (groups > 1) layout.split_rows(groups);
  if (transposed) layout.out_dim(1);
  const std::string kind = transposed ? "transposed convolution" : "convolution";
  return to_matrices(groups > 1 ? "grouped " + kind : kind, matrix_suitability(shape, layout),
                     layout);
}

/// A proposal for a parameter of rank >= 2 of which the type of the module says nothing.
ROOT_OPTIM_COLD inline Proposal propose_by_name(const Registration& at,
                                                const RoutingOptions& routing) {
  const NameParts parts = name_parts(at);
  std::string name = parts.last;
  const NameRow* row = find_name_row(name);
  if (row == nullptr && at.key == "weight") row = find_name_row(name = at.key);
  const auto by_name = [&name] { return " by the name \"" + name + "\""; };
  if (row != nullptr && row->rule == Rule::AdamW) {
    return to_adamw(std::string(row->kind), Basis::Kind, by_name());
  }

  if (is_expert_stack(parts, at.parameter.dim())) {
    const MatrixLayout layout = MatrixLayout().batch(true);
    return to_matrices("experts by the name", suitability(at.parameter.sizes(), layout), layout);
  }
  if (row == nullptr && routing.unknown() == Rule::AdamW) {
    return to_adamw("unknown", Basis::Unknown, ", as given");
  }
  const Suitability verdict = suitability(at.parameter.sizes(), MatrixLayout());
  if (row != nullptr) {
    Proposal proposal = to_matrices(std::string(row->kind) + by_name(), verdict, MatrixLayout());
    proposal.kind = row->kind;
    return proposal;
  }
  return {verdict.orthogonalize ? Rule::Orthogonalized : Rule::AdamW, MatrixLayout(),
          "unknown, by shape: check " + verdict.reason, Basis::Unknown, "unknown"};
}

/// A proposal for a parameter of rank >= 2 that is no output head.
ROOT_OPTIM_COLD inline Proposal propose_by_module(const Registration& at,
                                                  const RoutingOptions& routing) {
  namespace nn = torch::nn;
  const torch::nn::Module* module = at.module;
  const c10::IntArrayRef shape = at.parameter.sizes();
  const auto by_shape = [&shape](const std::string& kind, const MatrixLayout& layout) {
    return to_matrices(kind, matrix_suitability(shape, layout), layout);
  };

  if (is_normalization(module)) return to_adamw("normalization");
  if (is_any<nn::EmbeddingImpl, nn::EmbeddingBagImpl>(module)) return to_adamw("embedding");

  if (at.key == "weight") {
    if (is_any<nn::LinearImpl>(module)) return by_shape("linear", MatrixLayout());
    if (const int64_t groups =
            convolution_groups<nn::Conv1dImpl, nn::Conv2dImpl, nn::Conv3dImpl>(module)) {
      return propose_convolution(groups, false, shape);
    }
    if (const int64_t groups = convolution_groups<nn::ConvTranspose1dImpl, nn::ConvTranspose2dImpl,
                                                  nn::ConvTranspose3dImpl>(module)) {
      return propose_convolution(groups, true, shape);
    }
  }

  if (is_any<nn::MultiheadAttentionImpl>(module)) {
    if (at.key == "in_proj_weight") {
      return by_shape("attention q, k, v", MatrixLayout().split_rows(3));
    }
    if (ends_with(at.key, "_proj_weight")) return by_shape("attention", MatrixLayout());
  }

  const int64_t gates = is_any<nn::LSTMImpl, nn::LSTMCellImpl>(module) ? 4
                        : is_any<nn::GRUImpl, nn::GRUCellImpl>(module) ? 3
                        : is_any<nn::RNNImpl, nn::RNNCellImpl>(module) ? 1
                                                                       : 0;
  if (gates > 0 && (starts_with(at.key, "weight_ih") || starts_with(at.key, "weight_hh"))) {
    return gates > 1 ? by_shape("recurrent gates", MatrixLayout().split_rows(gates))
                     : by_shape("recurrent", MatrixLayout());
  }
  if (gates > 0 && starts_with(at.key, "weight_hr")) {
    return by_shape("recurrent projection", MatrixLayout());
  }

  return propose_by_name(at, routing);
}

/// Finds output heads, by the caller's names or else by `default_output_heads`, and remembers which
/// of the caller's names were of use.
class OutputHeads {
 public:
  ROOT_OPTIM_COLD explicit OutputHeads(std::vector<std::string> names)
      : names_(std::move(names)), used_(names_.size(), false) {}

  ROOT_OPTIM_COLD bool named_by_caller(const Registration& at) {
    bool found = false;
    for (size_t i = 0; i < names_.size(); ++i) {
      const std::string& head = names_[i];
      // The parameter itself, a module anywhere above it, or the last component of either.
      if (at.name() == head || starts_with(at.name(), head + ".") || at.module_name() == head ||
          at.given_name() == head) {
        found = used_[i] = true;
      }
    }
    return found;
  }

  ROOT_OPTIM_COLD bool named_by_default(const Registration& at) const {
    if (!names_.empty()) return false;
    for (const std::string& head : default_output_heads()) {
      if (at.given_name() == head) return true;
    }
    return false;
  }

  ROOT_OPTIM_COLD void check_all_used() const {
    for (size_t i = 0; i < names_.size(); ++i) {
      TORCH_CHECK(used_[i],
                  "root_optim::route: expected every output head to name a parameter or "
                  "module with parameters, got '",
                  names_[i], "', which names none");
    }
  }

 private:
  std::vector<std::string> names_;
  std::vector<bool> used_;
};

ROOT_OPTIM_COLD inline Proposal propose(const Registration& at, const RoutingOptions& routing,
                                        OutputHeads& heads) {
  const bool named_head = heads.named_by_caller(at);
  const int64_t rank = at.parameter.dim();
  if (rank < 2) {
    const NameRow* row = find_name_row(at.key);
    return to_adamw(is_normalization(at.module)             ? "normalization"
                    : row != nullptr && row->kind == "bias" ? "bias"
                                                            : "rank " + std::to_string(rank));
  }
  if (named_head) return to_adamw("output head", Basis::Kind, ", as given");
  if (heads.named_by_default(at)) {
    return to_adamw("output head", Basis::Kind, " by the name \"" + at.given_name() + "\"");
  }
  return propose_by_module(at, routing);
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void add_registration(Registration at,
                                                        std::vector<Registration>& out) {
  if (!at.parameter.defined()) return;
  const at::ScalarType dtype = at.parameter.scalar_type();
  const bool is_real = at::isFloatingType(dtype);
  TORCH_CHECK(is_real || !at.parameter.requires_grad(),
              "root_optim::route: expected real floating-point parameters, got dtype ",
              c10::toString(dtype), " for '", at.name(), "'", complex_advice(dtype));
  if (is_real) out.push_back(std::move(at));
}

/// Lists the parameters in the order of `module.named_parameters()`, tied ones under each of their
/// names. (Not `named_modules()`: that demands a module held by a shared_ptr.)
ROOT_OPTIM_COLD inline void collect_registrations(const torch::nn::Module& module,
                                                  const std::string& path,
                                                  std::vector<Registration>& out) {
  for (const auto& item : module.named_parameters(/*recurse=*/false)) {
    add_registration({&module, path, item.key(), item.value()}, out);
  }
  for (const auto& item : module.named_children()) {
    collect_registrations(*item.value(), path.empty() ? item.key() : path + "." + item.key(), out);
  }
}

/// An entry, and what its rule rests on.
struct Decision {
  RoutingEntry entry;
  Basis basis;
};

/// One decision for a parameter with all its names: the first of those that know most. An embedding
/// tied to an output head is both, so whatever calls for AdamW decides.
ROOT_OPTIM_COLD inline Decision resolve_ties(const std::vector<Registration>& names,
                                             const RoutingOptions& routing, OutputHeads& heads) {
  Proposal chosen = propose(names.front(), routing, heads);
  std::string ties;
  for (size_t i = 1; i < names.size(); ++i) {
    Proposal other = propose(names[i], routing, heads);
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
  for (const auto& names : parameters) decisions.push_back(resolve_ties(names, routing, heads));
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
