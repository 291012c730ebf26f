// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What --precision and --tails write about the matrices of a coming step.
#pragma once

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <root_optim/diagnostics.hpp>
#include <root_optim/muon.hpp>
#include <root_optim/root.hpp>

#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "optimizers.hpp"
#include "result.hpp"

namespace experiments {

/// The parameter's name without numbers and "weight", with the number of its matrix if it has
/// several: "blocks.0.qkv.weight", 2 -> "blocks.qkv/2".
inline std::string layer_kind(const root_optim::NextMatrix& next) {
  std::string kind, part;
  std::istringstream parts(next.name);
  while (std::getline(parts, part, '.')) {
    if (part == "weight" || part.find_first_not_of("0123456789") == std::string::npos) continue;
    kind += (kind.empty() ? "" : ".") + part;
  }
  return next.blocks == 1 ? kind : fmt::format("{}/{}", kind, next.block);
}

/// Relative errors to the exact polar factor, of every orthogonalization and of every matrix: of U,
/// and of B, which the published split leaves of it.
class PrecisionAlongTraining {
 public:
  explicit PrecisionAlongTraining(const std::string& path)
      : rows_(path, "step,kind,parameter,block,rows,columns,input,method,relative_error") {}

  bool wanted() const { return rows_.wanted(); }

  void write(int64_t step, const std::vector<root_optim::NextMatrix>& matrices) {
    using root_optim::CoefficientSet;
    using root_optim::NewtonSchulz;
    const NewtonSchulz classic = NewtonSchulz().coefficients(CoefficientSet::cubic()), muon;
    const NewtonSchulz published = root_optim::root_paper().orthogonalizer();
    const root_optim::AdaNewton ours;
    const root_optim::SoftThreshold split = root_optim::SoftThreshold::published();
    for (const root_optim::NextMatrix& next : matrices) {
      const at::Tensor& u = next.unsplit;
      const std::array<std::pair<const char*, at::Tensor>, 2> inputs{{{"U", u}, {"B", split(u)}}};
      for (const auto& [input, x] : inputs) {
        const at::Tensor truth = root_optim::exact_polar(x);
        const std::array<std::pair<const char*, at::Tensor>, 4> outputs{
            {{"classic", classic(x)},
             {"muon", muon(x)},
             {"published", published(x)},
             {"default", ours(x)}}};
        for (const auto& [method, output] : outputs) {
          rows_.write(fmt::format("{},{},{},{},{},{},{},{},{:.6g}", step, layer_kind(next),
                                  next.name, next.block, x.size(1), x.size(2), input, method,
                                  root_optim::relative_error(output, truth)));
        }
      }
    }
  }

 private:
  Rows rows_;
};

/// How the entries of U are distributed, in units of the root of their mean square, the layers of a
/// kind taken together. Per step and kind:
///
///   excess_kurtosis, tail_index, max_over_rms   as root_optim::TailStatistics
///   share_above       share of |u| above `at`
///   quantile          of u, at probability `at`
///   density           of u around `at`
class Tails {
 public:
  explicit Tails(const std::string& path) : rows_(path, "step,kind,entries,statistic,at,value") {}

  bool wanted() const { return rows_.wanted(); }

  void write(int64_t step, const std::vector<root_optim::NextMatrix>& matrices) {
    std::map<std::string, std::vector<at::Tensor>> kinds;
    for (const root_optim::NextMatrix& next : matrices) {
      const at::Tensor u = next.unsplit.flatten().to(at::kDouble);
      kinds[layer_kind(next)].push_back(u.div(u.square().mean().sqrt_().clamp_min_(1e-300)));
    }
    for (const auto& [kind, parts] : kinds) write_kind(step, kind, at::cat(parts));
  }

 private:
  void write_kind(int64_t step, const std::string& kind, const at::Tensor& u) {
    const int64_t entries = u.numel();
    const auto count = static_cast<double>(entries);
    const auto write = [&](const char* statistic, const std::string& at, double value) {
      rows_.write(fmt::format("{},{},{},{},{},{:.6g}", step, kind, entries, statistic, at, value));
    };
    const at::Tensor sorted = std::get<0>(u.sort());
    const at::Tensor magnitude = u.abs();

    const root_optim::TailStatistics tails = root_optim::tail_statistics(u.unsqueeze(0));
    write("excess_kurtosis", "", tails.excess_kurtosis);
    write("tail_index", "", tails.tail_index);
    write("max_over_rms", "", tails.max_over_rms);
    for (const double limit : {3.0, 5.0, 10.0}) {
      write("share_above", fmt::format("{}", limit),
            magnitude.gt(limit).sum().item().toDouble() / count);
    }
    for (const double p : probabilities()) {
      if (p * count < 5 || (1 - p) * count < 5) continue;  // a handful of entries says nothing
      write("quantile", fmt::format("{}", p), sorted[std::llround(p * (count - 1))].item<double>());
    }
    constexpr int64_t bins = 96;
    constexpr double limit = 12, width = 2 * limit / static_cast<double>(bins);
    const at::Tensor histogram = at::histc(u, bins, -limit, limit);
    for (int64_t bin = 0; bin < bins; ++bin) {
      write("density", fmt::format("{}", -limit + (static_cast<double>(bin) + 0.5) * width),
            histogram[bin].item<double>() / count / width);
    }
  }

  /// Dense at both ends.
  static std::vector<double> probabilities() {
    std::vector<double> result;
    const std::vector<double> lower = {1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2,
                                       3e-2, 0.06, 0.1,  0.2,  0.3,  0.4};
    result = lower;
    result.push_back(0.5);
    for (auto p = lower.rbegin(); p != lower.rend(); ++p) result.push_back(1 - *p);
    return result;
  }

  Rows rows_;
};

}  // namespace experiments
