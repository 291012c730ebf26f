// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What one training run is made of, and the command line that says so.
#pragma once

#include <CLI/CLI.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace experiments {

struct Settings {
  bool defaults = false;  ///< print the settings of the optimizers and end

  std::string task = "lm";
  std::vector<std::string> data;
  int64_t width = 128, layers = 4, heads = 4, context = 64;
  std::string start;     ///< weights to begin with
  int64_t adapters = 0;  ///< their rank; 0: the whole model is trained

  std::string optimizer = "root";
  std::string orthogonalization, filter, place;  ///< empty: the optimizer's own
  std::optional<double> momentum, update_beta;   ///< none: the optimizer's own
  std::optional<double> adamw_lr_ratio, beta2;   ///< of parameters that are no matrices; the same
  std::string momentum_warmup, gate;
  double lr = 1e-3;
  double weight_decay = 0.1;
  bool cautious_decay = false;
  std::string schedule = "linear";
  double clip = 0;

  std::string noise = "none";
  bool filter_ranks = false, median_of_ranks = false;
  double limit_ranks = 0;

  int64_t steps = 1000, batch = 16, seed = 1;
  int64_t evaluations = 25, validation_examples = 256;
  bool test = false;
  int threads = 0;

  std::string csv, result, weights, precision, tails;
  int64_t observations = 10;
};

inline constexpr const char* description =
    "Trains one model with one optimizer and writes how that went: one run of the experiments of\n"
    "scripts/experiments.sh. The seed decides the initial weights, the batches, the noise and\n"
    "which tenth of the text or of the training images is held out: runs that differ in nothing\n"
    "but the optimizer see the same.";

inline constexpr const char* notes = R"(
Filters (--filter); U is what is split, r_i and c_j are the means of |U| in row i and column j:
  none             no split
  published        |U| clipped at its quantile .90 (+ 1e-9)
  quantile:Q       |U| clipped at its quantile Q
  scaled:K[:P]     |U_ij| clipped at K r_i c_j / mean|U|; in P passes, each with the means of what
                   the pass before has clipped
  rows:K           |U_ij| clipped at K r_i
  columns:K        |U_ij| clipped at K c_j
  median:K         as scaled:K, with medians in place of means
  tail:F           as scaled, with K = F times the quantile .99 of |U_ij| mean|U| / (r_i c_j)
  rank-one:K       U = s x y' + R with the leading singular triple (three power iterations); R is
                   split as by scaled:K

Noise (--noise), applied to the gradients of all parameters before clipping and the step:
  none
  heavy:S          each entry + S rms(g) t, t from Student's t with 2 degrees of freedom
                   (infinite variance), g the gradient of its parameter
  spikes:S         each entry, with probability .001, becomes +-S max|g|
  batch:K:S        in every K-th step each label (lm: each next byte) is, with probability S,
                   replaced by one drawn uniformly
  random:P:S       the same in a step with probability P
  rank:N:S         the mean over N ranks, one of which sends S rms(g) z, z normal: g - g/N + S rms(g) z/N
  heavy-ranks:N:S  the mean over N ranks, each with a noise heavy:S of its own)";

/// Ends the program for --help and for a command line that is not understood.
inline Settings parse_settings(int argc, char** argv) {
  Settings s;
  CLI::App app{description};
  app.name("experiment");
  app.footer(notes);
  const auto positive = CLI::PositiveNumber;
  const auto not_negative = CLI::NonNegativeNumber;
  const auto add = [&app](const char* name, auto& value, const char* text) {
    return app.add_option(name, value, text)->capture_default_str();
  };

  app.add_flag("--defaults", s.defaults, "Print the settings that the optimizers start from");
  add("--task", s.task, "lm: a byte-level language model; vit and resnet: images")
      ->check(CLI::IsMember({"lm", "vit", "resnet"}));
  app.add_option("--data", s.data,
                 "lm: text files, or folders of sources and texts (default: the LibTorch headers); "
                 "else one folder with CIFAR-10 (binary) or Fashion-MNIST")
      ->check(CLI::ExistingPath);
  add("--width", s.width, "Width of the model")->check(positive);
  add("--layers", s.layers, "Blocks (resnet: blocks of each stage)")->check(positive);
  add("--heads", s.heads, "Attention heads; must divide the width")->check(positive);
  add("--context", s.context, "lm: bytes that the model looks at")->check(positive);
  app.add_option("--start", s.start, "lm: weights to begin with, as --weights writes them")
      ->check(CLI::ExistingFile);
  add("--adapters", s.adapters,
      "lm: rank of the adapters of the blocks' matrices that are trained alone; 0: all is trained")
      ->check(not_negative);

  add("--optimizer", s.optimizer, "What the run starts from")
      ->check(CLI::IsMember({"adamw", "muon", "root", "root_paper"}));
  app.add_option(
      "--orthogonalization", s.orthogonalization,
      "classic, muon, published, default (AdaNewton) or exact (SVD); NAME:N takes N steps "
      "(default: the optimizer's own)");
  app.add_option("--filter", s.filter, "See below (default: the optimizer's own)");
  app.add_option("--place", s.place,
                 "What is split; all-gradients: those of AdamW's parameters, too (default: the "
                 "optimizer's own)")
      ->check(CLI::IsMember({"momentum", "gradient", "all-gradients"}));
  app.add_option("--momentum", s.momentum, "Of matrices (default: the optimizer's own)");
  app.add_option("--momentum-warmup", s.momentum_warmup,
                 "START:STEPS, how it rises (default: the optimizer's own)");
  app.add_option("--update-beta", s.update_beta,
                 "Of the second moments of rows and columns (default: the optimizer's own)");
  app.add_option("--gate", s.gate, "FACTOR:RUN (default: the optimizer's own)");
  app.add_option("--adamw-lr-ratio", s.adamw_lr_ratio,
                 "The rate of parameters that are no matrices, as a multiple of --lr (default: the "
                 "optimizer's own)");
  app.add_option("--beta2", s.beta2, "β₂ of AdamW (default: the optimizer's own; adamw: .95)");
  add("--lr", s.lr, "Highest learning rate, of all parameters")->check(positive);
  add("--weight-decay", s.weight_decay, "Decoupled weight decay")->check(not_negative);
  app.add_flag("--cautious-decay", s.cautious_decay,
               "Decay only entries whose step goes towards 0, too (arXiv 2510.12402)");
  add("--schedule", s.schedule, "Behind 5 % of warm-up; linear and cosine end at 0")
      ->check(CLI::IsMember({"constant", "linear", "cosine"}));
  add("--clip", s.clip, "Largest norm of all gradients together; 0: not clipped")
      ->check(not_negative);
  add("--noise", s.noise, "See below");
  app.add_flag("--filter-ranks", s.filter_ranks,
               "With the noise rank or heavy-ranks: filter each rank's gradients before the mean, "
               "too");
  app.add_flag("--median-of-ranks", s.median_of_ranks,
               "With the same: the median of each entry in the place of the mean");
  add("--limit-ranks", s.limit_ranks, "With the same: ReducerOptions::limit_ranks; 0: off")
      ->check(not_negative);

  add("--steps", s.steps, "Optimizer steps, a batch each")->check(positive);
  add("--batch", s.batch, "Examples of a batch (lm: windows of --context bytes)")->check(positive);
  add("--seed", s.seed, "")->check(not_negative);
  add("--evaluations", s.evaluations, "How often the validation loss is computed, at the end too")
      ->check(positive);
  add("--validation-examples", s.validation_examples, "Examples of the validation set")
      ->check(positive);
  app.add_flag("--test", s.test,
               "vit, resnet: validate with the test set, train with all training images (default: "
               "validate with a tenth of the training images, which is held out)");
  add("--threads", s.threads, "CPU threads; 0: as many as LibTorch chooses")->check(not_negative);

  app.add_option("--csv", s.csv, "A row for each evaluation")->type_name("FILE");
  app.add_option("--result", s.result, "Final values as JSON, written when the run is complete")
      ->type_name("FILE");
  app.add_option("--weights", s.weights, "The trained parameters")->type_name("FILE");
  app.add_option("--precision", s.precision,
                 "Relative errors to the exact polar factor, by kind of layer, along the run")
      ->type_name("FILE");
  app.add_option("--tails", s.tails, "The distribution of the momentum's entries, along the run")
      ->type_name("FILE");
  add("--observations", s.observations, "How often --precision and --tails look")->check(positive);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    std::exit(app.exit(e));
  }
  if (s.task != "lm" && (!s.start.empty() || s.adapters > 0)) {
    std::exit(app.exit(CLI::ValidationError("--start and --adapters", "expected --task lm")));
  }
  return s;
}

}  // namespace experiments
