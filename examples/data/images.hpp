// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Labelled images from the files they are published in: CIFAR-10 (binary version) and Fashion-MNIST
// (IDX). Nothing here knows about models.
#pragma once

#include <ATen/Functions.h>
#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <algorithm>  // min
#include <cstdint>
#include <cstring>  // memcpy
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "../common/file.hpp"

namespace vision {

namespace fs = std::filesystem;

inline constexpr int64_t classes = 10;  ///< of both data sets

struct Images {
  at::Tensor pixels;  ///< uint8, [n, channels, height, width]
  at::Tensor labels;  ///< int64, [n]
};

struct ImageData {
  Images train, test;
  std::vector<double> mean, deviation;  ///< per channel, of the training pixels in [0, 1]
};

/// Where the data come from, for messages.
inline constexpr const char* how_to_get_images =
    "unpack the binary version of https://www.cs.toronto.edu/~kriz/cifar.html, or the .gz files of "
    "Debian's package dataset-fashion-mnist, into a folder and name it by --data";

namespace detail {

inline std::string read_bytes(const fs::path& path) {
  const fs::path compressed = path.string() + ".gz";
  TORCH_CHECK(fs::exists(path) || !fs::exists(compressed), "expected the unpacked file ",
              path.string(), ", got ", compressed.string(), ": run gunzip on it");
  return examples::read_file(path);
}

inline void check_labels(const at::Tensor& labels, const fs::path& path) {
  const at::Tensor wrong = labels.ge(classes).nonzero();
  TORCH_CHECK(wrong.numel() == 0, path.string(), ": expected labels from 0 to ", classes - 1,
              ", got ", labels[wrong.flatten()[0]].item<int64_t>(), " for image ",
              wrong.flatten()[0].item<int64_t>());
}

/// The unsigned integer of four bytes, the highest first, at `offset`.
inline int64_t big_endian(const std::string& bytes, size_t offset) {
  int64_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = 256 * value + static_cast<uint8_t>(bytes[offset + i]);
  return value;
}

/// The content of an IDX file of unsigned bytes: its magic number 0x0800 + rank, as many sizes, and
/// then the entries.
inline at::Tensor read_idx(const fs::path& path, int64_t rank) {
  const std::string bytes = read_bytes(path);
  const size_t header = 4 + 4 * static_cast<size_t>(rank);
  TORCH_CHECK(bytes.size() >= header, path.string(), ": expected a header of ", header,
              " bytes, got a file of ", bytes.size());
  const int64_t magic = big_endian(bytes, 0);
  TORCH_CHECK(magic == 0x0800 + rank, path.string(), ": expected the magic number ", 0x0800 + rank,
              " (IDX, unsigned bytes, rank ", rank, "), got ", magic);
  std::vector<int64_t> sizes;
  double entries = 1;  // a product of three untrusted 32-bit sizes may overflow an integer
  for (int64_t i = 0; i < rank; ++i) {
    sizes.push_back(big_endian(bytes, 4 + 4 * static_cast<size_t>(i)));
    entries *= static_cast<double>(sizes.back());
  }
  TORCH_CHECK(entries > 0 && entries == static_cast<double>(bytes.size() - header), path.string(),
              ": expected ", static_cast<int64_t>(std::min(entries, 9e18)),
              " bytes behind the header, as its sizes ", at::IntArrayRef(sizes), " say, got ",
              bytes.size() - header);
  const at::Tensor tensor = at::empty(sizes, at::kByte);
  std::memcpy(tensor.data_ptr<uint8_t>(), bytes.data() + header, bytes.size() - header);
  return tensor;
}

inline Images read_idx_pair(const fs::path& directory, const std::string& part) {
  const fs::path images = directory / (part + "-images-idx3-ubyte");
  const fs::path labels = directory / (part + "-labels-idx1-ubyte");
  Images result{read_idx(images, 3).unsqueeze(1), read_idx(labels, 1).to(at::kLong)};
  TORCH_CHECK(result.labels.size(0) == result.pixels.size(0), labels.string(), ": expected ",
              result.pixels.size(0), " labels, one per image, got ", result.labels.size(0));
  check_labels(result.labels, labels);
  return result;
}

/// One file of CIFAR-10's binary version: per image a label and 3 × 32 × 32 pixels, one byte each.
inline Images read_cifar10_file(const fs::path& path) {
  constexpr int64_t side = 32, record = 1 + 3 * side * side;
  const std::string bytes = read_bytes(path);
  const auto size = static_cast<int64_t>(bytes.size());
  TORCH_CHECK(size > 0 && size % record == 0, path.string(), ": expected a multiple of ", record,
              " bytes (a label and 3 x 32 x 32 pixels per image), got ", size);
  const at::Tensor records = at::empty({size / record, record}, at::kByte);
  std::memcpy(records.data_ptr<uint8_t>(), bytes.data(), bytes.size());
  Images result{records.slice(1, 1).reshape({-1, 3, side, side}),
                records.select(1, 0).to(at::kLong)};
  check_labels(result.labels, path);
  return result;
}

inline ImageData with_statistics(Images train, Images test) {
  ImageData data{std::move(train), std::move(test), {}, {}};
  TORCH_CHECK(data.train.pixels.sizes().slice(1) == data.test.pixels.sizes().slice(1),
              "expected test images of ", data.train.pixels.sizes().slice(1),
              " pixels, as for training, got ", data.test.pixels.sizes().slice(1));
  for (int64_t channel = 0; channel < data.train.pixels.size(1); ++channel) {
    const at::Tensor values = data.train.pixels.select(1, channel).to(at::kFloat).div(255);
    data.mean.push_back(values.mean().item<double>());
    data.deviation.push_back(values.std().item<double>());
  }
  return data;
}

}  // namespace detail

/// CIFAR-10 from data_batch_1.bin … data_batch_5.bin and test_batch.bin.
/// @throws c10::Error naming the file, what was expected in it and what it has.
inline ImageData read_cifar10(const fs::path& directory) {
  std::vector<at::Tensor> pixels, labels;
  for (int batch = 1; batch <= 5; ++batch) {
    const Images images =
        detail::read_cifar10_file(directory / ("data_batch_" + std::to_string(batch) + ".bin"));
    pixels.push_back(images.pixels);
    labels.push_back(images.labels);
  }
  return detail::with_statistics({at::cat(pixels), at::cat(labels)},
                                 detail::read_cifar10_file(directory / "test_batch.bin"));
}

/// Fashion-MNIST (or MNIST) from {train,t10k}-{images-idx3,labels-idx1}-ubyte.
/// @throws c10::Error naming the file, what was expected in it and what it has.
inline ImageData read_fashion_mnist(const fs::path& directory) {
  return detail::with_statistics(detail::read_idx_pair(directory, "train"),
                                 detail::read_idx_pair(directory, "t10k"));
}

/// Whichever of the two the directory holds.
/// @throws c10::Error as they do, and with where to get the data if there is none.
inline ImageData read_images(const fs::path& directory) {
  if (fs::exists(directory / "data_batch_1.bin")) return read_cifar10(directory);
  const fs::path idx = directory / "train-images-idx3-ubyte";
  TORCH_CHECK(
      fs::exists(idx) || fs::exists(idx.string() + ".gz"),
      "expected data_batch_1.bin (CIFAR-10) or train-images-idx3-ubyte (Fashion-MNIST) in ",
      directory.string(),
      fs::is_directory(directory) ? ", got neither: " : ", got no folder: ", how_to_get_images);
  return read_fashion_mnist(directory);
}

}  // namespace vision
