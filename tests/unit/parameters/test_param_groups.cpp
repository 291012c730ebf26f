// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Which parameter goes where: the judgment of shapes, the routing of modules by type and name,
// ties, output heads, overrides, printing, and the groups as the optimizer consumes them.
#include "support/catch_torch.hpp"

#include <root_optim/muon.hpp>
#include <root_optim/parameters.hpp>
#include <root_optim/root.hpp>

#include <sstream>
#include <string>
#include <vector>

#include "support/groups.hpp"
#include "support/tolerances.hpp"

using root_optim::MatrixLayout;
using root_optim::param_groups;
using root_optim::Root;
using root_optim::RootOptions;
using root_optim::route;
using root_optim::RoutingEntry;
using root_optim::RoutingOptions;
using root_optim::RoutingTable;
using root_optim::Rule;
using test::contains;
using test::options_of;

namespace nn = torch::nn;

namespace {

/// One line an entry: "name | rule | layout | reason".
std::vector<std::string> lines(const std::vector<RoutingEntry>& entries) {
  std::vector<std::string> result;
  for (const RoutingEntry& entry : entries) {
    result.push_back(entry.name + " | " + to_string(entry.rule) + " | " + to_string(entry.layout) +
                     " | " + entry.reason);
  }
  return result;
}

const RoutingEntry& entry_of(const std::vector<RoutingEntry>& entries, const std::string& name) {
  for (const RoutingEntry& entry : entries) {
    if (entry.name == name) return entry;
  }
  throw std::logic_error("no entry named " + name);
}

/// A user's own module, with parameters that are given as (name, shape).
struct RawModule : nn::Module {
  RawModule(std::initializer_list<std::pair<const char*, std::vector<int64_t>>> shapes) {
    for (const auto& [name, shape] : shapes) register_parameter(name, torch::randn(shape));
  }
};

std::shared_ptr<RawModule> raw(
    std::initializer_list<std::pair<const char*, std::vector<int64_t>>> shapes) {
  return std::make_shared<RawModule>(shapes);
}

/// A Linear of the user's own, with a low-rank adapter.
struct AdaptedLinearImpl : nn::LinearImpl {
  AdaptedLinearImpl(int64_t in, int64_t out) : nn::LinearImpl(in, out) {
    register_parameter("adapter", torch::randn({8, in}));
    register_parameter("bias_of_adapter", torch::randn({8, in}));
  }
};

/// Holds a tensor of another module under a name of its own, as a tied output head does.
struct SharesWeight : nn::Module {
  explicit SharesWeight(const at::Tensor& weight) { register_parameter("weight", weight); }
};

struct Model : nn::Module {
  template <class M>
  Model& add(const std::string& name, const M& module) {
    register_module(name, module);
    return *this;
  }
};

RootOptions options() { return RootOptions(0.01); }

}  // namespace

// ---------------------------------------------------------------- shapes

TEST_CASE("suitability: rank, smaller side, aspect and the shape of a depthwise kernel decide",
          "[routing]") {
  const auto check = [](std::vector<int64_t> shape, const MatrixLayout& layout, bool orthogonalize,
                        const std::string& reason) {
    CAPTURE(shape, to_string(layout));
    const auto verdict = root_optim::suitability(shape, layout);
    REQUIRE(verdict.orthogonalize == orthogonalize);
    REQUIRE(verdict.reason == reason);
  };
  check({}, MatrixLayout(), false, "rank 0");
  check({64}, MatrixLayout(), false, "rank 1");
  check({64}, MatrixLayout().split_rows(3), false, "rank 1");  // no layout fits: not asked
  check({8, 8}, MatrixLayout(), true, "8x8");
  check({7, 64}, MatrixLayout(), false, "7x64 (side < 8)");
  check({64, 7}, MatrixLayout(), false, "64x7 (side < 8)");
  check({0, 64}, MatrixLayout(), false, "0x64 (side < 8)");
  check({8, 2048}, MatrixLayout(), true, "8x2048");
  check({2049, 8}, MatrixLayout(), false, "2049x8 (aspect > 256)");
  check({16, 3, 3, 3}, MatrixLayout(), true, "flattened to 16x27");
  check({8, 64, 64}, MatrixLayout(), false, "flattened to 8x4096 (aspect > 256)");
  check({8, 64, 32}, MatrixLayout(), true, "flattened to 8x2048");
  check({16, 1, 3, 3}, MatrixLayout(), false, "shape of a depthwise kernel: size(1) = 1");
  check({16, 1, 3}, MatrixLayout(), false, "flattened to 16x3 (side < 8)");
  check({1, 1, 64}, MatrixLayout(), false, "flattened to 1x64 (side < 8)");
  // A layout says what the shape alone does not: these are matrices.
  check({16, 1, 64, 64}, MatrixLayout().batch(true), true, "a batch of 64x64");
  check({32, 1, 3, 3}, MatrixLayout().split_rows(2), true, "2 of 16x9");
  check({16, 1}, MatrixLayout(), false, "16x1 (side < 8)");
  check({48, 16}, MatrixLayout().split_rows(3), true, "3 of 16x16");
  check({21, 16}, MatrixLayout().split_rows(3), false, "7x16 (side < 8)");
  check({40, 16}, MatrixLayout().split_rows({16, 16, 8}), true, "3 matrices of several shapes");
  check({36, 16}, MatrixLayout().split_rows({16, 16, 4}), false, "4x16 (side < 8)");
  check({8, 32, 4, 4}, MatrixLayout().out_dim(1), true, "32x128");
  check({4, 16, 32}, MatrixLayout().batch(true), true, "a batch of 16x32");
  REQUIRE_THROWS_WITH(root_optim::suitability({10, 16}, MatrixLayout().split_rows(3)),
                      contains("to divide the first dimension"));
}

// ---------------------------------------------------------------- modules

TEST_CASE("route: every kind of module goes where docs/routing.md says", "[routing]") {
  Model model;
  model.add("embedding", nn::Embedding(100, 16))
      .add("bag", nn::EmbeddingBag(100, 16))
      .add("linear", nn::Linear(16, 32))
      .add("adapted", std::make_shared<AdaptedLinearImpl>(16, 32))
      .add("narrow", nn::Linear(nn::LinearOptions(16, 4).bias(false)))
      .add("table", nn::Linear(nn::LinearOptions(8, 2049).bias(false)))
      .add("bilinear", nn::Bilinear(nn::BilinearOptions(4, 4, 16).bias(false)))
      .add("prelu", nn::PReLU());
  REQUIRE(lines(route(model, options()).entries()) ==
          std::vector<std::string>{
              "embedding.weight | adamw | matrix | embedding",
              "bag.weight | adamw | matrix | embedding",
              "linear.weight | orthogonalized | matrix | linear: 32x16",
              "linear.bias | adamw | matrix | bias",
              "adapted.weight | orthogonalized | matrix | linear: 32x16",
              "adapted.bias | adamw | matrix | bias",
              "adapted.adapter | orthogonalized | matrix | unknown, by shape: check 8x16",
              "adapted.bias_of_adapter | adamw | matrix | bias by the name \"bias_of_adapter\"",
              "narrow.weight | adamw | matrix | linear: 4x16 (side < 8)",
              "table.weight | adamw | matrix | linear: 2049x8 (aspect > 256)",
              "bilinear.weight | orthogonalized | matrix | weight by the name \"bilinear\": "
              "flattened to 16x16",
              "prelu.weight | adamw | matrix | rank 1",
          });
}

TEST_CASE("route: convolutions, grouped, depthwise and transposed", "[routing]") {
  Model model;
  model.add("conv1", nn::Conv1d(nn::Conv1dOptions(8, 16, 3)))
      .add("conv2", nn::Conv2d(nn::Conv2dOptions(3, 16, 3).bias(false)))
      .add("conv3", nn::Conv3d(nn::Conv3dOptions(2, 16, 2).bias(false)))
      .add("one_channel", nn::Conv2d(nn::Conv2dOptions(1, 16, 3).bias(false)))
      .add("grouped", nn::Conv2d(nn::Conv2dOptions(8, 32, 3).groups(4).bias(false)))
      .add("many_groups", nn::Conv2d(nn::Conv2dOptions(32, 32, 3).groups(16).bias(false)))
      .add("depthwise", nn::Conv2d(nn::Conv2dOptions(16, 32, 3).groups(16).bias(false)))
      .add("up1", nn::ConvTranspose1d(nn::ConvTranspose1dOptions(8, 16, 3).bias(false)))
      .add("up2", nn::ConvTranspose2d(nn::ConvTranspose2dOptions(16, 32, 3).groups(2)))
      .add("up3", nn::ConvTranspose3d(nn::ConvTranspose3dOptions(8, 16, 2).bias(false)))
      .add("up_one_output", nn::ConvTranspose2d(nn::ConvTranspose2dOptions(16, 1, 3).bias(false)))
      .add("up_depthwise",
           nn::ConvTranspose2d(nn::ConvTranspose2dOptions(16, 16, 3).groups(16).bias(false)));
  REQUIRE(lines(route(model, options()).entries()) ==
          std::vector<std::string>{
              "conv1.weight | orthogonalized | matrix | convolution: 16x24",
              "conv1.bias | adamw | matrix | bias",
              "conv2.weight | orthogonalized | matrix | convolution: 16x27",
              "conv3.weight | orthogonalized | matrix | convolution: 16x16",
              "one_channel.weight | orthogonalized | matrix | convolution: 16x9",
              "grouped.weight | orthogonalized | 4 row blocks | grouped convolution: 4 of 8x18",
              "many_groups.weight | adamw | matrix | grouped convolution: 2x18 (side < 8)",
              "depthwise.weight | adamw | matrix | depthwise convolution",
              "up1.weight | orthogonalized | out dim 1 | transposed convolution: 16x24",
              "up2.weight | orthogonalized | 2 row blocks, out dim 1 | "
              "grouped transposed convolution: 2 of 16x72",
              "up2.bias | adamw | matrix | bias",
              "up3.weight | orthogonalized | out dim 1 | transposed convolution: 16x64",
              "up_one_output.weight | adamw | matrix | transposed convolution: 1x144 (side < 8)",
              "up_depthwise.weight | adamw | matrix | depthwise convolution",
          });
}

TEST_CASE("route: recurrent gates and attention projections are blocks", "[routing]") {
  Model model;
  model.add("lstm", nn::LSTM(nn::LSTMOptions(16, 32).proj_size(8)))
      .add("gru", nn::GRU(nn::GRUOptions(16, 32).bias(false).bidirectional(true)))
      .add("rnn", nn::RNN(nn::RNNOptions(16, 32).bias(false)))
      .add("lstm_cell", nn::LSTMCell(nn::LSTMCellOptions(16, 32).bias(false)))
      .add("gru_cell", nn::GRUCell(nn::GRUCellOptions(16, 32).bias(false)))
      .add("rnn_cell", nn::RNNCell(nn::RNNCellOptions(16, 4).bias(false)))
      .add("attention",
           nn::MultiheadAttention(nn::MultiheadAttentionOptions(16, 2).add_bias_kv(true)))
      .add("cross", nn::MultiheadAttention(
                        nn::MultiheadAttentionOptions(16, 2).bias(false).kdim(8).vdim(24)));
  REQUIRE(
      lines(route(model, options()).entries()) ==
      std::vector<std::string>{
          "lstm.weight_ih_l0 | orthogonalized | 4 row blocks | recurrent gates: 4 of 32x16",
          "lstm.weight_hh_l0 | orthogonalized | 4 row blocks | recurrent gates: 4 of 32x8",
          "lstm.bias_ih_l0 | adamw | matrix | bias",
          "lstm.bias_hh_l0 | adamw | matrix | bias",
          "lstm.weight_hr_l0 | orthogonalized | matrix | recurrent projection: 8x32",
          "gru.weight_ih_l0 | orthogonalized | 3 row blocks | recurrent gates: 3 of 32x16",
          "gru.weight_hh_l0 | orthogonalized | 3 row blocks | recurrent gates: 3 of 32x32",
          "gru.weight_ih_l0_reverse | orthogonalized | 3 row blocks | recurrent gates: 3 of 32x16",
          "gru.weight_hh_l0_reverse | orthogonalized | 3 row blocks | recurrent gates: 3 of 32x32",
          "rnn.weight_ih_l0 | orthogonalized | matrix | recurrent: 32x16",
          "rnn.weight_hh_l0 | orthogonalized | matrix | recurrent: 32x32",
          "lstm_cell.weight_ih | orthogonalized | 4 row blocks | recurrent gates: 4 of 32x16",
          "lstm_cell.weight_hh | orthogonalized | 4 row blocks | recurrent gates: 4 of 32x32",
          "gru_cell.weight_ih | orthogonalized | 3 row blocks | recurrent gates: 3 of 32x16",
          "gru_cell.weight_hh | orthogonalized | 3 row blocks | recurrent gates: 3 of 32x32",
          "rnn_cell.weight_ih | adamw | matrix | recurrent: 4x16 (side < 8)",
          "rnn_cell.weight_hh | adamw | matrix | recurrent: 4x4 (side < 8)",
          "attention.in_proj_weight | orthogonalized | 3 row blocks | attention q, k, v: 3 of "
          "16x16",
          "attention.in_proj_bias | adamw | matrix | bias",
          "attention.bias_k | adamw | matrix | bias by the name \"bias_k\"",
          "attention.bias_v | adamw | matrix | bias by the name \"bias_v\"",
          "attention.out_proj.weight | orthogonalized | matrix | linear: 16x16",
          "attention.out_proj.bias | adamw | matrix | bias",
          "cross.q_proj_weight | orthogonalized | matrix | attention: 16x16",
          "cross.k_proj_weight | orthogonalized | matrix | attention: 16x8",
          "cross.v_proj_weight | orthogonalized | matrix | attention: 16x24",
          "cross.out_proj.weight | orthogonalized | matrix | linear: 16x16",
      });
}

TEST_CASE("route: normalizations and a user's own parameters", "[routing]") {
  Model model;
  model.add("layer", nn::LayerNorm(nn::LayerNormOptions({8, 8})))
      .add("group", nn::GroupNorm(2, 8))
      .add("batch", nn::BatchNorm2d(8))
      .add("instance", nn::InstanceNorm1d(nn::InstanceNorm1dOptions(8).affine(true)))
      .add("mine", raw({{"kernel", {16, 1, 3, 3}},
                        {"stacked", {16, 8, 4}},
                        {"gain", {32}},
                        {"temperature", {}},
                        {"relation_bias", {16, 16}},
                        {"pos_emb_2d", {1, 32, 16}},
                        {"tok_emb", {32, 16}},
                        {"wte", {32, 16}},
                        {"PatchEmbed", {32, 16}},
                        {"member", {32, 16}}}))
      .add("query_embedding", raw({{"weight", {32, 16}}, {"projection", {32, 16}}}))
      .add("patch_embed", nn::Linear(nn::LinearOptions(16, 32).bias(false)));
  REQUIRE(
      lines(route(model, options()).entries()) ==
      std::vector<std::string>{
          "layer.weight | adamw | matrix | normalization",
          "layer.bias | adamw | matrix | normalization",
          "group.weight | adamw | matrix | normalization",
          "group.bias | adamw | matrix | normalization",
          "batch.weight | adamw | matrix | normalization",
          "batch.bias | adamw | matrix | normalization",
          "instance.weight | adamw | matrix | normalization",
          "instance.bias | adamw | matrix | normalization",
          "mine.kernel | adamw | matrix | weight by the name \"kernel\": shape of a depthwise "
          "kernel: size(1) = 1",
          "mine.stacked | orthogonalized | matrix | unknown, by shape: check flattened to 16x32",
          "mine.gain | adamw | matrix | rank 1",
          "mine.temperature | adamw | matrix | rank 0",
          "mine.relation_bias | adamw | matrix | bias by the name \"relation_bias\"",
          "mine.pos_emb_2d | adamw | matrix | embedding by the name \"pos_emb_2d\"",
          "mine.tok_emb | adamw | matrix | embedding by the name \"tok_emb\"",
          "mine.wte | adamw | matrix | embedding by the name \"wte\"",
          "mine.PatchEmbed | adamw | matrix | embedding by the name \"PatchEmbed\"",
          "mine.member | orthogonalized | matrix | unknown, by shape: check 32x16",
          "query_embedding.weight | adamw | matrix | embedding by the name \"query_embedding\"",
          "query_embedding.projection | orthogonalized | matrix | weight by the name "
          "\"projection\": 32x16",
          "patch_embed.weight | orthogonalized | matrix | linear: 32x16",  // its type decides
      });
}

TEST_CASE("route: tensors that are vectors by their name follow AdamW", "[routing]") {
  const auto table = route(*raw({{"A_log", {256, 16}},
                                 {"relative_position_bias_table", {169, 12}},
                                 {"rel_pos_h", {27, 64}},
                                 {"position_encoding", {128, 64}},
                                 {"pos", {128, 64}},
                                 {"prompt", {16, 64}},
                                 {"queries", {100, 64}},
                                 {"latents", {32, 64}},
                                 {"codebook", {512, 64}},
                                 {"w1", {64, 64}},
                                 {"up_proj", {64, 64}},
                                 {"mystery", {64, 64}}}),
                           options());
  REQUIRE(lines(table.entries()) ==
          std::vector<std::string>{
              "A_log | adamw | matrix | rate by the name \"A_log\"",
              "relative_position_bias_table | adamw | matrix | bias by the name "
              "\"relative_position_bias_table\"",
              "rel_pos_h | adamw | matrix | position by the name \"rel_pos_h\"",
              "position_encoding | adamw | matrix | position by the name \"position_encoding\"",
              "pos | adamw | matrix | position by the name \"pos\"",
              "prompt | adamw | matrix | token by the name \"prompt\"",
              "queries | adamw | matrix | token by the name \"queries\"",
              "latents | adamw | matrix | token by the name \"latents\"",
              "codebook | adamw | matrix | codebook by the name \"codebook\"",
              "w1 | orthogonalized | matrix | weight by the name \"w1\": 64x64",
              "up_proj | orthogonalized | matrix | weight by the name \"up_proj\": 64x64",
              "mystery | orthogonalized | matrix | unknown, by shape: check 64x64",
          });
}

TEST_CASE("route: a name is that of the nearest component that says something", "[routing]") {
  nn::ParameterList prompts;
  prompts->append(at::randn({16, 64}));
  Model deep;
  deep.add("position", raw({{"weight", {16, 64}}}));
  Model model;
  model.add("prompts", prompts)
      .add("blocks", nn::ModuleList(std::make_shared<Model>(deep), raw({{"weight", {16, 64}}})))
      .add("position_mixer", raw({{"mystery", {16, 64}}}));
  REQUIRE(lines(route(model, options()).entries()) ==
          std::vector<std::string>{
              "prompts.0 | adamw | matrix | token by the name \"prompts\"",
              "blocks.0.position.weight | adamw | matrix | position by the name \"position\"",
              "blocks.1.weight | orthogonalized | matrix | weight by the name \"weight\": 16x64",
              "position_mixer.mystery | orthogonalized | matrix | unknown, by shape: check 16x64",
          });
  // With nothing but numbers and "weight" there is no name.
  const auto entries =
      route(nn::ModuleList(raw({{"weight", {16, 64}}}), raw({{"0", {16, 64}}})).operator*(),
            options())
          .entries();
  REQUIRE(entries[0].reason == "weight by the name \"weight\": 16x64");
  REQUIRE(entries[1].reason == "unknown, by shape: check 16x64");
}

TEST_CASE("route: the types of modules come before names", "[routing]") {
  Model model;
  for (const char* name : {"position", "prompt", "codebook", "pos_enc", "embed"}) {
    model.add(name, nn::Linear(nn::LinearOptions(16, 32).bias(false)));
  }
  for (const auto& entry :
       route(model, options(), {}, RoutingOptions().unknown(Rule::AdamW)).entries()) {
    REQUIRE(entry.reason == "linear: 32x16");
  }
}

TEST_CASE("route: one option sends to AdamW what is unknown", "[routing]") {
  Model model;
  model.add("mine", raw({{"mystery", {16, 64}}, {"w1", {16, 64}}, {"weight", {16, 64}}}))
      .add("linear", nn::Linear(nn::LinearOptions(16, 32).bias(false)))
      .add("moe", raw({{"experts", {4, 16, 16}}}))
      .add("out", nn::Linear(nn::LinearOptions(16, 64).bias(false)));
  const RoutingOptions routing = RoutingOptions().unknown(Rule::AdamW).output_heads({"out"});
  REQUIRE(lines(route(model, options(), {}, routing).entries()) ==
          std::vector<std::string>{
              "mine.mystery | adamw | matrix | unknown, as given",
              "mine.w1 | orthogonalized | matrix | weight by the name \"w1\": 16x64",
              "mine.weight | orthogonalized | matrix | weight by the name \"weight\": 16x64",
              "linear.weight | orthogonalized | matrix | linear: 32x16",
              "moe.experts | orthogonalized | batched | experts by the name: a batch of 16x16",
              "out.weight | adamw | matrix | output head, as given",
          });
  // A layout makes a parameter known: it is judged by the matrices that it then is.
  const auto groups = param_groups(
      model, options(),
      [](RoutingEntry& entry) {
        if (entry.name == "mine.mystery") entry.layout.split_rows(2);
      },
      routing);
  REQUIRE(options_of(groups[1]).layout() == MatrixLayout().split_rows(2));
  REQUIRE(options_of(groups[1]).names() == std::vector<std::string>{"mine.mystery"});
  REQUIRE_THROWS_WITH(RoutingOptions().unknown(Rule::Orthogonalized),
                      contains("expected auto or adamw, got orthogonalized"));
  REQUIRE(entry_of(route(model, options(), {}, RoutingOptions().unknown(Rule::Auto)).entries(),
                   "mine.mystery")
              .rule == Rule::Orthogonalized);
}

TEST_CASE("route: the experts of a stack are matrices of their own", "[routing]") {
  Model list;
  list.add("experts", nn::ModuleList(raw({{"w1", {16, 24}}, {"bank", {8, 16, 24}}})));
  Model model;
  model
      .add("moe", raw({{"experts", {8, 64, 64}},      // flattened, its aspect would be too large
                       {"few_experts", {4, 64, 64}},  // or its smaller side too small
                       {"expert_weights", {16, 8, 9}},
                       {"thin_experts", {16, 7, 9}},
                       {"expert_bias", {8, 64}},
                       {"experts_w", {64, 64}},
                       {"conv_experts", {8, 16, 3, 3}}}))
      .add("experts", raw({{"up_proj", {4, 64, 32}}, {"bias", {8, 16}}}))
      .add("list", std::make_shared<Model>(list));
  REQUIRE(
      lines(route(model, options()).entries()) ==
      std::vector<std::string>{
          "moe.experts | orthogonalized | batched | experts by the name: a batch of 64x64",
          "moe.few_experts | orthogonalized | batched | experts by the name: a batch of 64x64",
          "moe.expert_weights | orthogonalized | batched | experts by the name: a batch of 8x9",
          "moe.thin_experts | adamw | matrix | experts by the name: 7x9 (side < 8)",
          "moe.expert_bias | adamw | matrix | bias by the name \"expert_bias\"",
          "moe.experts_w | orthogonalized | matrix | weight by the name \"experts_w\": 64x64",
          "moe.conv_experts | orthogonalized | matrix | weight by the name \"conv_experts\": "
          "flattened to 8x144",
          "experts.up_proj | orthogonalized | batched | experts by the name: a batch of 64x32",
          "experts.bias | adamw | matrix | bias by the name \"bias\"",
          "list.experts.0.w1 | orthogonalized | matrix | weight by the name \"w1\": 16x24",
          "list.experts.0.bank | orthogonalized | matrix | unknown, by shape: check flattened to "
          "8x384",
      });
}

TEST_CASE("route: entries are the module's parameters, in their order", "[routing]") {
  nn::ModuleList blocks(nn::Linear(16, 8), nn::LayerNorm(nn::LayerNormOptions({8})));
  Model model;
  model.add("first", nn::Linear(16, 16))
      .add("blocks", blocks)
      .add("layer", nn::TransformerEncoderLayer(16, 2));
  // A frozen parameter is listed all the same.
  model.named_parameters()["first.weight"].set_requires_grad(false);
  const auto entries = route(model, options()).entries();
  const auto expected = model.named_parameters();
  REQUIRE(entries.size() == expected.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    REQUIRE(entries[i].name == expected[i].key());
    REQUIRE(entries[i].parameter.is_same(expected[i].value()));
    REQUIRE(entries[i].shape() == expected[i].value().sizes());
  }
}

TEST_CASE("a parameter that cannot be trained is left out, one that should be is refused",
          "[routing][errors]") {
  nn::Module module;
  module.register_parameter("codes", at::zeros({4, 4}, at::kLong), /*requires_grad=*/false);
  CHECK(route(module, RootOptions()).entries().empty());
  module.register_parameter("phases", at::zeros({4, 4}, at::kComplexFloat));
  CHECK_THROWS_WITH(
      route(module, RootOptions()),
      contains("root_optim::route: expected real floating-point parameters, got dtype "
               "ComplexFloat for 'phases'; keep the real view as the parameter, "
               "torch::view_as_real(z)"));
}

TEST_CASE("route: a module on the stack, the root's own parameters, and no parameters",
          "[routing]") {
  const nn::LinearImpl linear(16, 8);
  REQUIRE(lines(route(linear, options()).entries()) ==
          std::vector<std::string>{"weight | orthogonalized | matrix | linear: 8x16",
                                   "bias | adamw | matrix | bias"});
  const nn::ReLUImpl none;
  REQUIRE(route(none, options()).entries().empty());
  REQUIRE(param_groups(none, options()).empty());
}

// ---------------------------------------------------------------- ties

TEST_CASE("route: a tensor tied between embedding and head follows AdamW", "[routing]") {
  const nn::Embedding embedding(100, 16);
  const auto tied = std::make_shared<SharesWeight>(embedding->weight);

  Model embedding_first;
  embedding_first.add("wte", embedding).add("out", tied);
  REQUIRE(lines(route(embedding_first, options()).entries()) ==
          std::vector<std::string>{"wte.weight | adamw | matrix | embedding; tied to out.weight"});

  Model head_first;
  head_first.add("out", tied).add("tokens", embedding);
  REQUIRE(
      lines(route(head_first, options()).entries()) ==
      std::vector<std::string>{"out.weight | adamw | matrix | embedding; tied to tokens.weight"});
}

TEST_CASE("route: other ties count once", "[routing]") {
  Model model;
  const nn::Linear linear(nn::LinearOptions(16, 16).bias(false));
  model.add("first", linear)
      .add("second", linear)
      .add("third", std::make_shared<SharesWeight>(linear->weight));
  const auto table = route(model, options());
  REQUIRE(
      lines(table.entries()) ==
      std::vector<std::string>{"first.weight | orthogonalized | matrix | linear: 16x16; tied to "
                               "second.weight, third.weight"});
  REQUIRE(table.groups().size() == 1);
  REQUIRE(table.groups()[0].params().size() == 1);
}

TEST_CASE("route: of a tied tensor's names, the one that says most decides", "[routing]") {
  const nn::Linear linear(nn::LinearOptions(16, 16).bias(false));
  struct Mystery : nn::Module {
    explicit Mystery(const char* name, const at::Tensor& tensor) {
      register_parameter(name, tensor);
    }
  };
  const auto first_of = [&](const char* name) {
    Model model;
    model.add("mine", std::make_shared<Mystery>(name, linear->weight)).add("linear", linear);
    return route(model, options(), {}, RoutingOptions().unknown(Rule::AdamW)).entries()[0];
  };
  REQUIRE(first_of("mystery").reason == "linear: 16x16; tied to linear.weight");
  REQUIRE(first_of("mystery").rule == Rule::Orthogonalized);
  REQUIRE(first_of("prompt").reason == "token by the name \"prompt\"; tied to linear.weight");
}

// ---------------------------------------------------------------- output heads

TEST_CASE("route: an output head is found by the documented names", "[routing]") {
  for (const std::string& name : root_optim::default_output_heads()) {
    Model model;
    model.add(name, nn::Linear(16, 100));
    Model outer;
    outer.add("decoder", std::make_shared<Model>(model)).add("proj", nn::Linear(16, 16));
    const auto entries = route(outer, options()).entries();
    const auto& head = entry_of(entries, "decoder." + name + ".weight");
    REQUIRE(head.rule == Rule::AdamW);
    REQUIRE(head.reason == "output head by the name \"" + name + "\"");
    REQUIRE(entry_of(entries, "decoder." + name + ".bias").reason == "bias");
    REQUIRE(entry_of(entries, "proj.weight").rule == Rule::Orthogonalized);
  }
  REQUIRE(root_optim::default_output_heads() ==
          std::vector<std::string>{"lm_head", "output_head", "head", "classifier"});
  const auto table = route(*raw({{"lm_head", {64, 16}}, {"heads", {64, 16}}}), options());
  REQUIRE(entry_of(table.entries(), "lm_head").reason == "output head by the name \"lm_head\"");
  REQUIRE(entry_of(table.entries(), "heads").rule == Rule::Orthogonalized);
}

TEST_CASE("route: output heads are named as parameter, module or last component", "[routing]") {
  Model model;
  model.add("head", nn::Linear(16, 16))
      .add("classifier", nn::Sequential(nn::Linear(16, 16), nn::ReLU(), nn::Linear(16, 100)))
      .add("decoder", nn::Sequential({{"mid", nn::Linear(16, 16)}, {"out", nn::Linear(16, 100)}}));
  const auto heads = [&model](std::vector<std::string> names) {
    std::vector<std::string> found;
    for (const auto& entry : route(model, options(), {}, std::move(names)).entries()) {
      if (entry.reason == "output head, as given") found.push_back(entry.name);
    }
    return found;
  };
  using Names = std::vector<std::string>;
  REQUIRE(heads({}).empty());
  REQUIRE(heads({"decoder.out.weight"}) == Names{"decoder.out.weight"});
  REQUIRE(heads({"decoder.out"}) == Names{"decoder.out.weight"});
  REQUIRE(heads({"out"}) == Names{"decoder.out.weight"});
  REQUIRE(heads({"classifier"}) == Names{"classifier.0.weight", "classifier.2.weight"});
  REQUIRE(heads({"classifier.2", "out"}) == Names{"classifier.2.weight", "decoder.out.weight"});

  // One list of names, however it is written.
  const Names two{"classifier.2", "out"};
  const size_t expected = route(model, options(), {}, two).groups().back().params().size();
  REQUIRE(param_groups(model, options(), {}, {"classifier.2", "out"}).back().params().size() ==
          expected);
  REQUIRE(param_groups(model, options(), {}, {two}).back().params().size() == expected);
  REQUIRE(param_groups(model, options(), {}, {}).back().params().size() == expected - 1);
  REQUIRE(param_groups(model, options(), {}, RoutingOptions().output_heads(two))
              .back()
              .params()
              .size() == expected);

  // Names that are given replace the documented ones: "head" is then a Linear like any other.
  const auto entries = route(model, options(), {}, {"decoder.out"}).entries();
  REQUIRE(entry_of(entries, "head.weight").rule == Rule::Orthogonalized);
  REQUIRE_THROWS_WITH(route(model, options(), {}, {"out", "lm_heda"}), contains("'lm_heda'"));
}

// ---------------------------------------------------------------- overrides

TEST_CASE("route: an override changes rule and layout, and the reason says so", "[routing]") {
  Model model;
  model.add("qkv", nn::Linear(nn::LinearOptions(16, 48).bias(false)))
      .add("slow", nn::Linear(nn::LinearOptions(16, 16).bias(false)))
      .add("narrow", nn::Linear(nn::LinearOptions(16, 4).bias(false)))
      .add("tall", nn::Linear(nn::LinearOptions(8, 4096).bias(false)))
      .add("tiny", nn::Linear(nn::LinearOptions(16, 6).bias(false)))
      .add("head", nn::Linear(16, 32));
  std::vector<std::string> visited;
  const auto table = route(model, options(), [&visited](RoutingEntry& entry) {
    visited.push_back(entry.name);
    if (entry.name == "qkv.weight") entry.layout.split_rows(3);
    if (entry.name == "slow.weight") entry.rule = Rule::AdamW;
    if (entry.name == "narrow.weight") entry.rule = Rule::Orthogonalized;
    if (entry.name == "tall.weight") {
      entry.layout.split_rows(2);
      entry.rule = Rule::Auto;
    }
    if (entry.name == "tiny.weight") entry.rule = Rule::Auto;
    if (entry.name == "head.weight") {
      entry.rule = Rule::Orthogonalized;
      entry.reason = "no vocabulary";
    }
  });
  REQUIRE(
      lines(table.entries()) ==
      std::vector<std::string>{
          "qkv.weight | orthogonalized | 3 row blocks | override, 3 of 16x16 (was orthogonalized, "
          "matrix: linear: 48x16)",
          "slow.weight | adamw | matrix | override (was orthogonalized, matrix: linear: 16x16)",
          "narrow.weight | orthogonalized | matrix | override, 4x16 (side < 8) (was adamw, matrix: "
          "linear: 4x16 (side < 8))",
          "tall.weight | orthogonalized | 2 row blocks | override by shape, 2 of 2048x8 (was "
          "adamw, matrix: linear: 4096x8 (aspect > 256))",
          "tiny.weight | adamw | matrix | override by shape, 6x16 (side < 8) (was adamw, matrix: "
          "linear: 6x16 (side < 8))",
          "head.weight | orthogonalized | matrix | override, 32x16: no vocabulary",
          "head.bias | adamw | matrix | bias",
      });
  REQUIRE(visited == std::vector<std::string>{"qkv.weight", "slow.weight", "narrow.weight",
                                              "tall.weight", "tiny.weight", "head.weight",
                                              "head.bias"});
}

TEST_CASE("route: overrides as docs/routing.md shows them", "[routing]") {
  Model block;
  block.add("qkv", nn::Linear(nn::LinearOptions(64, 192).bias(false)))
      .add("gqa", nn::Linear(nn::LinearOptions(64, 96).bias(false)));
  Model model;
  model.add("block", std::make_shared<Model>(block))
      .add("router", nn::Linear(nn::LinearOptions(64, 8).bias(false)))
      .add("moe", raw({{"banks", {8, 64, 64}}}));
  // example-begin routing-override
  auto groups = root_optim::param_groups(model, options(), [](root_optim::RoutingEntry& entry) {
    if (entry.name == "block.qkv.weight") entry.layout.split_rows(3);
    if (entry.name == "block.gqa.weight") entry.layout.split_rows({64, 16, 16});
    if (entry.name == "moe.banks") entry.layout.batch(true);
    if (entry.name == "router.weight") entry.rule = root_optim::Rule::AdamW;
  });
  // example-end
  REQUIRE(groups.size() == 4);
  REQUIRE(options_of(groups[0]).layout() == MatrixLayout().split_rows(3));
  REQUIRE(options_of(groups[1]).layout() == MatrixLayout().split_rows({64, 16, 16}));
  REQUIRE(options_of(groups[2]).layout() == MatrixLayout().batch(true));
  REQUIRE(options_of(groups[3]).rule() == Rule::AdamW);
  static_cast<RootOptions&>(groups.back().options()).weight_decay(0);
  Root optimizer(groups);  // accepts all four
  REQUIRE(options_of(optimizer.param_groups()[3]).weight_decay() == 0);
  REQUIRE(options_of(optimizer.param_groups()[2]).weight_decay() != 0);
}

TEST_CASE("route: a layout alone asks for the judgment of the matrices that it makes",
          "[routing]") {
  struct Case {
    std::vector<int64_t> shape;
    MatrixLayout layout;
    std::string reason;  // empty: an error, which says `refused`
    std::string refused;
  };
  const auto batched = MatrixLayout().batch(true);
  const std::vector<Case> cases{
      {{8, 64, 64}, batched, "a batch of 64x64", ""},  // flattened: aspect 512
      {{4, 64, 64}, batched, "a batch of 64x64", ""},  // flattened: side 4
      {{8, 128, 128}, batched, "a batch of 128x128", ""},
      {{8, 64, 32}, batched, "a batch of 64x32", ""},  // flattened: aspect 256, suitable as it was
      {{16, 1, 8, 8}, batched, "a batch of 8x8", ""},  // flattened: looks depthwise
      {{4096, 8}, MatrixLayout().split_rows(64), "64 of 64x8", ""},
      {{4096, 8}, MatrixLayout().split_rows(512), "512 of 8x8", ""},
      {{4096, 8}, MatrixLayout().split_rows(2), "2 of 2048x8", ""},
      {{2400, 8}, MatrixLayout().split_rows(300), "300 of 8x8", ""},
      {{2400, 8}, MatrixLayout().split_rows({1200, 1200}), "2 of 1200x8", ""},
      {{4, 64, 8}, MatrixLayout().out_dim(1), "64x32", ""},
      {{4096, 8}, MatrixLayout().split_rows(1024), "", "4x8 (side < 8)"},
      {{4098, 8}, MatrixLayout().split_rows(2), "", "2049x8 (aspect > 256)"},
      {{2400, 8}, MatrixLayout().split_rows({2393, 7}), "", "2393x8 (aspect > 256)"},
      {{4, 64, 7}, batched, "", "64x7 (side < 8)"},
      {{4, 6}, MatrixLayout().split_rows(2), "", "2x6 (side < 8)"},
      {{4096, 8}, MatrixLayout().split_rows(5), "", "to divide the first dimension"},
      {{4096, 8}, batched, "", "4096x8 (aspect > 256)"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.shape, to_string(c.layout));
    nn::Module module;
    module.register_parameter("mystery", at::randn(c.shape));
    const auto with_layout = [&](RoutingEntry& entry) { entry.layout = c.layout; };
    const auto with_rule = [&](RoutingEntry& entry) {
      entry.layout = c.layout;
      entry.rule = Rule::Orthogonalized;
    };
    if (!c.reason.empty()) {
      const auto table = route(module, options(), with_layout);
      REQUIRE(table.entries()[0].rule == Rule::Orthogonalized);
      REQUIRE(table.entries()[0].layout == c.layout);
      REQUIRE(table.entries()[0].reason.find(", " + c.reason + " (was ") != std::string::npos);
      REQUIRE(options_of(table.groups()[0]).layout() == c.layout);
      Root optimizer(table.groups());  // agrees
      continue;
    }
    REQUIRE_THROWS_WITH(route(module, options(), with_layout),
                        contains(c.refused) && contains("parameter 'mystery'"));
    if (c.refused.find("to divide") != std::string::npos) continue;
    REQUIRE_THROWS_WITH(route(module, options(), with_layout), contains("Rule::Orthogonalized"));
    const auto table = route(module, options(), with_rule);  // whoever insists gets it
    REQUIRE(table.entries()[0].layout == c.layout);
    Root optimizer(table.groups());
  }
}

TEST_CASE("route: a layout alone is no rule for what follows AdamW by type or name", "[routing]") {
  const nn::Embedding embedding(64, 16);
  Model model;
  model.add("wte", embedding)
      .add("tied", std::make_shared<SharesWeight>(embedding->weight))
      .add("norm", nn::LayerNorm(nn::LayerNormOptions({16, 16})))
      .add("lm_head", nn::Linear(nn::LinearOptions(16, 64).bias(false)))
      .add("depthwise", nn::Conv2d(nn::Conv2dOptions(16, 32, 3).groups(16).bias(false)))
      .add("mine", raw({{"prompt", {16, 16}}, {"pair_bias", {16, 16}}}));
  for (const auto& entry : route(model, options()).entries()) {
    CAPTURE(entry.name);
    const auto with = [&](Rule rule) {
      return route(model, options(), [&](RoutingEntry& e) {
        if (e.name != entry.name) return;
        e.layout.split_rows(2);
        e.rule = rule;
      });
    };
    if (entry.parameter.dim() < 2) {
      for (const Rule rule : {Rule::AdamW, Rule::Auto}) {
        REQUIRE_THROWS_WITH(with(rule),
                            contains("expected rank >= 2 for an override of the layout"));
      }
      continue;
    }
    REQUIRE(entry.rule == Rule::AdamW);
    REQUIRE_THROWS_WITH(with(Rule::AdamW),
                        contains("expected Rule::Orthogonalized beside a layout") &&
                            contains("'" + entry.name + "'") && contains(entry.reason));
    const auto insists = with(Rule::Orthogonalized).entries();
    REQUIRE(entry_of(insists, entry.name).layout == MatrixLayout().split_rows(2));
    const auto asks = with(Rule::Auto).entries();  // the shape is then all that counts
    REQUIRE(entry_of(asks, entry.name).rule == Rule::Orthogonalized);
  }
}

TEST_CASE("route: AdamW and a layout in one override contradict each other", "[routing]") {
  Model model;
  model.add("lstm", nn::LSTM(nn::LSTMOptions(16, 8).bias(false)))
      .add("linear", nn::Linear(nn::LinearOptions(16, 32).bias(false)));
  const auto with = [&](const std::string& name, auto change) {
    return route(model, options(), [&name, change](RoutingEntry& entry) {
      if (entry.name == name) change(entry);
    });
  };
  REQUIRE_THROWS_WITH(with("linear.weight",
                           [](RoutingEntry& e) {
                             e.rule = Rule::AdamW;
                             e.layout.split_rows(2);
                           }),
                      contains("expected no layout under Rule::AdamW, got '2 row blocks' for "
                               "parameter 'linear.weight'"));
  // The table's own layout was not asked for.
  const auto table =
      with("lstm.weight_ih_l0", [](RoutingEntry& e) { e.rule = Rule::AdamW; }).entries();
  REQUIRE(entry_of(table, "lstm.weight_ih_l0").rule == Rule::AdamW);
  REQUIRE(entry_of(table, "lstm.weight_ih_l0").layout == MatrixLayout());
  // What is orthogonalized stays so under a layout that would not suit, and the table says it.
  const auto narrow =
      with("linear.weight", [](RoutingEntry& e) { e.layout.split_rows(8); }).entries();
  REQUIRE(entry_of(narrow, "linear.weight").rule == Rule::Orthogonalized);
  REQUIRE(entry_of(narrow, "linear.weight").reason ==
          "override, 4x16 (side < 8) (was orthogonalized, matrix: linear: 32x16)");
  // Asked with Auto, it is judged.
  REQUIRE_THROWS_WITH(with("linear.weight",
                           [](RoutingEntry& e) {
                             e.rule = Rule::Auto;
                             e.layout.split_rows(8);
                           }),
                      contains("Rule::Orthogonalized to insist on it, got '8 row blocks', which "
                               "makes 4x16 (side < 8)"));
}

TEST_CASE("route: an impossible override is an error that names the parameter", "[routing]") {
  Model model;
  model.add("proj", nn::Linear(16, 32));
  const auto with = [&model](const std::string& name, auto change) {
    return route(model, options(), [&name, change](RoutingEntry& entry) {
      if (entry.name == name) change(entry);
    });
  };
  REQUIRE_THROWS_WITH(with("proj.bias", [](RoutingEntry& e) { e.rule = Rule::Orthogonalized; }),
                      contains("rank >= 2") && contains("parameter 'proj.bias' of shape [32]"));
  REQUIRE_THROWS_WITH(with("proj.weight", [](RoutingEntry& e) { e.layout.split_rows(5); }),
                      contains("parameter 'proj.weight' of shape [32, 16]") &&
                          contains("divide the first dimension"));
  REQUIRE_THROWS_WITH(with("proj.weight", [](RoutingEntry& e) { e.layout.out_dim(2); }),
                      contains("'proj.weight'") && contains("out_dim < rank"));
  REQUIRE_THROWS_WITH(with("proj.weight", [](RoutingEntry& e) { e.name = "other"; }),
                      contains("another name or tensor for parameter 'proj.weight'"));
  REQUIRE_THROWS_WITH(
      with("proj.weight", [](RoutingEntry& e) { e.parameter = e.parameter.detach(); }),
      contains("another name or tensor for parameter 'proj.weight'"));
}

TEST_CASE("route: refuses options that already decide, or are out of range", "[routing]") {
  const nn::LinearImpl linear(16, 16);
  REQUIRE_THROWS_WITH(route(linear, options().rule(Rule::AdamW)), contains("got rule adamw"));
  REQUIRE_THROWS_WITH(route(linear, options().layout(MatrixLayout().split_rows(2))),
                      contains("layout '2 row blocks'"));
  REQUIRE_THROWS_WITH(route(linear, options().names({"a"})), contains("1 names"));
  REQUIRE_THROWS_WITH(route(linear, RootOptions(-1.0)), contains("lr"));
}

// ---------------------------------------------------------------- groups and printing

TEST_CASE("RoutingTable: one group per rule and layout, with complete options", "[routing]") {
  Model model;
  model.add("attention", nn::MultiheadAttention(nn::MultiheadAttentionOptions(16, 2)))
      .add("up", nn::ConvTranspose1d(nn::ConvTranspose1dOptions(8, 16, 3)))
      .add("qkv", nn::Linear(16, 48))
      .add("lm_head", nn::Linear(nn::LinearOptions(16, 64).bias(false)));
  const RootOptions base = RootOptions(0.3).momentum(0.8).weight_decay(0.25).betas({0.5, 0.6});
  const auto groups = param_groups(model, base, [](RoutingEntry& entry) {
    if (entry.name == "qkv.weight") entry.layout.split_rows(3);
  });

  struct Expected {
    Rule rule;
    MatrixLayout layout;
    std::vector<std::string> names;
  };
  const std::vector<Expected> expected{
      {Rule::Orthogonalized, MatrixLayout(), {"attention.out_proj.weight"}},
      {Rule::Orthogonalized,
       MatrixLayout().split_rows(3),
       {"attention.in_proj_weight", "qkv.weight"}},
      {Rule::Orthogonalized, MatrixLayout().out_dim(1), {"up.weight"}},
      {Rule::AdamW,
       MatrixLayout(),
       {"attention.in_proj_bias", "attention.out_proj.bias", "up.bias", "qkv.bias",
        "lm_head.weight"}}};
  const auto parameters = model.named_parameters();
  REQUIRE(groups.size() == expected.size());
  for (size_t g = 0; g < groups.size(); ++g) {
    CAPTURE(g);
    RootOptions whole = base;
    whole.rule(expected[g].rule).layout(expected[g].layout).names(expected[g].names);
    REQUIRE(options_of(groups[g]) == whole);
    REQUIRE(groups[g].params().size() == expected[g].names.size());
    for (size_t i = 0; i < expected[g].names.size(); ++i) {
      REQUIRE(groups[g].params()[i].is_same(parameters[expected[g].names[i]]));
    }
  }
}

TEST_CASE("RoutingTable: prints aligned columns", "[routing]") {
  Model model;
  model.add("wte", nn::Embedding(100, 16))
      .add("lstm", nn::LSTM(nn::LSTMOptions(16, 8).bias(false)))
      .add("lm_head", nn::Linear(16, 100));
  const auto table = route(model, options());
  // example-begin routing-table
  const std::string expected =
      "parameter          shape      rule            layout        reason\n"
      "wte.weight         [100, 16]  adamw           -             embedding\n"
      "lstm.weight_ih_l0  [32, 16]   orthogonalized  4 row blocks  recurrent gates: 4 of 8x16\n"
      "lstm.weight_hh_l0  [32, 8]    orthogonalized  4 row blocks  recurrent gates: 4 of 8x8\n"
      "lm_head.weight     [100, 16]  adamw           -             output head by the name "
      "\"lm_head\"\n"
      "lm_head.bias       [100]      adamw           -             bias\n";
  // example-end
  REQUIRE(table.to_string() == expected);
  std::ostringstream stream;
  stream << table;
  REQUIRE(stream.str() == expected);
}

// ---------------------------------------------------------------- with the optimizer

TEST_CASE("Root keeps the rules and layouts of param_groups", "[routing]") {
  torch::manual_seed(1);
  Model model;
  model.add("tokens", nn::Embedding(100, 16))
      .add("attention", nn::MultiheadAttention(nn::MultiheadAttentionOptions(16, 2)))
      .add("lm_head", nn::Linear(16, 64));
  const auto table = route(model, options());
  Root optimizer(table.groups());
  for (const RoutingEntry& entry : table.entries()) {
    entry.parameter.mutable_grad() = torch::randn(entry.shape());
  }
  optimizer.step();
  size_t checked = 0;
  for (auto& group : optimizer.param_groups()) {
    const RootOptions& kept = options_of(group);
    REQUIRE(kept.names().size() == group.params().size());
    for (size_t i = 0; i < group.params().size(); ++i, ++checked) {
      const RoutingEntry& entry = entry_of(table.entries(), kept.names()[i]);
      REQUIRE(kept.rule() == entry.rule);
      REQUIRE(kept.layout() == entry.layout);
      REQUIRE(group.params()[i].is_same(entry.parameter));
    }
  }
  REQUIRE(checked == table.entries().size());
}

TEST_CASE("a frozen parameter is stepped as long as it has a gradient", "[routing]") {
  Model model;
  model.add("first", nn::Linear(nn::LinearOptions(16, 16).bias(false)))
      .add("second", nn::Linear(nn::LinearOptions(16, 16).bias(false)));
  Root optimizer(param_groups(model, options()));
  at::Tensor left = model.named_parameters()["first.weight"];
  at::Tensor none = model.named_parameters()["second.weight"];
  left.mutable_grad() = at::ones({16, 16});
  left.set_requires_grad(false);
  none.set_requires_grad(false);
  const at::Tensor left_before = left.clone(), none_before = none.clone();
  optimizer.step();
  REQUIRE_FALSE(at::equal(left, left_before));
  REQUIRE(at::equal(none, none_before));
  left.mutable_grad().reset();
  const at::Tensor now = left.clone();
  optimizer.step();
  REQUIRE(at::equal(left, now));
}

TEST_CASE("Root treats every block of a fused weight as a matrix of its own", "[routing]") {
  // Blocks with gradients of very different scale: with one threshold for all three, the largest
  // block alone would count as outliers. The same matrices as parameters of their own are the
  // truth.
  torch::manual_seed(2);
  const auto wide = torch::TensorOptions().dtype(at::kDouble);
  const auto tolerance = test::tolerance(test::Quantity::StepVsReference, at::kDouble);

  struct Case {
    std::string name;
    at::Tensor fused;                                                  // as the module holds it
    std::function<std::vector<at::Tensor>(const at::Tensor&)> blocks;  // as matrices
  };
  nn::MultiheadAttention attention(nn::MultiheadAttentionOptions(16, 2).bias(false));
  nn::LSTM lstm(nn::LSTMOptions(16, 24).bias(false));
  nn::Conv2d grouped(nn::Conv2dOptions(8, 32, 3).groups(4).bias(false));
  nn::ConvTranspose2d up(nn::ConvTranspose2dOptions(16, 32, 3).groups(2).bias(false));
  Model model;
  model.add("attention", attention).add("lstm", lstm).add("grouped", grouped).add("up", up);
  model.add("moe", raw({{"experts", {3, 16, 24}}}));
  model.to(at::kDouble);
  const auto parameters = model.named_parameters();
  const std::vector<Case> cases{
      {"attention.in_proj_weight", parameters["attention.in_proj_weight"],
       [](const at::Tensor& t) { return t.chunk(3); }},
      {"lstm.weight_ih_l0", parameters["lstm.weight_ih_l0"],
       [](const at::Tensor& t) { return t.chunk(4); }},
      {"grouped.weight", parameters["grouped.weight"],
       [](const at::Tensor& t) { return t.flatten(1).chunk(4); }},
      {"moe.experts", parameters["moe.experts"], [](const at::Tensor& t) { return t.unbind(0); }},
      {"up.weight", parameters["up.weight"],
       [](const at::Tensor& t) {
         // [in, out / groups, h, w]: groups along the inputs, outputs first within each.
         std::vector<at::Tensor> matrices;
         for (const at::Tensor& group : t.chunk(2)) {
           matrices.push_back(group.transpose(0, 1).flatten(1));
         }
         return matrices;
       }},
  };

  Root optimizer(param_groups(model, RootOptions(0.02)));
  for (const Case& c : cases) {
    CAPTURE(c.name);
    std::vector<at::Tensor> separate;
    for (const at::Tensor& block : c.blocks(c.fused.detach().clone())) {
      separate.push_back(block.clone().set_requires_grad(true));
    }
    Root reference(separate, RootOptions(0.02).rule(Rule::Orthogonalized));
    for (int step = 0; step < 3; ++step) {
      at::Tensor gradient = torch::randn(c.fused.sizes(), wide);
      const at::Tensor scales = torch::logspace(-3, 3, c.fused.size(0), 10, wide);
      std::vector<int64_t> column(static_cast<size_t>(c.fused.dim()), 1);
      column[0] = c.fused.size(0);
      gradient = gradient * scales.view(column);
      optimizer.zero_grad();
      for (const auto& item : parameters) item.value().mutable_grad() = at::Tensor();
      c.fused.mutable_grad() = gradient;
      const auto gradients = c.blocks(gradient);
      for (size_t i = 0; i < separate.size(); ++i)
        separate[i].mutable_grad() = gradients[i].clone();
      optimizer.step();
      reference.step();
    }
    const auto blocks = c.blocks(c.fused.detach());
    REQUIRE(blocks.size() == separate.size());
    for (size_t i = 0; i < blocks.size(); ++i) {
      REQUIRE_THAT(blocks[i], test::close_to(separate[i], tolerance));
    }
  }
}
