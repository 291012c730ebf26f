// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A matrix whose columns N ranks have: what it takes to leave them there and sum XXᵀ over the ranks
// (ShardedAdaNewton), against what `distribute` does, which brings the matrix to one rank. Ranks are threads over
// Gloo; bytes are counted. Prints a table and writes a CSV; scripts/bench.sh column_sums runs it.
#include "../examples/distributed/process_group.hpp"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/torch.h>

#include <root_optim/distributed.hpp>
#include <root_optim/root_optim.hpp>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "matrices.hpp"
#include "timing.hpp"

namespace {

using benchmarks::Family;
using benchmarks::median;
using benchmarks::processor_seconds;

double relative(const at::Tensor& error, const at::Tensor& exact) {
  return (error.to(at::kDouble).norm() / exact.norm()).item<double>();
}

/// f(rank, its policy) on ranks that are threads. The group is new, as are its connections.
template <class F>
void on_ranks(int64_t ranks, const F& f) {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      const torch::NoGradGuard no_grad;
      at::set_num_threads(1);
      f(rank, root_optim::ShardedAdaNewton().group(examples::make_gloo_group(
                  store, static_cast<int>(rank), static_cast<int>(ranks),
                  c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1"),
                  std::chrono::minutes(5))));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

/// The factor of [1, m, n] of which each rank has some columns, and the median processor time of rank 0's thread:
/// Gloo's threads, which send and add, are not in it.
std::pair<at::Tensor, double> by_sums(const at::Tensor& x, int64_t ranks, int rounds) {
  std::vector<at::Tensor> factors(static_cast<size_t>(ranks));
  std::vector<double> seconds;
  on_ranks(ranks, [&](int64_t rank, const root_optim::ShardedAdaNewton& policy) {
    const at::Tensor own = x.tensor_split(ranks, 2)[static_cast<size_t>(rank)].contiguous();
    root_optim::Workspace workspace;
    for (int round = 0; round < rounds; ++round) {
      const double start = processor_seconds();
      factors[static_cast<size_t>(rank)] = policy(own, {&workspace, false});
      if (rank == 0) seconds.push_back(processor_seconds() - start);
    }
  });
  return {at::cat(factors, 2), median(seconds)};
}

void measure(Family family, int64_t m, int64_t n, int rounds, std::ofstream& csv) {
  const benchmarks::Sample sample = benchmarks::sample(family, m, n, 0);
  const at::Tensor x = sample.matrix.to(at::kFloat).unsqueeze(0);
  const root_optim::AdaNewton ada_newton;
  const size_t stages = ada_newton.stages(m, n).size();
  root_optim::Workspace workspace;
  std::vector<double> whole_seconds;
  at::Tensor whole;
  for (int round = 0; round < rounds; ++round) {
    const double start = processor_seconds();
    whole = ada_newton(x, {&workspace, false});
    whole_seconds.push_back(processor_seconds() - start);
  }
  for (const int64_t ranks : {2, 4, 8}) {
    const auto [summed, seconds] = by_sums(x, ranks, rounds);
    const auto size = static_cast<double>(ranks);
    const double computed = seconds / (median(whole_seconds) / size);
    // A ring sends 2(N − 1)/N of what is summed; gathering gradients and values and returning values sends
    // 3(N − 1)/N² of the matrix, if every rank owns as much.
    const double sent = 2 * static_cast<double>(stages) * static_cast<double>(m) * size /
                        (3 * static_cast<double>(n));
    const double error = relative(whole[0] - sample.polar, sample.polar),
                 error_of_sums = relative(summed[0] - sample.polar, sample.polar),
                 difference = relative(summed - whole, sample.polar);
    fmt::print(
        "{:>5} x {:<5}{:<16}{:>3} ranks{:>3} stages{:>9.2f}{:>9.2f}{:>12.5f}{:>12.5f}{:>10.1e}\n",
        m, n, benchmarks::name_of(family), ranks, stages, computed, sent, error, error_of_sums,
        difference);
    csv << fmt::format("{},{},{},{},{},{:.4g},{:.4g},{:.6g},{:.6g},{:.3g}\n", m, n,
                       benchmarks::name_of(family), ranks, stages, computed, sent, error,
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
