// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Trains small models with ROOT and writes what their momentum looks like: quantiles of
// log10(σ/σ_max) of every matrix, before (U) and behind (B) the published outlier split of the
// momentum, early, midway and at the end of training. The runs: byte-level language models of
// several widths, and a convolutional network. Held out, for reports only: the widest language
// model, and every fourth matrix of the other runs. momentum_spectra.csv, which the shipped
// coefficients are designed from, was written by
//
//   build/release/tools/capture_spectra --images DIRECTORY --out tools/momentum_spectra.csv
//
// with the ATen headers of LibTorch 2.13.0 as the text (the default) and Fashion-MNIST as the
// images (Debian's dataset-fashion-mnist, its .gz files unpacked into DIRECTORY).
#include <fmt/format.h>
#include <torch/torch.h>
#include <root_optim/root_optim.hpp>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "../examples/common/optimizers.hpp"
#include "../examples/common/schedule.hpp"
#include "../examples/data/text.hpp"
#include "../examples/models/language_model.hpp"

namespace {

constexpr int kQuantiles = 33;
constexpr double kLearningRate = 8e-3;

std::string quantiles_of(const at::Tensor& matrix) {
  const at::Tensor sigma = root_optim::singular_values(matrix);
  const int64_t count = sigma.numel();
  std::string line;
  for (int i = 0; i < kQuantiles; ++i) {
    const double at = static_cast<double>(i) / (kQuantiles - 1) * static_cast<double>(count - 1);
    const double ratio = sigma[std::llround(at)].item<double>() / sigma[0].item<double>();
    line += fmt::format(",{:.3f}", std::log10(std::max(ratio, 1e-16)));
  }
  return line;
}

/// Where a run writes its spectra.
struct Run {
  std::ofstream& csv;
  std::string name;
  bool held_out;
};

/// The optimizer that is trained with, with the split as published: the summary has momentum before and
/// behind that one.
void split_as_published(root_optim::Root& optimizer) {
  for (auto& group : optimizer.param_groups()) {
    static_cast<root_optim::RootOptions&>(group.options())
        .filter(root_optim::SoftThreshold::published())
        .filter_place(root_optim::FilterPlace::Momentum);
  }
}

/// Writes a line for every matrix of the coming step, before and behind the split.
void capture(const Run& run, root_optim::Root& optimizer, int64_t step) {
  const torch::NoGradGuard no_grad;
  int64_t matrix = 0;
  for (const root_optim::NextMatrix& next : root_optim::next_matrices(optimizer)) {
    const bool held_out = run.held_out || matrix++ % 4 == 3;
    const auto write = [&](const char* kind, const at::Tensor& x) {
      run.csv << fmt::format("{},{}.{},{},{},{},{},{:d}{}\n", run.name, next.name, next.block, kind,
                             step, x.size(1), x.size(2), held_out, quantiles_of(x[0]));
    };
    write("U", next.unsplit);
    write("B", next.body);
  }
  run.csv.flush();
}

std::set<int64_t> captured_steps(int64_t steps) { return {steps / 20, steps / 4, steps - 1}; }

void capture_language_model(const Run& run, const language_model::Corpus& corpus, int64_t width,
                            int64_t steps) {
  language_model::GptOptions shape;
  shape.width = width;
  torch::manual_seed(3);
  language_model::Gpt model(shape);
  auto optimizer = examples::make_optimizer("root", *model, kLearningRate);
  split_as_published(dynamic_cast<root_optim::Root&>(*optimizer));
  root_optim::LrScheduler scheduler(*optimizer, examples::make_schedule({}, steps));
  language_model::RandomBatches batches(corpus.training, 16, shape.context, 3);
  const auto captured = captured_steps(steps);
  for (int64_t step = 0; step < steps; ++step) {
    const language_model::Batch batch = batches.next();
    optimizer->zero_grad();
    const at::Tensor loss = model->loss(batch.input, batch.target);
    loss.backward();
    if (captured.count(step) != 0) {
      capture(run, dynamic_cast<root_optim::Root&>(*optimizer), step);
      fmt::print("{} step {} loss {:.3f}\n", run.name, step, loss.item<double>());
    }
    optimizer->step();
    scheduler.step();
  }
}

torch::nn::Sequential convolutional_network() {
  using namespace torch::nn;
  const auto conv = [](int64_t in, int64_t out, int64_t stride) {
    return Conv2d(Conv2dOptions(in, out, 3).stride(stride).padding(1));
  };
  return Sequential(conv(1, 32, 1), ReLU(), conv(32, 64, 2), ReLU(), conv(64, 128, 2), ReLU(),
                    conv(128, 128, 2), ReLU(), Flatten(), Linear(128 * 16, 128), ReLU(),
                    Linear(128, 10));
}

void capture_convolutions(const Run& run, const std::string& images, int64_t steps) {
  torch::manual_seed(3);
  const torch::data::datasets::MNIST data(images);
  torch::nn::Sequential model = convolutional_network();
  root_optim::Root optimizer(
      root_optim::param_groups(*model, root_optim::RootOptions(kLearningRate).weight_decay(0.1)));
  split_as_published(optimizer);
  root_optim::LrScheduler scheduler(optimizer, examples::make_schedule({}, steps));
  const auto captured = captured_steps(steps);
  for (int64_t step = 0; step < steps; ++step) {
    const at::Tensor index = torch::randint(data.images().size(0), {64}, at::kLong);
    optimizer.zero_grad();
    const at::Tensor loss =
        torch::nn::functional::cross_entropy(model->forward(data.images().index_select(0, index)),
                                             data.targets().index_select(0, index));
    loss.backward();
    if (captured.count(step) != 0) {
      capture(run, optimizer, step);
      fmt::print("{} step {} loss {:.3f}\n", run.name, step, loss.item<double>());
    }
    optimizer.step();
    scheduler.step();
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::string directory = CAPTURE_TEXT_DIR, images, out = "momentum_spectra.csv";
  std::vector<int64_t> widths = {64, 128, 192};
  int64_t steps = 400;
  CLI::App app{"Measures the singular values of momentum in training"};
  app.add_option("--text-dir", directory, "Learn the C++ sources and texts below this directory")
      ->check(CLI::ExistingDirectory)
      ->capture_default_str();
  app.add_option("--images", images, "Folder with train-images-idx3-ubyte and its labels")
      ->check(CLI::ExistingDirectory);
  app.add_option("--out", out, "CSV to write")->capture_default_str();
  app.add_option("--widths", widths, "Widths of the language models; the last is held out")
      ->capture_default_str();
  app.add_option("--steps", steps, "Training steps of each run")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  std::ofstream csv(out);
  csv << "run,matrix,kind,step,rows,cols,held_out";
  for (int i = 0; i < kQuantiles; ++i) csv << fmt::format(",q{:02d}", i);
  csv << '\n';
  if (!images.empty()) capture_convolutions({csv, "conv", false}, images, steps);
  const language_model::Corpus corpus =
      language_model::split_text(language_model::read_directories({directory}), 3);
  for (const int64_t width : widths) {
    capture_language_model({csv, fmt::format("gpt{}", width), width == widths.back()}, corpus,
                           width, steps);
  }
}
