// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
#include "optimizers.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/optim/adamw.h>
#include <root_optim/distributed/filter_gradients.hpp>
#include <root_optim/root_optim.hpp>

#include <cmath>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

#include "../examples/common/optimizers.hpp"
#include "candidate_filter.hpp"
#include "spec.hpp"

namespace experiments {
namespace {

using root_optim::FilterPlace;
using AnyFilter = std::variant<root_optim::NoFilter, root_optim::SoftThreshold, CandidateFilter>;
using AnyOrthogonalizer =
    std::variant<root_optim::NewtonSchulz, root_optim::AdaNewton, root_optim::ExactPolar>;

/// What a run may change of an optimizer's options, and what it must keep.
struct Configuration {
  AnyFilter filter;
  AnyOrthogonalizer orthogonalizer;
  FilterPlace place;
  double momentum;
  root_optim::MomentumForm form;
  bool nesterov;
  root_optim::LrScale scale;
  double momentum_start;
  int64_t momentum_warmup;
  double update_beta;
  double gate;
  int64_t gate_run;
  std::optional<double> adamw_lr_ratio;
  double beta2;
};

template <class Options>
Configuration configuration_of(const Options& o) {
  return {o.filter(),          o.orthogonalizer(),    o.filter_place(), o.momentum(),
          o.momentum_form(),   o.nesterov(),          o.scale(),        o.momentum_start(),
          o.momentum_warmup(), o.update_beta(),       o.gate(),         o.gate_run(),
          o.adamw_lr_ratio(),  std::get<1>(o.betas())};
}

/// MatchRmsAdamW for Muon too: it can then share a learning rate with its built-in AdamW.
root_optim::MuonOptions muon_options() {
  return root_optim::MuonOptions().scale(root_optim::LrScale::MatchRmsAdamW);
}

AnyFilter parse_filter(const std::string& text) {
  using root_optim::SoftThreshold;
  using Kind = CandidateFilter::Kind;
  const Spec spec(text);
  if (spec.name == "none") return spec.require(0), root_optim::NoFilter();
  if (spec.name == "published") return spec.require(0), SoftThreshold::published();
  if (spec.name == "scaled") {
    spec.require(1, 2);
    return SoftThreshold().scaled(spec.numbers[0],
                                  spec.numbers.size() > 1 ? std::llround(spec.numbers[1]) : 1);
  }
  spec.require(1);
  const double value = spec.numbers[0];
  if (spec.name == "quantile") return SoftThreshold().quantile(value);
  if (spec.name == "rows") return CandidateFilter(Kind::Rows, value);
  if (spec.name == "columns") return CandidateFilter(Kind::Columns, value);
  if (spec.name == "median") return CandidateFilter(Kind::Median, value);
  if (spec.name == "tail") return CandidateFilter(Kind::Tail, value);
  TORCH_CHECK(spec.name == "rank-one", "expected a filter of --help, got '", text, "'");
  return CandidateFilter(Kind::RankOne, value);
}

AnyOrthogonalizer parse_orthogonalizer(const std::string& text) {
  using root_optim::CoefficientSet;
  using root_optim::NewtonSchulz;
  const Spec spec(text);
  if (spec.name == "exact") return spec.require(0), root_optim::ExactPolar();
  spec.require(0, 1);
  const bool has_steps = !spec.numbers.empty();
  const int64_t steps = has_steps ? std::llround(spec.numbers[0]) : 5;
  if (spec.name == "default") {
    root_optim::AdaNewton ada_newton;
    if (has_steps) ada_newton.steps(steps);
    return ada_newton;
  }
  if (spec.name == "classic") {
    return NewtonSchulz().coefficients(CoefficientSet::cubic()).steps(steps);
  }
  if (spec.name == "muon") return NewtonSchulz().steps(steps);
  TORCH_CHECK(spec.name == "published", "expected an orthogonalization of --help, got '", text,
              "'");
  return root_optim::root_paper().orthogonalizer().steps(steps);
}

Configuration configure(const Settings& s) {
  Configuration c = s.optimizer == "muon"   ? configuration_of(muon_options())
                    : s.optimizer == "root" ? configuration_of(root_optim::RootOptions())
                                            : configuration_of(root_optim::root_paper());
  if (!s.filter.empty()) c.filter = parse_filter(s.filter);
  if (!s.orthogonalization.empty()) c.orthogonalizer = parse_orthogonalizer(s.orthogonalization);
  if (!s.place.empty()) {
    c.place = s.place == "momentum"   ? FilterPlace::Momentum
              : s.place == "gradient" ? FilterPlace::Gradient
                                      : FilterPlace::AllGradients;
  }
  if (s.momentum) c.momentum = *s.momentum;
  if (s.update_beta) c.update_beta = *s.update_beta;
  if (s.adamw_lr_ratio) c.adamw_lr_ratio = s.adamw_lr_ratio;
  if (s.beta2) c.beta2 = *s.beta2;
  if (!s.momentum_warmup.empty()) {
    const Spec spec("momentum:" + s.momentum_warmup);
    c.momentum_start = spec.require(2).numbers[0];
    c.momentum_warmup = std::llround(spec.numbers[1]);
  }
  if (!s.gate.empty()) {
    const Spec spec("gate:" + s.gate);
    c.gate = spec.require(2).numbers[0];
    c.gate_run = std::llround(spec.numbers[1]);
  }
  return c;
}

template <class F, class O>
Subject make(const Settings& s, const Configuration& c, const F& filter, const O& orthogonalizer,
             Task& task) {
  using Optimizer = root_optim::OrthogonalizedOptimizer<F, O>;
  typename Optimizer::Options options(s.lr);
  options.weight_decay(s.cautious_decay ? 0 : s.weight_decay)
      .filter(filter)
      .orthogonalizer(orthogonalizer);
  options.filter_place(c.place).momentum(c.momentum).momentum_form(c.form);
  options.nesterov(c.nesterov).scale(c.scale).update_beta(c.update_beta);
  options.momentum_start(c.momentum_start).momentum_warmup(c.momentum_warmup);
  options.gate(c.gate).gate_run(c.gate_run).adamw_lr_ratio(c.adamw_lr_ratio);
  options.betas(std::make_tuple(std::get<0>(options.betas()), c.beta2));
  auto optimizer =
      std::make_unique<Optimizer>(examples::routed(task.model(), options).groups(), options);
  auto observed = [&optimizer = *optimizer] { return root_optim::next_matrices(optimizer); };
  auto filter_gradients = [&optimizer = *optimizer] { root_optim::filter_gradients(optimizer); };
  return {std::move(optimizer), observed, filter_gradients};
}

}  // namespace

Subject make_optimizer(const Settings& s, Task& task) {
  if (s.optimizer == "adamw") {
    TORCH_CHECK(s.filter.empty() && s.orthogonalization.empty() && s.place.empty() && !s.momentum &&
                    s.momentum_warmup.empty() && !s.update_beta && s.gate.empty() &&
                    !s.adamw_lr_ratio,
                "expected no options of matrices with adamw, which has none");
    auto options = torch::optim::AdamWOptions(s.lr)
                       .betas(std::make_tuple(0.9, s.beta2.value_or(0.95)))
                       .weight_decay(s.cautious_decay ? 0 : s.weight_decay);
    return {std::make_unique<torch::optim::AdamW>(task.model().parameters(), options),
            [] { return std::vector<root_optim::NextMatrix>(); }, nullptr};
  }
  const Configuration c = configure(s);
  return std::visit(
      [&](const auto& filter, const auto& orthogonalizer) {
        return make(s, c, filter, orthogonalizer, task);
      },
      c.filter, c.orthogonalizer);
}

std::string optimizer_defaults() {
  std::string text;
  const auto add = [&text](const char* name, const auto& options) {
    for (const auto& [key, value] : options.fields().values()) {
      text += fmt::format("{} {}=", name, key);
      text += std::visit(
          [](const auto& v) {
            if constexpr (std::is_same_v<std::decay_t<decltype(v)>, bool>) {
              return std::string(v ? "true" : "false");
            } else {
              return fmt::format("{}", v);
            }
          },
          value);
      text += '\n';
    }
  };
  add("muon", muon_options());
  add("root", root_optim::RootOptions());
  add("root_paper", root_optim::root_paper());
  return text;
}

}  // namespace experiments
