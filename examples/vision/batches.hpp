// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Training batches by LibTorch's DataLoader, in an order that depends on the seed alone: batch n is the
// same whether the batches before it were drawn or skipped.
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>
#include <torch/data/dataloader.h>
#include <torch/data/datasets/base.h>
#include <torch/data/samplers/base.h>
#include <torch/serialize/archive.h>

#include <algorithm>  // swap
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>  // iota
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "../data/augmentation.hpp"
#include "../data/images.hpp"

namespace vision {

/// Images and labels by index, a batch at a time.
class ImageDataset : public torch::data::datasets::BatchDataset<ImageDataset, Images> {
 public:
  explicit ImageDataset(Images images) : images_(std::move(images)) {}

  Images get_batch(at::ArrayRef<size_t> indices) override {
    const at::Tensor index = at::tensor(std::vector<int64_t>(indices.begin(), indices.end()));
    return {images_.pixels.index_select(0, index), images_.labels.index_select(0, index)};
  }

  // LibTorch's optional is c10's or the standard's, depending on the version.
  using Size = decltype(std::declval<const BatchDataset&>().size());
  Size size() const override { return static_cast<size_t>(images_.labels.size(0)); }

 private:
  Images images_;
};

/// All indices in an order drawn anew for each epoch from the seed and the epoch's number. The first
/// epoch may be begun in its middle.
class EpochSampler : public torch::data::samplers::Sampler<> {
 public:
  using Indices = decltype(std::declval<torch::data::samplers::Sampler<>&>().next(0));

  EpochSampler(size_t size, int64_t seed, int64_t epoch, size_t position)
      : seed_(seed), epoch_(epoch - 1), first_position_(position), order_(size) {}

  /// Begins the next epoch, as the DataLoader does whenever it is iterated over.
  void reset(ImageDataset::Size new_size = {}) override {
    if (new_size) order_.resize(*new_size);
    ++epoch_;
    position_ = std::exchange(first_position_, 0);
    std::iota(order_.begin(), order_.end(), size_t{0});
    std::seed_seq seeds{seed_, epoch_};
    std::mt19937_64 random(seeds);
    // Not std::shuffle, whose orders differ between standard libraries.
    for (size_t left = order_.size(); left > 1; --left) {
      std::swap(order_[left - 1], order_[random() % left]);
    }
  }

  Indices next(size_t batch_size) override {
    if (position_ >= order_.size()) return {};
    const size_t end = std::min(position_ + batch_size, order_.size());
    const auto begin = order_.begin();
    std::vector<size_t> indices(begin + static_cast<std::ptrdiff_t>(position_),
                                begin + static_cast<std::ptrdiff_t>(end));
    position_ = end;
    return indices;
  }

  void save(torch::serialize::OutputArchive& archive) const override {
    archive.write("epoch", c10::IValue(epoch_));
    archive.write("position", c10::IValue(static_cast<int64_t>(position_)));
  }

  /// The next `reset` begins where the saved sampler was.
  void load(torch::serialize::InputArchive& archive) override {
    c10::IValue epoch, position;
    archive.read("epoch", epoch);
    archive.read("position", position);
    epoch_ = epoch.toInt() - 1;
    first_position_ = static_cast<size_t>(position.toInt());
  }

 private:
  int64_t seed_, epoch_;
  size_t first_position_, position_ = 0;
  std::vector<size_t> order_;
};

/// Endless normalized training batches; those left over at the end of an epoch are dropped.
class TrainingBatches {
 public:
  TrainingBatches(const ImageData& data, int64_t batch, int64_t seed, bool augmented)
      : data_(data), batch_(batch), seed_(seed), augmented_(augmented) {
    TORCH_CHECK(per_epoch() > 0, "expected a batch of at most ", data.train.labels.size(0),
                " images, all there are to train on, got ", batch);
    skip_to(0);
  }

  int64_t per_epoch() const { return data_.train.labels.size(0) / batch_; }
  /// The number of the next batch.
  int64_t position() const { return position_; }

  void skip_to(int64_t position) {
    TORCH_CHECK(position >= 0, "expected the number of a batch, got ", position);
    position_ = position;
    const int64_t in_epoch = position % per_epoch() * batch_;
    EpochSampler sampler(static_cast<size_t>(data_.train.labels.size(0)), seed_,
                         position / per_epoch(), static_cast<size_t>(in_epoch));
    next_.reset();
    loader_ = torch::data::make_data_loader(
        ImageDataset(data_.train), std::move(sampler),
        torch::data::DataLoaderOptions(static_cast<size_t>(batch_)).drop_last(true));
  }

  /// pixels: float32, normalized, and augmented if so asked for.
  Images next() {
    if (!next_ || *next_ == loader_->end()) next_.emplace(loader_->begin());
    Images batch = **next_;
    ++*next_;
    if (augmented_) {
      std::seed_seq seeds{seed_, position_};
      const uint64_t seed = std::mt19937_64(seeds)();
      batch.pixels = augment(batch.pixels, at::make_generator<at::CPUGeneratorImpl>(seed));
    }
    batch.pixels = normalize(batch.pixels, data_.mean, data_.deviation);
    ++position_;
    return batch;
  }

 private:
  using Loader = torch::data::StatelessDataLoader<ImageDataset, EpochSampler>;

  const ImageData& data_;
  int64_t batch_, seed_;
  bool augmented_;
  int64_t position_ = 0;
  std::unique_ptr<Loader> loader_;
  std::optional<torch::data::Iterator<Images>> next_;  // of loader_
};

}  // namespace vision
