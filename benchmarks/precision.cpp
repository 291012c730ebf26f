// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// How near each orthogonalization comes to the exact polar factor, and what it costs: matrices of
// known polar factor, orthogonalized by the library and held against it in float64. Prints a table
// and writes a CSV; scripts/bench.sh precision runs it. Figures are means over the samples of a
// family, max_singular_value is the largest.
#include <fmt/format.h>
#include <torch/torch.h>
#include <root_optim/root_optim.hpp>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "matrices.hpp"

namespace {

using benchmarks::Family;
using root_optim::AdaNewton;
using root_optim::CoefficientSet;
using root_optim::Form;
using root_optim::Normalization;
using root_optim::OrthogonalizeOptions;
using root_optim::Precision;
using root_optim::Quintics;
using root_optim::RationalStages;

/// A way to orthogonalize one shape: which triples, after which norm, in which form; or which stages.
struct Method {
  std::string name;
  Quintics schedule;
  Normalization normalization = Normalization::Schatten8;
  Form form = Form::Auto;
  RationalStages stages = {};

  size_t steps() const { return schedule.size() + stages.size(); }
};

Method rational(const std::string& name, const RationalStages& stages) {
  return {name, {}, Normalization::Schatten8, Form::Auto, stages};
}

/// In five plain steps: of products FLOP, of stages with inverses time (rational_cost).
double cost_of(const Method& method, int64_t rows, int64_t cols, Precision precision) {
  if (method.stages.empty()) {
    return root_optim::plan_iteration(rows, cols, method.schedule, precision, method.form).flops /
           root_optim::direct_flops(rows, cols, 5);
  }
  std::vector<int64_t> poles;
  for (const auto& f : method.stages) poles.push_back(static_cast<int64_t>(f.poles.size()));
  return root_optim::rational_cost(rows, cols, poles);
}

/// Five steps designed for one family of spectra, one shape and one precision.
Quintics designed(Family family, int64_t rows, int64_t cols, Precision precision) {
  root_optim::DesignOptions options;
  options.validation =
      root_optim::ValidationOptions::for_precision(precision, root_optim::Normalization::Schatten8);
  options.max_iterations = 4000;
  return root_optim::design_mixture(benchmarks::parts_of(family, rows, cols), options).quintics;
}

std::vector<Method> methods(Family family, int64_t rows, int64_t cols, Precision precision) {
  const auto set = [&](const CoefficientSet& coefficients) {
    return coefficients.quintics(rows, cols, 5);
  };
  const auto floor = Normalization::FrobeniusFloor;
  std::vector<Method> all{
      {"muon", set(CoefficientSet::jordan()), floor, Form::Direct},
      {"root_paper", set(CoefficientSet::root_paper()), Normalization::FrobeniusPlus, Form::Direct},
      {"you", set(CoefficientSet::you()), floor, Form::Direct},
      {"polar_express", set(CoefficientSet::polar_express(1.02)), floor, Form::Direct},
      {"ada_newton_5", designed(family, rows, cols, precision)},
      {"newton_schulz", AdaNewton().quintics(rows, cols, precision)}};
  if (precision == Precision::BFloat16) {
    all.back().name = "root";
    return all;
  }
  for (const auto& poles : root_optim::shipped_rational_poles()) {
    std::string name = "poles";
    for (const int64_t r : poles) name += (name == "poles" ? '_' : '+') + std::to_string(r);
    all.push_back(rational(name, root_optim::shipped_rational(rows, cols, poles)));
  }
  all.push_back(rational("root", AdaNewton().stages(rows, cols)));
  return all;
}

struct Figures {
  double mse = 0, relative_error = 0, max_singular_value = 0;
};

Figures measure(const benchmarks::Sample& sample, const Method& method, at::ScalarType dtype) {
  OrthogonalizeOptions options;
  options.normalization = method.normalization;
  options.form = method.form;
  options.compute_dtype = dtype;
  options.allow_unsafe = true;  // published sets are measured as they are
  const at::Tensor x = sample.matrix.to(at::kFloat);
  const at::Tensor y =
      (method.stages.empty() ? root_optim::orthogonalize(x, method.schedule, options)
                             : root_optim::orthogonalize_rational(x, method.stages).x)
          .to(at::kDouble);
  const at::Tensor sigma = at::linalg_eigvalsh(y.matmul(y.t())).clamp_min(0).sqrt();
  return {sigma.sub(1).square().mean().item<double>(), root_optim::relative_error(y, sample.polar),
          sigma.max().item<double>()};
}

}  // namespace

int main(int argc, char** argv) {
  std::string out = "build/bench/precision.csv";
  bool quick = false;
  CLI::App app{"Precision and cost of orthogonalization against float64 ground truth"};
  app.add_option("--out", out, "CSV to write")->capture_default_str();
  app.add_flag("--quick", quick, "Only shapes up to 1024");
  CLI11_PARSE(app, argc, argv);

  torch::manual_seed(0);
  const at::NoGradGuard no_grad;
  std::vector<std::pair<int64_t, int64_t>> shapes = {{256, 1024}, {768, 768}};
  if (!quick) {
    shapes.insert(shapes.end(), {{768, 3072},
                                 {1024, 2048},
                                 {1024, 4096},
                                 {2048, 2048},
                                 {2048, 3072},
                                 {2048, 8192},
                                 {2048, 16384}});
  }
  const std::filesystem::path path(out);
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path());
  std::ofstream csv(path);
  csv << "spectrum,rows,cols,method,dtype,steps,mse,relative_error,max_singular_value,cost\n";
  fmt::print("{:<17} {:>11} {:<13} {:<8} {:>5} {:>10} {:>9} {:>9} {:>6}\n", "spectrum", "shape",
             "method", "dtype", "steps", "mse", "rel.err", "max σ", "cost");

  for (const auto& [rows, cols] : shapes) {
    for (const Family family :
         {Family::Gaussian, Family::HeavyTail, Family::HeavyTailSplit, Family::LowRankNoise}) {
      // Minutes each: of the widest only what others have published figures for, and momentum.
      if (cols > 8192 && (family == Family::HeavyTailSplit || family == Family::LowRankNoise)) {
        continue;
      }
      std::vector<benchmarks::Sample> samples;
      const int64_t samples_wanted =
          std::min<int64_t>(benchmarks::samples_of(family, rows), quick ? 2 : 6);
      for (int64_t i = 0; i < samples_wanted; ++i) {
        samples.push_back(benchmarks::sample(family, rows, cols, i));
      }
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        if (dtype == at::kBFloat16 && rows > 1024) continue;
        const Precision precision =
            dtype == at::kBFloat16 ? Precision::BFloat16 : Precision::Float32;
        // Most CPUs multiply bfloat16 in software, at a hundredth of float32's speed: one sample, and
        // of the larger shapes only what the ratio to Muon on momentum needs.
        const bool slow = dtype == at::kBFloat16 && rows * cols > 256 * 1024;
        if (slow && (quick || cols > 3072 || family != Family::HeavyTail)) continue;
        const size_t count = dtype == at::kBFloat16 ? 1 : samples.size();
        for (const Method& method : methods(family, rows, cols, precision)) {
          const bool ratio =
              method.name == "muon" || method.name == "ada_newton_5" || method.name == "root";
          if (slow && !ratio) continue;
          Figures mean;
          for (size_t i = 0; i < count; ++i) {
            const Figures one = measure(samples[i], method, dtype);
            mean.mse += one.mse / static_cast<double>(count);
            mean.relative_error += one.relative_error / static_cast<double>(count);
            mean.max_singular_value = std::max(mean.max_singular_value, one.max_singular_value);
          }
          const double cost = cost_of(method, rows, cols, precision);
          const std::string name = benchmarks::name_of(family);
          const char* dtype_name = dtype == at::kBFloat16 ? "bfloat16" : "float32";
          csv << fmt::format("{},{},{},{},{},{},{:.6g},{:.6g},{:.6g},{:.6g}\n", name, rows, cols,
                             method.name, dtype_name, method.steps(), mean.mse, mean.relative_error,
                             mean.max_singular_value, cost);
          csv.flush();
          fmt::print("{:<17} {:>11} {:<13} {:<8} {:>5} {:>10.3e} {:>9.5f} {:>9.4f} {:>6.3f}\n",
                     name, fmt::format("{}x{}", rows, cols), method.name, dtype_name,
                     method.steps(), mean.mse, mean.relative_error, mean.max_singular_value, cost);
          std::fflush(stdout);
        }
      }
    }
  }
  fmt::print("\n{}\n", out);
}
