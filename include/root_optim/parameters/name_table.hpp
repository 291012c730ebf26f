// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What the name of a parameter says where no module's type is known. Some tensors of rank >= 2 are sets
// of vectors (positions, tokens, codebooks), others are plainly weights. Names are habits, so this is a
// table to read, and whoever knows better overrides it (docs/routing.md).
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include <root_optim/parameters/rule.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// One row of `name_table`. It applies to a name that has one of `words`.
struct NameRow {
  std::string_view kind;   ///< what the routing table calls it: "position"
  Rule rule;               ///< AdamW, or Orthogonalized where the shape allows it
  bool last_word;          ///< whether only the last word of the name counts
  std::string_view words;  ///< in lower case, by spaces; a star at an end stands for any letters
};

/// Which names say what; the first row that applies decides.
///
/// A name is cut into words wherever something other than a letter stands, and before a capital that
/// follows a small letter: "rel_pos_h2" and "relPosH" are rel, pos, h. The last word of an English name
/// says what the thing is: an embed_proj is a projection, a proj_bias a bias. Some rows therefore look
/// at last words only.
///
/// Source: the names that timm, Mamba, Megatron-LM, torchtitan and x-transformers give to parameters of
/// their own, and those that they exclude from weight decay or from Muon.
const std::array<NameRow, 11>& name_table();

/// The names that mark an output head where `output_heads` gives none. A parameter of rank >= 2 that is
/// called "weight" goes by the last path component of its module, any other by its own name.
const std::vector<std::string>& default_output_heads();

namespace detail {

/// The words of a name in lower case; see `name_table`.
std::vector<std::string> words_of(const std::string& name);

/// "pos" is itself, "position*" starts so, "*norm" ends so, "*embed*" has it anywhere.
bool matches(std::string_view word, std::string_view pattern);

/// The row of `name_table` that applies; nullptr if the name says nothing.
const NameRow* find_name_row(const std::string& name);

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/parameters/detail/name_table_impl.hpp>
#endif
