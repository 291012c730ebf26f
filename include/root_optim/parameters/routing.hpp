// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// From a torch::nn::Module to one entry per parameter: its rule, its layout and the reason, by the
// type and name of the module it belongs to and by its shape. The table of entries and the
// parameter groups made of it are in parameters/routing_table.hpp, the judgment of shapes in suitability.hpp.
// docs/routing.md shows which parameter goes where.
#pragma once

#include <ATen/core/Tensor.h>
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
#include <functional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <root_optim/parameters/layout.hpp>  // Layout, matrix_shapes
#include <root_optim/parameters/rule.hpp>
#include <root_optim/parameters/suitability.hpp>  // suitability, matrix_suitability
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// Where one parameter goes, and why.
struct RoutingEntry {
  std::string name;      ///< as in `module.named_parameters()`; of a tied tensor, the first name
  at::Tensor parameter;  ///< the module's own tensor, not a copy
  Rule rule;             ///< Orthogonalized or AdamW
  Layout layout;         ///< used by Orthogonalized
  std::string reason;    ///< in words, for the table

  c10::IntArrayRef shape() const { return parameter.sizes(); }
};

/// Called for every entry, in the order of the module's parameters; may change rule, layout and
/// reason. `Rule::Auto` asks for the judgment of the shape under the entry's layout.
using RoutingOverride = std::function<void(RoutingEntry&)>;

/// Without `output_heads`, a parameter of rank >= 2 is an output head if this is its name: the last
/// path component of its module if the parameter is called "weight", else the parameter's own.
inline const std::vector<std::string>& default_output_heads() {
  static const std::vector<std::string> names{"lm_head", "output_head", "head", "classifier"};
  return names;
}

namespace detail {

/// One name under which a module holds a parameter.
struct Registration {
  const torch::nn::Module* module;
  std::string path;  // of the module; empty for the root
  std::string key;   // in the module
  at::Tensor parameter;

  std::string name() const { return path.empty() ? key : path + "." + key; }

  std::string module_name() const { return path.substr(path.rfind('.') + 1); }  // npos + 1 == 0

  /// What the user called it: "weight" says nothing, the module's name does.
  std::string given_name() const { return key == "weight" && !path.empty() ? module_name() : key; }
};

/// A rule, a layout and a reason for one registration.
struct Proposal {
  Rule rule;
  Layout layout;
  std::string reason;
};

inline Proposal to_adamw(std::string reason) { return {Rule::AdamW, Layout(), std::move(reason)}; }

/// Orthogonalized if the shape allows it.
inline Proposal to_matrices(const std::string& kind, const Suitability& verdict,
                            const Layout& layout) {
  std::string reason = kind + ": " + verdict.reason;
  return verdict.orthogonalize ? Proposal{Rule::Orthogonalized, layout, std::move(reason)}
                               : to_adamw(std::move(reason));
}

/// Whether `module` is one of these, or of a class derived from one.
template <class... Impl>
bool is_any(const torch::nn::Module& module) {
  return ((dynamic_cast<const Impl*>(&module) != nullptr) || ...);
}

/// The `groups` of a convolution of one of these classes; 0 for any other module.
template <class... Impl>
int64_t convolution_groups(const torch::nn::Module& module) {
  int64_t groups = 0;
  const auto read = [&groups](const auto* convolution) {
    if (convolution != nullptr) groups = convolution->options.groups();
  };
  (read(dynamic_cast<const Impl*>(&module)), ...);
  return groups;
}

inline bool starts_with(const std::string& text, const std::string& prefix) {
  return text.compare(0, prefix.size(), prefix) == 0;
}

inline bool ends_with(const std::string& text, const std::string& suffix) {
  return text.size() >= suffix.size() &&
         text.compare(text.size() - suffix.size(), suffix.size(), suffix) == 0;
}

inline bool is_normalization(const torch::nn::Module& module) {
  namespace nn = torch::nn;
  return is_any<nn::LayerNormImpl, nn::GroupNormImpl, nn::BatchNorm1dImpl, nn::BatchNorm2dImpl,
                nn::BatchNorm3dImpl, nn::InstanceNorm1dImpl, nn::InstanceNorm2dImpl,
                nn::InstanceNorm3dImpl>(module);
}

/// wte, wpe, emb, *_emb, pos_emb*, *embed*: of parameters whose module's type says nothing.
inline bool names_embedding(std::string name) {
  for (char& c : name) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return name == "wte" || name == "wpe" || name == "emb" || ends_with(name, "_emb") ||
         starts_with(name, "pos_emb") || name.find("embed") != std::string::npos;
}

/// bias, bias_*, *_bias.
inline bool names_bias(const std::string& name) {
  return name == "bias" || starts_with(name, "bias_") || ends_with(name, "_bias");
}

inline Proposal propose_convolution(int64_t groups, bool transposed, c10::IntArrayRef shape) {
  // weight: [out, in / groups, ...], transposed: [in, out / groups, ...]
  const int64_t inputs_per_group = transposed ? shape[0] / groups : shape[1];
  if (groups > 1 && inputs_per_group == 1) return to_adamw("depthwise convolution");
  Layout layout;
  if (groups > 1) layout.split_rows(groups);
  if (transposed) layout.out_dim(1);
  const std::string kind = transposed ? "transposed convolution" : "convolution";
  return to_matrices(groups > 1 ? "grouped " + kind : kind, matrix_suitability(shape, layout),
                     layout);
}

/// A proposal for a parameter of rank >= 2 that is no output head.
inline Proposal propose_by_module(const Registration& at) {
  namespace nn = torch::nn;
  const torch::nn::Module& module = *at.module;
  const c10::IntArrayRef shape = at.parameter.sizes();
  const auto by_shape = [&shape](const std::string& kind, const Layout& layout) {
    return to_matrices(kind, matrix_suitability(shape, layout), layout);
  };

  if (is_normalization(module)) return to_adamw("normalization");
  if (is_any<nn::EmbeddingImpl, nn::EmbeddingBagImpl>(module)) return to_adamw("embedding");

  if (at.key == "weight") {
    if (is_any<nn::LinearImpl>(module)) return by_shape("linear", Layout());
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
      return by_shape("attention q, k, v", Layout().split_rows(3));
    }
    if (ends_with(at.key, "_proj_weight")) return by_shape("attention", Layout());
  }

  const int64_t gates = is_any<nn::LSTMImpl, nn::LSTMCellImpl>(module) ? 4
                        : is_any<nn::GRUImpl, nn::GRUCellImpl>(module) ? 3
                        : is_any<nn::RNNImpl, nn::RNNCellImpl>(module) ? 1
                                                                       : 0;
  if (gates > 0 && (starts_with(at.key, "weight_ih") || starts_with(at.key, "weight_hh"))) {
    return gates > 1 ? by_shape("recurrent gates", Layout().split_rows(gates))
                     : by_shape("recurrent", Layout());
  }
  if (gates > 0 && starts_with(at.key, "weight_hr")) {
    return by_shape("recurrent projection", Layout());
  }

  // From here on only the name and the shape can tell.
  if (names_bias(at.key)) return to_adamw("bias");
  if (names_embedding(at.given_name())) {
    return to_adamw("embedding by the name \"" + at.given_name() + "\"");
  }
  return to_matrices("by shape", suitability(shape, Layout()), Layout());
}

/// Finds output heads, by the caller's names or else by `default_output_heads`, and remembers which
/// of the caller's names were of use.
class OutputHeads {
 public:
  explicit OutputHeads(std::vector<std::string> names)
      : names_(std::move(names)), used_(names_.size(), false) {}

  bool named_by_caller(const Registration& at) {
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

  bool named_by_default(const Registration& at) const {
    if (!names_.empty()) return false;
    for (const std::string& head : default_output_heads()) {
      if (at.given_name() == head) return true;
    }
    return false;
  }

  void check_all_used() const {
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

inline Proposal propose(const Registration& at, OutputHeads& heads) {
  const bool named_head = heads.named_by_caller(at);
  const int64_t rank = at.parameter.dim();
  if (rank < 2) {
    return to_adamw(is_normalization(*at.module) ? "normalization"
                    : names_bias(at.key)         ? "bias"
                                                 : "rank " + std::to_string(rank));
  }
  if (named_head) return to_adamw("output head, as given");
  if (heads.named_by_default(at)) {
    return to_adamw("output head by the name \"" + at.given_name() + "\"");
  }
  return propose_by_module(at);
}

/// Lists the defined parameters in the order of `module.named_parameters()`, tied ones under each
/// of their names. (Not `named_modules()`: that demands a module held by a shared_ptr.)
inline void collect_registrations(const torch::nn::Module& module, const std::string& path,
                                  std::vector<Registration>& out) {
  for (const auto& item : module.named_parameters(/*recurse=*/false)) {
    if (!item.value().defined()) continue;
    Registration at{&module, path, item.key(), item.value()};
    const bool is_real = at::isFloatingType(at.parameter.scalar_type());
    TORCH_CHECK(is_real || !at.parameter.requires_grad(),
                "root_optim::route: expected real floating-point parameters, got dtype ",
                c10::toString(at.parameter.scalar_type()), " for '", at.name(), "'");
    if (is_real) out.push_back(std::move(at));
  }
  for (const auto& item : module.named_children()) {
    collect_registrations(*item.value(), path.empty() ? item.key() : path + "." + item.key(), out);
  }
}

/// One entry for a parameter with all its names. Any one name that calls for AdamW decides: an
/// embedding tied to an output head is both.
inline RoutingEntry resolve_ties(const std::vector<Registration>& names, OutputHeads& heads) {
  size_t decides = 0;
  std::vector<Proposal> proposals;
  for (const Registration& at : names) {
    proposals.push_back(propose(at, heads));
    if (proposals.back().rule == Rule::AdamW && proposals[decides].rule != Rule::AdamW) {
      decides = proposals.size() - 1;
    }
  }
  Proposal& chosen = proposals[decides];
  for (size_t i = 1; i < names.size(); ++i) {
    chosen.reason += (i == 1 ? "; tied to " : ", ") + names[i].name();
  }
  return {names.front().name(), names.front().parameter, chosen.rule, chosen.layout, chosen.reason};
}

inline void apply_override(const RoutingOverride& change, RoutingEntry& entry) {
  const RoutingEntry before = entry;
  change(entry);
  TORCH_CHECK(
      entry.name == before.name && entry.parameter.is_same(before.parameter),
      "root_optim::route: expected the override to change rule, layout and reason only, got "
      "another name or tensor for parameter '",
      before.name, "'");
  if (entry.rule == before.rule && entry.layout == before.layout) return;

  const std::string parameter = c10::str("parameter '", entry.name, "' of shape ", entry.shape());
  TORCH_CHECK(
      entry.rule != Rule::Orthogonalized || entry.parameter.dim() >= 2,
      "root_optim::route: expected rank >= 2 for an override to the rule orthogonalized, got ",
      parameter);
  std::string judgment;
  if (entry.rule != Rule::AdamW) {
    try {
      const Suitability verdict = suitability(entry.shape(), entry.layout);
      if (entry.rule == Rule::Auto) {
        entry.rule = verdict.orthogonalize ? Rule::Orthogonalized : Rule::AdamW;
        judgment = " by shape, " + verdict.reason;
      }
    } catch (const c10::Error& error) {
      TORCH_CHECK(false, "root_optim::route: expected an override with a layout that fits ",
                  parameter, ", got: ", error.what_without_backtrace());
    }
  }
  if (entry.rule == Rule::AdamW) entry.layout = Layout();  // without meaning there
  entry.reason = entry.reason == before.reason
                     ? "override" + judgment + " (was " + to_string(before.rule) + ", " +
                           to_string(before.layout) + ": " + before.reason + ")"
                     : "override" + judgment + ": " + entry.reason;
}

/// The entries of `parameters/routing_table.hpp`'s `route`, which documents the parameters.
inline std::vector<RoutingEntry> route_entries(const torch::nn::Module& module,
                                               const RoutingOverride& change,
                                               std::vector<std::string> output_heads) {
  std::vector<Registration> registrations;
  collect_registrations(module, "", registrations);

  std::vector<std::vector<Registration>> parameters;  // each with all its names
  std::unordered_map<const c10::TensorImpl*, size_t> index;
  for (Registration& at : registrations) {
    const auto [found, is_new] =
        index.emplace(at.parameter.unsafeGetTensorImpl(), parameters.size());
    if (is_new) parameters.emplace_back();
    parameters[found->second].push_back(std::move(at));
  }

  OutputHeads heads(std::move(output_heads));
  std::vector<RoutingEntry> entries;
  entries.reserve(parameters.size());
  for (const auto& names : parameters) entries.push_back(resolve_ties(names, heads));
  heads.check_all_used();
  if (change) {
    for (RoutingEntry& entry : entries) apply_override(change, entry);
  }
  return entries;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
