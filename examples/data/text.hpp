// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The text: reading it, splitting it into a training and a validation part, drawing batches. A
// token is a byte. Nothing here knows about models or optimizers.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>  // sort
#include <cstring>    // memcpy
#include <filesystem>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "../common/file.hpp"

namespace language_model {

namespace fs = std::filesystem;

/// Total size at which reading a directory stops.
inline constexpr size_t max_text_bytes = size_t{16} << 20;

using examples::read_file;

/// The C++ sources and plain texts below the given directories, one after the other, in the order
/// of their paths, so that the same files always give the same text.
///
/// Left out: generated files (they say so) and single files above 128 KiB (tables, mostly); both
/// repeat themselves so much that a model learns little else.
inline std::string read_directories(const std::vector<fs::path>& directories) {
  std::vector<fs::path> paths;
  for (const fs::path& directory : directories) {
    TORCH_CHECK(fs::is_directory(directory), "no such directory: ", directory.string());
    for (const auto& entry : fs::recursive_directory_iterator(directory)) {
      const std::string type = entry.path().extension().string();
      const bool is_text = type == ".h" || type == ".hpp" || type == ".cc" || type == ".cpp" ||
                           type == ".txt" || type == ".md";
      if (is_text && entry.is_regular_file()) paths.push_back(entry.path());
    }
  }
  std::sort(paths.begin(), paths.end());

  std::string text;
  for (const fs::path& path : paths) {
    if (fs::file_size(path) > (size_t{128} << 10)) continue;
    const std::string content = read_file(path);
    if (content.find("@generated") != std::string::npos) continue;
    if (text.size() + content.size() > max_text_bytes) break;
    text += content;
  }
  TORCH_CHECK(!text.empty(), "no sources or texts below ", directories.front().string(),
              directories.size() > 1 ? ", ..." : "");
  return text;
}

/// A text as bytes, cut into the part that is trained on and the part that is held out.
struct Corpus {
  at::Tensor training;    ///< uint8, [bytes]
  at::Tensor validation;  ///< uint8, [bytes]
};

/// Cuts the text into 100 equal blocks and holds out every tenth, starting at block `seed` mod 10:
/// the held-out text comes from all over the corpus, and another seed holds out other text.
inline Corpus split_text(const std::string& text, int64_t seed) {
  constexpr int64_t blocks = 100, every = 10;
  const auto size = static_cast<int64_t>(text.size());
  const at::Tensor bytes = at::empty({size}, at::kByte);
  std::memcpy(bytes.data_ptr<uint8_t>(), text.data(), text.size());

  std::vector<at::Tensor> training, validation;
  for (int64_t block = 0; block < blocks; ++block) {
    const at::Tensor part = bytes.slice(0, size * block / blocks, size * (block + 1) / blocks);
    (block % every == seed % every ? validation : training).push_back(part);
  }
  return {at::cat(training), at::cat(validation)};
}

/// Input and target of next-byte prediction: [batch, context], int64.
struct Batch {
  at::Tensor input;
  at::Tensor target;
};

/// The windows that start at the given offsets; targets are the inputs shifted by one byte.
inline Batch windows(const at::Tensor& bytes, const at::Tensor& offsets, int64_t context) {
  const at::Tensor positions = offsets.unsqueeze(1) + at::arange(context + 1);
  const at::Tensor tokens =
      bytes.index_select(0, positions.flatten()).to(at::kLong).view({offsets.size(0), context + 1});
  return {tokens.slice(1, 0, context), tokens.slice(1, 1, context + 1)};
}

/// Endless random batches. The sequence depends on the seed alone, so that every optimizer sees the
/// same one.
class RandomBatches {
 public:
  RandomBatches(at::Tensor bytes, int64_t batch, int64_t context, int64_t seed)
      : bytes_(std::move(bytes)),
        batch_(batch),
        context_(context),
        random_(static_cast<uint64_t>(seed)) {
    TORCH_CHECK(bytes_.size(0) > context_, "the training text has ", bytes_.size(0),
                " bytes; a context of ", context_, " needs at least ", context_ + 1);
  }

  Batch next() {
    const at::Tensor offsets = at::empty({batch_}, at::kLong);
    const auto count = static_cast<uint64_t>(bytes_.size(0) - context_);
    for (int64_t i = 0; i < batch_; ++i) {
      // Not std::uniform_int_distribution, whose numbers differ between standard libraries.
      offsets.data_ptr<int64_t>()[i] = static_cast<int64_t>(random_() % count);
    }
    return windows(bytes_, offsets, context_);
  }

  /// The state of the generator as text; setting it goes on with the same batches.
  std::string state() const {
    std::ostringstream text;
    text << random_;
    return text.str();
  }
  void set_state(const std::string& state) {
    std::istringstream text(state);
    text >> random_;
    TORCH_CHECK(text, "expected the state of a generator of batches, got ", state.size(),
                " characters of something else");
  }

 private:
  at::Tensor bytes_;
  int64_t batch_, context_;
  std::mt19937_64 random_;
};

/// `count` windows spread evenly over the text, as batches of at most `batch`: always the same
/// ones.
inline std::vector<Batch> fixed_batches(const at::Tensor& bytes, int64_t count, int64_t batch,
                                        int64_t context) {
  TORCH_CHECK(bytes.size(0) > context, "the validation text has ", bytes.size(0),
              " bytes; a context of ", context, " needs at least ", context + 1);
  const int64_t last = bytes.size(0) - context - 1;
  const at::Tensor offsets =
      at::arange(count).mul(last).floor_divide(std::max<int64_t>(count - 1, 1));
  std::vector<Batch> batches;
  for (const at::Tensor& part : offsets.split(batch)) {
    batches.push_back(windows(bytes, part, context));
  }
  return batches;
}

}  // namespace language_model
