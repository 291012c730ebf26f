// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Makes a table of coefficients for AdaNewton from what an optimizer met, and uses it. Input:
// --momentum FILE, a std::vector<torch::Tensor> written by torch::save, or --singular-values FILE, a
// line for each matrix: rows, cols and its singular values. Without either it trains a small network
// for 50 steps and takes the momentum of its two layers. That prints:
//
//   shape      matrices  steps  expected error: shipped  calibrated
//   32x96             1      1                    0.…      0.…
//   64x96             1      1                    0.…      0.…
//   table.txt: 2 shapes
//   calibrated is nearer for each of them: yes
#include <fmt/format.h>
#include <torch/torch.h>
#include <root_optim/root_optim.hpp>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace {

using root_optim::AdaNewton;
using root_optim::Precision;

/// The spectra met for each shape, smaller side first.
using Spectra =
    std::map<std::pair<int64_t, int64_t>, std::vector<std::pair<double, root_optim::Spectrum>>>;

void add(Spectra& spectra, int64_t rows, int64_t cols, const std::vector<double>& sigma) {
  spectra[std::minmax({rows, cols})].emplace_back(
      1.0, root_optim::measured_spectrum(sigma, root_optim::Normalization::Schatten8));
}

Spectra from_matrices(const std::vector<torch::Tensor>& matrices) {
  Spectra spectra;
  for (const auto& matrix : matrices) {
    add(spectra, matrix.size(0), matrix.size(1), root_optim::gram_singular_values(matrix));
  }
  return spectra;
}

Spectra from_text(const std::string& path) {
  std::ifstream file(path);
  Spectra spectra;
  for (std::string line; std::getline(file, line);) {
    std::istringstream numbers(line);
    int64_t rows = 0, cols = 0;
    if (!(numbers >> rows >> cols)) continue;
    std::vector<double> sigma;
    for (double value = 0; numbers >> value;) sigma.push_back(value);
    add(spectra, rows, cols, sigma);
  }
  return spectra;
}

/// The momentum buffers, whose spectra are near those of what is orthogonalized (G + μM).
std::vector<torch::Tensor> momentum_of_a_small_network() {
  using torch::nn::Linear;
  torch::manual_seed(0);
  torch::nn::Sequential teacher(Linear(64, 96), torch::nn::Tanh(), Linear(96, 32));
  torch::nn::Sequential student(Linear(64, 96), torch::nn::Tanh(), Linear(96, 32));
  root_optim::Root optimizer(root_optim::param_groups(*student, root_optim::RootOptions(3e-3)));
  for (int step = 0; step < 50; ++step) {
    const auto x = torch::randn({128, 64});
    optimizer.zero_grad();
    torch::mse_loss(student->forward(x), teacher->forward(x).detach()).backward();
    optimizer.step();
  }
  std::vector<torch::Tensor> momentum;
  for (const auto& entry : optimizer.state()) {
    const auto& state = static_cast<const root_optim::ParamState&>(*entry.second);
    if (state.momentum_buffer().defined()) {
      momentum.push_back(state.momentum_buffer());
    }
  }
  return momentum;
}

}  // namespace

int main(int argc, char** argv) {
  std::string momentum, singular_values, out = "table.txt";
  int64_t steps = 0;
  double gaussian_weight = 0.1;
  CLI::App app{"Designs AdaNewton's coefficients for measured spectra"};
  app.add_option("--momentum", momentum, "Matrices, by torch::save of a std::vector<Tensor>")
      ->check(CLI::ExistingFile);
  app.add_option("--singular-values", singular_values, "Text, a line a matrix: rows cols σ σ …")
      ->check(CLI::ExistingFile);
  app.add_option("--steps", steps,
                 "Newton-Schulz steps, 3 to 12; 0: inverses, as AdaNewton takes them")
      ->check(CLI::IsMember({0}) | CLI::Range(3, 12))
      ->capture_default_str();
  app.add_option("--gaussian-weight", gaussian_weight, "Share of a Gaussian matrix in each design")
      ->check(CLI::Range(0.0, 0.99))
      ->capture_default_str();
  app.add_option("--out", out, "The table to write")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  Spectra spectra;
  if (!singular_values.empty()) {
    spectra = from_text(singular_values);
  } else if (!momentum.empty()) {
    std::vector<torch::Tensor> matrices;
    torch::load(matrices, momentum);
    spectra = from_matrices(matrices);
  } else {
    spectra = from_matrices(momentum_of_a_small_network());
  }

  root_optim::CoefficientTable table;
  bool nearer = true;
  std::cout << "shape      matrices  steps  expected error: shipped  calibrated\n";
  for (const auto& [shape, parts] : spectra) {
    const auto [rows, cols] = shape;
    const auto seen = root_optim::condensed(root_optim::mixture(parts));
    const auto shipped = steps > 0 ? AdaNewton().steps(steps) : AdaNewton();
    shipped.validate();
    std::vector<int64_t> poles;  // of each stage
    for (const auto& f : shipped.stages(rows, cols)) {
      poles.push_back(static_cast<int64_t>(f.poles.size()));
    }
    const int64_t count = steps > 0 ? steps : static_cast<int64_t>(poles.size());
    table.set(steps > 0 ? root_optim::calibrated_entry(rows, cols, seen, steps, Precision::Float32,
                                                       gaussian_weight)
                        : root_optim::calibrated_stages(rows, cols, seen, poles, gaussian_weight));
    const auto error = [&](const AdaNewton& policy) {
      return std::sqrt(
          steps > 0
              ? root_optim::expected_mse(policy.quintics(rows, cols, Precision::Float32), seen)
              : root_optim::expected_mse(policy.stages(rows, cols),
                                         root_optim::schatten4_spectrum(
                                             seen, static_cast<double>(std::min(rows, cols)))));
    };
    const double before = error(shipped), after = error(AdaNewton().table(table));
    nearer = nearer && after < before;
    std::cout << fmt::format("{:<9} {:>9} {:>6} {:>24.4f} {:>11.4f}\n",
                             fmt::format("{}x{}", rows, cols), parts.size(), count, before, after);
  }
  std::ofstream(out) << table.to_text();
  std::cout << fmt::format("{}: {} shapes\n", out, table.size());
  std::cout << "calibrated is nearer for each of them: " << (nearer ? "yes" : "no") << '\n';

  // In training it is read like this, and used by RootOptions(lr).orthogonalizer(AdaNewton().table(again)).
  std::ifstream file(out);
  root_optim::CoefficientTable again;
  again.read(file, out);  // checks every entry
  return again.to_text() == table.to_text() ? 0 : 1;
}
