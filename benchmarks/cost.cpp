// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What the forms of the iteration cost on this machine, and what iteration_plan.hpp says they do: processor time
// on one thread over that of five direct quintic steps in float32, medians of turns. Prints a table and writes a
// CSV; scripts/bench.sh cost runs it.
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/torch.h>

#include <root_optim/root_optim.hpp>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <tuple>
#include <vector>

#include "timing.hpp"

namespace {

using benchmarks::median;
using benchmarks::processor_seconds;

struct Candidate {
  std::string name;
  double model;  ///< what the library says, in five plain quintic steps
  std::function<void()> run;
  std::vector<double> seconds;
};

void measure(int64_t k, int64_t m, int64_t n, int rounds, std::ofstream& csv) {
  const at::Tensor x = at::randn({k, m, n});
  root_optim::Workspace workspace;
  const root_optim::Scratch scratch{&workspace, false};
  const double unit = root_optim::direct_flops(m, n, 5);
  std::vector<Candidate> candidates;
  const auto quintics = [&](int64_t steps, root_optim::Form form, at::ScalarType dtype) {
    root_optim::OrthogonalizeOptions options;
    options.form = form;
    options.compute_dtype = dtype;
    const auto precision =
        dtype == at::kFloat ? root_optim::Precision::Float32 : root_optim::Precision::BFloat16;
    const auto schedule = root_optim::shipped_quintics(steps, precision);
    const double cost = root_optim::plan_iteration(m, n, schedule, precision, form).cost / unit;
    candidates.push_back({(dtype == at::kFloat ? "quintics " : "bfloat16 ") + std::to_string(steps),
                          cost,
                          [=] { root_optim::orthogonalize(x, schedule, options, scratch); },
                          {}});
  };
  quintics(5, root_optim::Form::Direct, at::kFloat);
  quintics(8, root_optim::Form::Auto, at::kFloat);
  quintics(5, root_optim::Form::Direct, at::kBFloat16);
  for (const std::vector<int64_t>& poles : root_optim::shipped_rational_poles()) {
    std::vector<root_optim::ZolotarevStage> stages;
    std::string name;
    for (const int64_t r : poles) {
      stages.push_back({r, stages.empty() ? 1e-3 : 0.1});
      name += (name.empty() ? "poles " : " + ") + std::to_string(r);
    }
    auto schedule = root_optim::zolotarev_stages(stages);
    candidates.push_back({name,
                          root_optim::rational_cost(m, n, poles),
                          [=] { root_optim::orthogonalize_rational(x, schedule, {}, scratch); },
                          {}});
  }
  for (int round = -1; round < rounds; ++round) {
    for (Candidate& each : candidates) {
      const double start = processor_seconds();
      int times = 0;
      do {
        each.run();
        ++times;
      } while (processor_seconds() - start < 0.02);
      if (round >= 0) each.seconds.push_back((processor_seconds() - start) / times);
    }
  }
  const double plain = median(candidates.front().seconds);
  for (const Candidate& each : candidates) {
    const double ms = 1e3 * median(each.seconds), ratio = median(each.seconds) / plain;
    fmt::print("{:>3} x {:>5} x {:>5}  {:<12}{:>10.3f} ms{:>9.3f}{:>9.3f}\n", k, m, n, each.name,
               ms, ratio, each.model);
    csv << fmt::format("{},{},{},{},{:.5g},{:.4g},{:.4g}\n", k, m, n, each.name, ms, ratio,
                       each.model);
  }
  csv.flush();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("What the forms of the iteration cost");
  std::string out = "build/bench/cost.csv";
  bool quick = false;
  app.add_option("--out", out, "the CSV");
  app.add_flag("--quick", quick, "fewer rounds and shapes");
  CLI11_PARSE(app, argc, argv);
  std::filesystem::create_directories(std::filesystem::absolute(out).parent_path());
  std::ofstream csv(out);
  csv << "count,rows,cols,form,ms,measured,model\n";
  const torch::NoGradGuard no_grad;
  at::set_num_threads(1);
  fmt::print("{:>17}  {:<12}{:>13}{:>9}{:>9}\n", "matrices", "form", "", "measured", "model");
  std::vector<std::tuple<int64_t, int64_t, int64_t>> shapes{
      {16, 16, 16},  {16, 32, 32},   {12, 64, 64},  {8, 64, 256},  {12, 128, 128}, {4, 128, 512},
      {4, 256, 256}, {4, 256, 1024}, {1, 384, 384}, {2, 768, 768}, {1, 768, 3072}, {1, 1024, 1024}};
  if (!quick) shapes.insert(shapes.end(), {{1, 1024, 4096}, {1, 2048, 2048}});
  for (const auto& [k, m, n] : shapes) measure(k, m, n, quick ? 3 : 9, csv);
}
