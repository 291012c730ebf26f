// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// How the time of an orthogonalization grows with the matrix, and how near it comes to what the
// machine can do: Root's default orthogonalizer against plain float32 products of the same sizes,
// taken in turns. Prints a table and writes a CSV; scripts/bench.sh scaling runs it.
#include <ATen/Parallel.h>  // get_num_threads
#include <fmt/format.h>
#include <torch/torch.h>
#include <root_optim/orthogonalizers/ada_newton.hpp>
#include <root_optim/orthogonalizers/iteration_plan.hpp>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "timing.hpp"

namespace {

double seconds(const std::function<void()>& work, int64_t times = 1) {
  const auto start = std::chrono::steady_clock::now();
  for (int64_t i = 0; i < times; ++i) work();
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
  return passed.count() / static_cast<double>(times);
}

/// Medians of the times of several functions, measured in turns so that all meet the same machine.
std::vector<double> race(const std::vector<std::function<void()>>& runners, size_t rounds) {
  std::vector<int64_t> times;  // calls per measurement: at least 20 ms together
  for (const auto& run : runners) {
    run();
    times.push_back(std::max<int64_t>(1, std::llround(std::ceil(0.02 / seconds(run)))));
  }
  std::vector<std::vector<double>> measured(runners.size());
  for (size_t round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < runners.size(); ++i) {
      measured[i].push_back(seconds(runners[i], times[i]));
    }
  }
  std::vector<double> medians;
  for (const auto& values : measured) medians.push_back(benchmarks::median(values));
  return medians;
}

/// e of time ∝ size^e, by least squares in the logarithms.
double exponent(const std::vector<std::pair<double, double>>& points) {
  double x = 0, y = 0, xx = 0, xy = 0;
  for (const auto& [size, time] : points) {
    const double u = std::log(size), v = std::log(time);
    x += u;
    y += v;
    xx += u * u;
    xy += u * v;
  }
  const auto n = static_cast<double>(points.size());
  return (n * xy - x * y) / (n * xx - x * x);
}

}  // namespace

int main(int argc, char** argv) {
  std::string out = "build/bench/scaling.csv";
  bool quick = false;
  CLI::App app{"Time of orthogonalization against the size of the matrix"};
  app.add_option("--out", out, "CSV to write")->capture_default_str();
  app.add_flag("--quick", quick, "Only matrices of up to 1024 rows, three rounds");
  CLI11_PARSE(app, argc, argv);

  torch::manual_seed(0);
  const at::NoGradGuard no_grad;
  const root_optim::AdaNewton orthogonalizer;
  const std::filesystem::path path(out);
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path());
  std::ofstream csv(path);
  csv << "rows,cols,steps,threads,ms,gflop,gflop_per_s,gemm_gflop_per_s,share\n";
  fmt::print("{:>11} {:>5} {:>10} {:>10} {:>10} {:>10} {:>6}\n", "shape", "steps", "ms", "GFLOP",
             "GFLOP/s", "GEMM", "share");

  std::vector<int64_t> sizes = {256, 384, 512, 768, 1024};
  if (!quick) sizes.insert(sizes.end(), {1536, 2048, 3072, 4096});
  for (const int64_t aspect : {1, 4}) {
    std::vector<std::pair<double, double>> points;
    for (const int64_t m : sizes) {
      const int64_t n = aspect * m;
      const at::Tensor x = at::randn({1, m, n}), square = at::randn({m, m});
      at::Tensor wide_product = at::empty({m, n}), square_product = at::empty({m, m});
      const size_t rounds = quick || m > 2048 ? 3 : 7;
      // The best rate at a size: of the two products that an iteration on m × n is made of.
      const auto medians =
          race({[&] { orthogonalizer(x); }, [&] { at::mm_out(wide_product, square, x[0]); },
                [&] { at::mm_out(square_product, square, square); }},
               rounds);
      const double edge = static_cast<double>(m), wide = static_cast<double>(n);
      const double gemm =
          std::max(2 * edge * edge * wide / medians[1], 2 * edge * edge * edge / medians[2]);
      const auto schedule = orthogonalizer.stages(m, n);
      double flops = 0;  // XXᵀ by blocks, PX, and inverses
      for (const auto& f : schedule) {
        const int64_t blocks = std::clamp<int64_t>(m / 256, 1, 4);
        flops += (2 * root_optim::symmetric_share(blocks) + 2) * edge * edge * wide +
                 static_cast<double>(f.poles.size()) * edge * edge * edge;
      }
      const double rate = flops / medians[0];
      points.emplace_back(edge, medians[0]);
      csv << fmt::format("{},{},{},{},{:.6g},{:.6g},{:.6g},{:.6g},{:.4f}\n", m, n, schedule.size(),
                         at::get_num_threads(), 1e3 * medians[0], 1e-9 * flops, 1e-9 * rate,
                         1e-9 * gemm, rate / gemm);
      csv.flush();
      fmt::print("{:>11} {:>5} {:>10.3f} {:>10.2f} {:>10.1f} {:>10.1f} {:>6.2f}\n",
                 fmt::format("{}x{}", m, n), schedule.size(), 1e3 * medians[0], 1e-9 * flops,
                 1e-9 * rate, 1e-9 * gemm, rate / gemm);
      std::fflush(stdout);
    }
    const auto large = [](const auto& point) { return point.first >= 512; };
    const auto first = std::find_if(points.begin(), points.end(), large);
    fmt::print("1:{}: time grows with the {:.2f}th power of the rows (from 512 on: {:.2f})\n",
               aspect, exponent(points), exponent({first, points.end()}));
  }
  fmt::print("\n{} threads\n{}\n", at::get_num_threads(), out);
}
