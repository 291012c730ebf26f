// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Trains a small model and appends what its momentum looks like to a file: for every matrix, early, midway and at
// the end of training, quantiles of log10(σ/σ_max). Held out, for reports only, are runs that say so and every
// fourth matrix of the others. momentum_spectra.csv, which the shipped coefficients are designed from and which is
// frozen, was written by the commands in momentum_spectra.sh, with the ATen headers of LibTorch 2.13.0 as the text
// (the default) or the Brown corpus, and Fashion-MNIST as the images (Debian's dataset-fashion-mnist, its .gz files
// unpacked into a folder).
#include <fmt/format.h>
#include <torch/torch.h>
#include <root_optim/root_optim.hpp>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "../examples/common/optimizers.hpp"
#include "../examples/common/schedule.hpp"
#include "../examples/data/images.hpp"
#include "../examples/data/text.hpp"
#include "../examples/models/language_model.hpp"
#include "../examples/models/resnet.hpp"
#include "../examples/models/vit.hpp"
#include "../examples/vision/batches.hpp"

namespace {

constexpr int kQuantiles = 33;

/// What a run is and where it writes.
struct Run {
  std::string name, model = "gpt", optimizer = "root", out = "momentum_spectra.csv";
  std::string text, text_directory = CAPTURE_TEXT_DIR, images;
  int64_t width = 128, layers = 4, heads = 4, context = 64, batch = 16, steps = 400, text_bytes = 0;
  double lr = 8e-3;
  bool held_out = false, published_split = false;
  std::vector<int64_t> captured;  // steps; empty: early, midway and the last
};

std::vector<double> quantiles_of(const at::Tensor& matrix) {
  const at::Tensor sigma = root_optim::singular_values(matrix);
  const int64_t count = sigma.numel();
  std::vector<double> quantiles;
  for (int i = 0; i < kQuantiles; ++i) {
    const double at = static_cast<double>(i) / (kQuantiles - 1) * static_cast<double>(count - 1);
    const double ratio = sigma[std::llround(at)].item<double>() / sigma[0].item<double>();
    quantiles.push_back(std::log10(std::max(ratio, 1e-16)));
  }
  return quantiles;
}

/// Appends lines to the summary.
class Summary {
 public:
  explicit Summary(const Run& run) : run_(run) {
    const bool fresh = !std::ifstream(run.out).good();
    csv_.open(run.out, std::ios::app);
    if (!fresh) return;
    csv_ << "run,matrix,kind,step,rows,cols,held_out";
    for (int i = 0; i < kQuantiles; ++i) csv_ << fmt::format(",q{:02d}", i);
    csv_ << '\n';
  }

  void write(const std::string& matrix, const char* kind, int64_t step, bool held_out,
             const at::Tensor& x) {
    csv_ << fmt::format("{},{},{},{},{},{},{:d}", run_.name, matrix, kind, step, x.size(0),
                        x.size(1), held_out);
    const std::vector<double> quantiles = quantiles_of(x);
    for (const double q : quantiles) csv_ << fmt::format(",{:.3f}", q);
    csv_ << '\n' << std::flush;
    fmt::print("  {} {} {}x{} median {:.2f}, three quarters {:.2f}\n", matrix, kind, x.size(0),
               x.size(1), quantiles[kQuantiles / 2], quantiles[kQuantiles * 3 / 4]);
  }

 private:
  const Run& run_;
  std::ofstream csv_;
};

/// Writes a line for every matrix of the coming step: U, and with the published split the body B behind it.
/// Of a fused projection also the key and the value together, and all three, as users without a layout step them.
template <class Optimizer>
void capture(const Run& run, Summary& summary, Optimizer& optimizer, int64_t step) {
  const torch::NoGradGuard no_grad;
  int64_t index = 0;
  std::vector<at::Tensor> fused;
  for (const root_optim::NextMatrix& next : root_optim::next_matrices(optimizer)) {
    const bool held_out = run.held_out || index++ % 4 == 3;
    const std::string matrix = fmt::format("{}.{}", next.name, next.block);
    summary.write(matrix, "U", step, held_out,
                  run.published_split ? next.unsplit[0] : next.body[0]);
    if (run.published_split) {
      summary.write(matrix, "B", step, held_out, next.body[0]);
      continue;
    }
    if (next.name.find("qkv") == std::string::npos) continue;
    if (next.block == 0) fused.clear();
    fused.push_back(next.body[0]);
    if (fused.size() < 3) continue;
    const bool held_out_too = run.held_out || (index / 3) % 4 == 3;
    summary.write(next.name + ".kv", "U", step, held_out_too, at::cat({fused[1], fused[2]}));
    summary.write(next.name, "U", step, held_out_too, at::cat(fused));
  }
}

/// The same for a model that AdamW trains: U of Muon's momentum, which is kept beside it.
class Momentum {
 public:
  explicit Momentum(const torch::nn::Module& model) {
    for (const auto& item : model.named_parameters()) {
      if (item.key().find("blocks.") == 0 && item.value().dim() == 2) {
        entries_.push_back({item.key(), item.value(), at::zeros_like(item.value())});
      }
    }
  }

  /// After backward.
  void update() {
    const torch::NoGradGuard no_grad;
    for (Entry& e : entries_) e.buffer.mul_(momentum).add_(e.parameter.grad());
  }

  void capture(const Run& run, Summary& summary, int64_t step) const {
    const torch::NoGradGuard no_grad;
    int64_t index = 0;
    for (const Entry& e : entries_) {
      const at::Tensor u = e.parameter.grad() + momentum * e.buffer;
      const bool held_out = run.held_out || index++ % 4 == 3;
      if (e.name.find("qkv") == std::string::npos) {
        summary.write(e.name + ".0", "U", step, held_out, u);
        continue;
      }
      const std::vector<at::Tensor> parts = u.chunk(3);
      for (size_t i = 0; i < 3; ++i) {
        summary.write(fmt::format("{}.{}", e.name, i), "U", step, held_out, parts[i]);
      }
      summary.write(e.name + ".kv", "U", step, held_out, at::cat({parts[1], parts[2]}));
      summary.write(e.name, "U", step, held_out, u);
    }
  }

 private:
  static constexpr double momentum = 0.95;
  struct Entry {
    std::string name;
    at::Tensor parameter, buffer;
  };
  std::vector<Entry> entries_;
};

void split_as_published(torch::optim::Optimizer& optimizer) {
  for (auto& group : optimizer.param_groups()) {
    static_cast<root_optim::RootOptions&>(group.options())
        .filter(root_optim::SoftThreshold::published())
        .filter_place(root_optim::FilterPlace::Momentum);
  }
}

void train(const Run& run, const torch::nn::Module& model,
           const std::function<at::Tensor()>& next_loss) {
  auto optimizer = examples::make_optimizer(run.optimizer, model, run.lr);
  if (run.published_split) split_as_published(*optimizer);
  root_optim::LrScheduler scheduler(*optimizer, examples::make_schedule({}, run.steps));
  std::set<int64_t> captured(run.captured.begin(), run.captured.end());
  if (captured.empty()) captured = {run.steps / 20, run.steps / 4, run.steps - 1};
  Summary summary(run);
  Momentum momentum(model);
  for (int64_t step = 0; step < run.steps; ++step) {
    optimizer->zero_grad();
    const at::Tensor loss = next_loss();
    loss.backward();
    if (run.optimizer == "adamw") momentum.update();
    if (captured.count(step) != 0) {
      fmt::print("{} step {} loss {:.3f}\n", run.name, step, loss.item<double>());
      if (auto* root = dynamic_cast<root_optim::Root*>(optimizer.get())) {
        capture(run, summary, *root, step);
      } else if (run.optimizer == "adamw") {
        momentum.capture(run, summary, step);
      } else {
        capture(run, summary, dynamic_cast<root_optim::Muon&>(*optimizer), step);
      }
      std::fflush(stdout);
    }
    optimizer->step();
    scheduler.step();
  }
}

void train_language_model(const Run& run) {
  std::string text = run.text.empty() ? language_model::read_directories({run.text_directory})
                                      : examples::read_file(run.text);
  if (run.text_bytes > 0) text.resize(std::min(text.size(), static_cast<size_t>(run.text_bytes)));
  const language_model::Corpus corpus = language_model::split_text(text, 3);
  language_model::GptOptions shape;
  shape.width = run.width;
  shape.layers = run.layers;
  shape.heads = run.heads;
  shape.context = run.context;
  torch::manual_seed(3);
  language_model::Gpt model(shape);
  language_model::RandomBatches batches(corpus.training, run.batch, shape.context, 3);
  train(run, *model, [&] {
    const language_model::Batch batch = batches.next();
    return model->loss(batch.input, batch.target);
  });
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

template <class Model>
void train_on_images(const Run& run, Model& model) {
  const vision::ImageData data = vision::read_images(run.images);
  vision::TrainingBatches batches(data, run.batch, 3, /*augmented=*/run.model != "conv");
  train(run, *model, [&] {
    const vision::Images batch = batches.next();
    return torch::nn::functional::cross_entropy(model->forward(batch.pixels), batch.labels);
  });
}

}  // namespace

int main(int argc, char** argv) {
  Run run;
  CLI::App app{"Measures the singular values of momentum in training"};
  app.add_option("--name", run.name, "Of the run in the summary")->required();
  app.add_option("--out", run.out, "CSV to append to")->capture_default_str();
  app.add_option("--model", run.model)
      ->check(CLI::IsMember({"gpt", "vit", "resnet", "conv"}))
      ->capture_default_str();
  app.add_option("--optimizer", run.optimizer)
      ->check(CLI::IsMember({"root", "muon", "adamw"}))
      ->capture_default_str();
  app.add_option("--text-dir", run.text_directory, "Learn the C++ sources and texts below it")
      ->capture_default_str();
  app.add_option("--text", run.text, "Learn this file instead")->check(CLI::ExistingFile);
  app.add_option("--text-bytes", run.text_bytes, "Only the first of them; 0: all");
  app.add_option("--images", run.images, "Folder of Fashion-MNIST's or CIFAR-10's files");
  app.add_option("--width", run.width)->capture_default_str();
  app.add_option("--layers", run.layers)->capture_default_str();
  app.add_option("--heads", run.heads)->capture_default_str();
  app.add_option("--context", run.context)->capture_default_str();
  app.add_option("--batch", run.batch)->capture_default_str();
  app.add_option("--steps", run.steps)->capture_default_str();
  app.add_option("--lr", run.lr)->capture_default_str();
  app.add_option("--captured", run.captured, "Steps to look at; default: early, midway, last");
  app.add_flag("--held-out", run.held_out, "Hold out the whole run");
  app.add_flag("--published-split", run.published_split, "Write U and B of the published split");
  CLI11_PARSE(app, argc, argv);

  if (run.model == "gpt") {
    train_language_model(run);
    return 0;
  }
  torch::manual_seed(3);
  if (run.model == "vit") {
    vision::VitOptions shape;
    shape.image_size = 28;
    shape.channels = 1;
    shape.width = run.width;
    shape.layers = run.layers;
    shape.heads = run.heads;
    vision::VisionTransformer model(shape);
    train_on_images(run, model);
  } else if (run.model == "resnet") {
    vision::ResNetOptions shape;
    shape.channels = 1;
    shape.width = run.width;
    shape.blocks = run.layers;
    vision::ResNet model(shape);
    train_on_images(run, model);
  } else {
    torch::nn::Sequential model = convolutional_network();
    train_on_images(run, model);
  }
}
