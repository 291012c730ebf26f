// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What names say: the words of a name, the table, names that peers use on both sides of it, and that
// docs/routing.md shows the table as it is.
#include "support/catch_torch.hpp"

#include <root_optim/parameters/name_table.hpp>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

using root_optim::NameRow;
using root_optim::Rule;
using root_optim::detail::find_name_row;
using root_optim::detail::matches;
using root_optim::detail::words_of;

namespace {
using Words = std::vector<std::string>;

/// The kind of the row that applies; "" if none does.
std::string kind_of(const std::string& name) {
  const NameRow* row = find_name_row(name);
  return row == nullptr ? "" : std::string(row->kind);
}
}  // namespace

TEST_CASE("the words of a name", "[names]") {
  CHECK(words_of("rel_pos_h2") == Words{"rel", "pos", "h"});
  CHECK(words_of("relPosH") == Words{"rel", "pos", "h"});
  CHECK(words_of("A_log") == Words{"a", "log"});
  CHECK(words_of("PatchEmbed") == Words{"patch", "embed"});
  CHECK(words_of("WQ") == Words{"wq"});
  CHECK(words_of("w1w3") == Words{"w", "w"});
  CHECK(words_of("dense_4h_to_h") == Words{"dense", "h", "to", "h"});
  CHECK(words_of("0").empty());
  CHECK(words_of("").empty());
  CHECK(words_of("_").empty());
}

TEST_CASE("a star at an end stands for any letters", "[names]") {
  CHECK(matches("pos", "pos"));
  CHECK_FALSE(matches("position", "pos"));
  CHECK_FALSE(matches("pospos", "pos"));
  CHECK_FALSE(matches("po", "pos"));
  CHECK(matches("position", "position*"));
  CHECK(matches("positional", "position*"));
  CHECK_FALSE(matches("deposition", "position*"));
  CHECK(matches("norm", "*norm"));
  CHECK(matches("normnorm", "*norm"));
  CHECK_FALSE(matches("normal", "*norm"));
  CHECK(matches("tokensembedded", "*embed*"));
  CHECK_FALSE(matches("member", "*embed*"));
}

TEST_CASE("names of vectors follow AdamW", "[names]") {
  const auto all = [](const std::string& kind, const Words& names) {
    for (const std::string& name : names) {
      CAPTURE(name);
      CHECK(kind_of(name) == kind);
      CHECK(find_name_row(name)->rule == Rule::AdamW);
    }
  };
  all("bias", {"bias", "attention_biases", "in_proj_bias", "bias_k", "bias_ih_l0", "mlp1_bias_EG",
               "B_bias", "relative_position_bias_table", "relative_attention_bias", "dt_bias"});
  all("gain", {"logit_scale", "gamma", "static_beta", "qk_norm_q_scale", "norm1", "layerNorm",
               "temperature", "gain", "linear_scale"});
  all("embedding", {"wte", "wpe", "emb", "tok_emb", "pos_embed", "pos_embed_window",
                    "word_embeddings", "tokens_embed", "output_embed", "PatchEmbed", "embed_weight",
                    "position_embedding_table", "mask_embedding", "unembed"});
  all("position", {"pos", "pixel_pos", "patch_pos", "rel_pos_h", "rel_pos_w", "height_rel",
                   "position_encoding", "positional", "pos_enc", "pe", "query_pos", "freqs"});
  all("rate", {"A_log", "log_dt", "log_A_real", "inv_dt"});
  all("token", {"cls_token", "cls_token1", "reg_tokens", "mask_token", "register_tokens",
                "query_tokens", "prompt", "prompt_key", "soft_prompts", "latent", "latents",
                "queries", "memory", "mem_k", "init_states", "registers"});
  all("codebook", {"codebook", "codebooks_0", "codevectors", "prototypes", "hash_table"});
}

TEST_CASE("names of weights stay orthogonalized", "[names]") {
  for (const std::string& name :
       Words{"weight", "weight_hh", "weight_ih_l0", "w", "w1", "w13", "w1_EFD", "W_q", "wq", "Wo",
             "wi_0", "qkv", "kernel", "lora_A", "lora_B", "up_proj", "gate_up_proj",
             "kv_a_proj_with_mqa", "projection", "mm_projector", "fc1", "fc_in", "c_fc",
             "dense_h_to_4h", "linear", "linear1", "conv1", "pwconv2", "to_q", "to_kv",
             "to_output_weights", "mlp1_weight_EGD",
             // more than one word says something, and the whole is a map
             "embed_proj", "time_emb_proj", "pos_proj", "linear_pos", "linear_tokens",
             "token_projection", "pos_conv", "conv_pos", "to_latents", "to_queries", "dt_proj",
             "bias_proj", "codebook_proj", "norm_proj"}) {
    CAPTURE(name);
    REQUIRE(kind_of(name) == "weight");
    CHECK(find_name_row(name)->rule == Rule::Orthogonalized);
  }
}

TEST_CASE("names that say nothing are unknown, and none is taken for vectors", "[names]") {
  for (const std::string& name :
       Words{"",        "0",        "mystery",      "q",           "k",
             "v",       "o",        "query",        "key",         "value",
             "gate",    "up",       "down",         "attn",        "mixer",
             "experts", "router",   "reduction",    "expand",      "shortcut",
             "member",  "normal",   "normalize",    "catalog",     "logits",
             "relu",    "relation", "token_mixing", "latent_up",   "posterior",
             "compose", "tables",   "decoder",      "state_space", "prompter"}) {
    CAPTURE(name);
    CHECK(find_name_row(name) == nullptr);
  }
}

TEST_CASE("docs/routing.md shows the name table as it is", "[names]") {
  std::ifstream file(std::filesystem::path(__FILE__).parent_path() / "../../../docs/routing.md");
  std::stringstream text;
  text << file.rdbuf();
  size_t at = 0;  // in this order
  for (const NameRow& row : root_optim::name_table()) {
    std::string line = "| " + std::string(row.kind) + " | " + to_string(row.rule) + " | " +
                       (row.last_word ? "the last word is" : "a word is");
    std::istringstream words{std::string(row.words)};
    const char* before = " `";
    for (std::string word; words >> word; before = ", `") line += before + word + "`";
    CAPTURE(line);
    at = text.str().find(line + " |", at);
    REQUIRE(at != std::string::npos);
  }
}
