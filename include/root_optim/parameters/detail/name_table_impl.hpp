// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of parameters/name_table.hpp.
#pragma once

#include <algorithm>  // min
#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <root_optim/parameters/name_table.hpp>
#include <root_optim/parameters/rule.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE const std::array<NameRow, 11>& name_table() {
  constexpr bool last_word = true, any_word = false;
  static constexpr std::array<NameRow, 11> table{{
      {"bias", Rule::AdamW, last_word, "bias biases"},
      {"gain", Rule::AdamW, last_word, "scale scales gain gains gamma beta temperature *norm"},
      {"weight", Rule::Orthogonalized, any_word, "*proj* *linear* *conv* fc dense to"},
      {"bias", Rule::AdamW, any_word, "bias"},
      {"embedding", Rule::AdamW, any_word, "*embed* emb wte wpe"},
      {"position", Rule::AdamW, any_word, "pos position* pe rel relative rope freqs"},
      {"rate", Rule::AdamW, any_word, "log dt"},  // of a state space: A_log, log_dt
      {"token", Rule::AdamW, any_word, "prompt prompts mem memory"},
      {"token", Rule::AdamW, last_word,
       "token tokens latent latents queries prefix register registers slots state states"},
      {"codebook", Rule::AdamW, any_word,
       "codebook codebooks codes codevectors prototypes centroids table"},
      {"weight", Rule::Orthogonalized, any_word, "weight weights w wq wk wv wo wi qkv kernel lora"},
  }};
  return table;
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE const std::vector<std::string>& default_output_heads() {
  static const std::vector<std::string> names{"lm_head", "output_head", "head", "classifier"};
  return names;
}

namespace detail {

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE std::vector<std::string> words_of(const std::string& name) {
  std::vector<std::string> words;
  const auto is_capital = [](char c) { return c >= 'A' && c <= 'Z'; };
  const auto is_letter = [&](char c) { return is_capital(c) || (c >= 'a' && c <= 'z'); };
  char before = ' ';
  for (const char c : name) {
    if (is_letter(c)) {
      const bool starts = !is_letter(before) || (is_capital(c) && !is_capital(before));
      if (starts) words.emplace_back();
      words.back() += is_capital(c) ? static_cast<char>(c - 'A' + 'a') : c;
    }
    before = c;
  }
  return words;
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE bool matches(std::string_view word, std::string_view pattern) {
  const bool open_start = pattern.front() == '*', open_end = pattern.back() == '*';
  const size_t first = open_start ? 1 : 0;
  const std::string_view core = pattern.substr(first, pattern.size() - first - (open_end ? 1 : 0));
  const size_t found = open_start && !open_end ? word.rfind(core) : word.find(core);
  return found != std::string_view::npos && (open_start || found == 0) &&
         (open_end || found + core.size() == word.size());
}

/// Whether `word` matches one of `patterns`, which spaces separate.
ROOT_OPTIM_COLD inline bool matches_any(std::string_view word, std::string_view patterns) {
  for (size_t first = 0; first < patterns.size();) {
    const size_t end = (std::min)(patterns.find(' ', first), patterns.size());
    if (matches(word, patterns.substr(first, end - first))) return true;
    first = end + 1;
  }
  return false;
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE const NameRow* find_name_row(const std::string& name) {
  const std::vector<std::string> words = words_of(name);
  for (const NameRow& row : name_table()) {
    const size_t first = row.last_word && !words.empty() ? words.size() - 1 : 0;
    for (size_t i = first; i < words.size(); ++i) {
      if (matches_any(words[i], row.words)) return &row;
    }
  }
  return nullptr;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
