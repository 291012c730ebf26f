// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// write_images DIR: small data sets in the formats of CIFAR-10 and Fashion-MNIST below DIR, for the
// tests of the vision programs, and damaged ones. An image's brightness and its noise tell its class.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

void write(const fs::path& path, const std::string& bytes) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string pixels(int label, int count, std::mt19937& random) {
  std::string bytes;
  for (int i = 0; i < count; ++i) {
    bytes += static_cast<char>(24 * label + static_cast<int>(random() % 32));
  }
  return bytes;
}

std::string cifar10_file(int images, uint32_t seed) {
  std::mt19937 random(seed);
  std::string bytes;
  for (int i = 0; i < images; ++i) {
    const int label = static_cast<int>(random() % 10);
    bytes += static_cast<char>(label) + pixels(label, 3 * 32 * 32, random);
  }
  return bytes;
}

std::string idx_header(const std::vector<int>& sizes) {
  std::string bytes{0, 0, 8, static_cast<char>(sizes.size())};
  for (const int size : sizes) {
    for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(size >> shift & 0xff);
  }
  return bytes;
}

void write_idx(const fs::path& directory, const std::string& part, int images) {
  std::mt19937 random(7);
  std::string labels = idx_header({images}), all = idx_header({images, 28, 28});
  for (int i = 0; i < images; ++i) {
    const int label = static_cast<int>(random() % 10);
    labels += static_cast<char>(label);
    all += pixels(label, 28 * 28, random);
  }
  write(directory / (part + "-images-idx3-ubyte"), all);
  write(directory / (part + "-labels-idx1-ubyte"), labels);
}

void write_cifar10(const fs::path& directory) {
  for (uint32_t batch = 1; batch <= 5; ++batch) {
    write(directory / ("data_batch_" + std::to_string(batch) + ".bin"), cifar10_file(40, batch));
  }
  write(directory / "test_batch.bin", cifar10_file(30, 6));
}

void write_fashion_mnist(const fs::path& directory) {
  write_idx(directory, "train", 100);
  write_idx(directory, "t10k", 20);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("Usage: write_images DIR\n", stderr);
    return 1;
  }
  const fs::path root = argv[1];
  fs::remove_all(root);
  write_cifar10(root / "cifar10");
  write_fashion_mnist(root / "fashion");
  fs::create_directories(root / "empty");

  write_cifar10(root / "truncated_cifar10");
  fs::resize_file(root / "truncated_cifar10/test_batch.bin", 3000);
  write_cifar10(root / "wrong_label");
  std::string records = cifar10_file(2, 1);
  records[records.size() / 2] = 77;
  write(root / "wrong_label/data_batch_5.bin", records);

  write_fashion_mnist(root / "truncated_fashion");
  const fs::path images = root / "truncated_fashion/t10k-images-idx3-ubyte";
  fs::resize_file(images, fs::file_size(images) - 1);
  write_fashion_mnist(root / "wrong_magic");
  write(root / "wrong_magic/train-images-idx3-ubyte", idx_header({1, 1, 1, 1}));
  write_fashion_mnist(root / "missing_label");
  write(root / "missing_label/t10k-labels-idx1-ubyte", idx_header({19}) + std::string(19, '\0'));
  write_fashion_mnist(root / "compressed");
  fs::rename(root / "compressed/train-images-idx3-ubyte",
             root / "compressed/train-images-idx3-ubyte.gz");
  return 0;
}
