// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A matrix whose columns N ranks have: what it would take to leave them there and sum XXᵀ over the ranks in each
// stage of AdaNewton, against what `distribute` does, which brings the matrix to one rank. Columns are blocks of one
// process; no message travels: bytes are counted. Prints a table and writes a CSV; scripts/bench.sh column_sums
// runs it.
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/torch.h>

#include <root_optim/root_optim.hpp>

#include <CLI/CLI.hpp>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "matrices.hpp"
#include "timing.hpp"

namespace {

using benchmarks::Family;
using benchmarks::median;
using benchmarks::processor_seconds;
using root_optim::RationalStages;

double relative(const at::Tensor& error, const at::Tensor& exact) {
  return (error.to(at::kDouble).norm() / exact.norm()).item<double>();
}

/// The factor of [1, m, n], and the seconds of the rank with the first columns.
std::pair<at::Tensor, double> by_sums(const at::Tensor& x, const RationalStages& stages,
                                      int64_t ranks, root_optim::Workspace* workspace) {
  using namespace root_optim::detail;
  const at::Tensor scaled = scale_by_max(x, at::kFloat);
  std::vector<at::Tensor> blocks;
  for (const at::Tensor& block : scaled.tensor_split(ranks, 2)) {
    blocks.push_back(block.contiguous());
  }
  const int64_t m = x.size(1);
  const at::Tensor failed = at::zeros({1}, x.options().dtype(at::kBool));
  const at::Tensor sum = at::empty({1, m, m}, x.options()), own = at::empty_like(sum),
                   p = at::empty_like(sum);
  double seconds = 0;
  for (size_t t = 0; t < stages.size(); ++t) {
    for (size_t r = 0; r < blocks.size(); ++r) {
      const double start = processor_seconds();
      set_symmetric(own, blocks[r], workspace);
      if (r == 0) seconds += processor_seconds() - start;
      r == 0 ? sum.copy_(own) : sum.add_(own);
    }
    double start = processor_seconds();
    if (t == 0) {
      mirror_upper(sum);
      const at::Tensor norm2 = frobenius_norms(sum);
      sum.div_(norm2.to(at::kFloat));
      rational_factor(p, sum, stages[t], failed, workspace);
      p.mul_(norm2.pow(-0.5).to(at::kFloat));
    } else {
      rational_factor(p, sum, stages[t], failed, workspace);
    }
    seconds += processor_seconds() - start;
    for (size_t r = 0; r < blocks.size(); ++r) {
      start = processor_seconds();
      at::Tensor next = at::empty_like(blocks[r]);
      product(next, p, blocks[r], 0, 1, workspace);
      if (r == 0) seconds += processor_seconds() - start;
      blocks[r] = next;
    }
  }
  return {at::cat(blocks, 2), seconds};
}

void measure(Family family, int64_t m, int64_t n, int rounds, std::ofstream& csv) {
  const benchmarks::Sample sample = benchmarks::sample(family, m, n, 0);
  const at::Tensor x = sample.matrix.to(at::kFloat).unsqueeze(0);
  const RationalStages stages = root_optim::AdaNewton().stages(m, n);
  root_optim::Workspace workspace;
  std::vector<double> whole_seconds;
  at::Tensor whole;
  for (int round = 0; round < rounds; ++round) {
    const double start = processor_seconds();
    whole = root_optim::orthogonalize_rational(x, stages, {}, {&workspace, false}).x;
    whole_seconds.push_back(processor_seconds() - start);
  }
  for (const int64_t ranks : {2, 4, 8}) {
    std::vector<double> seconds;
    at::Tensor summed;
    for (int round = 0; round < rounds; ++round) {
      auto [factor, own] = by_sums(x, stages, ranks, &workspace);
      summed = factor;
      seconds.push_back(own);
    }
    const auto size = static_cast<double>(ranks);
    const double computed = median(seconds) / (median(whole_seconds) / size);
    // A ring sends 2(N − 1)/N of what is summed; gathering gradients and values and returning values sends
    // 3(N − 1)/N² of the matrix, if every rank owns as much.
    const double sent = 2 * static_cast<double>(stages.size()) * static_cast<double>(m) * size /
                        (3 * static_cast<double>(n));
    const double error = relative(whole[0] - sample.polar, sample.polar),
                 error_of_sums = relative(summed[0] - sample.polar, sample.polar),
                 difference = relative(summed - whole, sample.polar);
    fmt::print(
        "{:>5} x {:<5}{:<16}{:>3} ranks{:>3} stages{:>9.2f}{:>9.2f}{:>12.5f}{:>12.5f}{:>10.1e}\n",
        m, n, benchmarks::name_of(family), ranks, stages.size(), computed, sent, error,
        error_of_sums, difference);
    csv << fmt::format("{},{},{},{},{},{:.4g},{:.4g},{:.6g},{:.6g},{:.3g}\n", m, n,
                       benchmarks::name_of(family), ranks, stages.size(), computed, sent, error,
                       error_of_sums, difference);
  }
  csv.flush();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Sums of XXᵀ over column shards against gathering the matrix");
  std::string out = "build/bench/column_sums.csv";
  bool quick = false;
  app.add_option("--out", out, "the CSV");
  app.add_flag("--quick", quick, "fewer rounds and shapes");
  CLI11_PARSE(app, argc, argv);
  std::filesystem::create_directories(std::filesystem::absolute(out).parent_path());
  std::ofstream csv(out);
  csv << "rows,cols,spectrum,ranks,stages,computed,sent,error,error_of_sums,difference\n";
  const torch::NoGradGuard no_grad;
  at::set_num_threads(1);
  torch::manual_seed(1);
  fmt::print(
      "ratios of sums to gathering, of one rank; relative errors of both to the exact factor\n");
  fmt::print("{:>46}{:>9}{:>9}{:>12}{:>12}{:>10}\n", "", "computed", "sent", "gathered", "summed",
             "differ by");
  std::vector<std::tuple<int64_t, int64_t>> shapes{
      {256, 256}, {256, 1024}, {768, 768}, {768, 3072}};
  if (!quick) shapes.insert(shapes.end(), {{256, 4096}, {1024, 4096}});
  for (const auto& [m, n] : shapes) {
    for (const Family family : {Family::Gaussian, Family::HeavyTail, Family::LowRankNoise}) {
      measure(family, m, n, quick ? 3 : 7, csv);
    }
  }
}
