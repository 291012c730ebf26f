// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of parameters/detail/proposal.hpp: by the module's type first, then by the name.
#pragma once

#include <c10/util/ArrayRef.h>                 // IntArrayRef
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
#include <vector>

#include <root_optim/parameters/detail/proposal.hpp>
#include <root_optim/parameters/detail/registration.hpp>
#include <root_optim/parameters/layout.hpp>
#include <root_optim/parameters/name_table.hpp>  // find_name_row
#include <root_optim/parameters/rule.hpp>
#include <root_optim/parameters/suitability.hpp>  // suitability, matrix_suitability
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE Proposal to_adamw(const std::string& kind, Basis basis,
                                                    const std::string& rest) {
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
ROOT_OPTIM_COLD inline Proposal propose_by_name(const Registration& at, Rule unknown) {
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
  if (row == nullptr && unknown == Rule::AdamW) {
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

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE Proposal propose(const Registration& at, Rule unknown) {
  namespace nn = torch::nn;
  const torch::nn::Module* module = at.module;
  const int64_t rank = at.parameter.dim();
  if (rank < 2) {
    const NameRow* row = find_name_row(at.key);
    return to_adamw(is_normalization(module)                ? "normalization"
                    : row != nullptr && row->kind == "bias" ? "bias"
                                                            : "rank " + std::to_string(rank));
  }
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

  return propose_by_name(at, unknown);
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
