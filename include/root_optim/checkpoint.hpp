// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What a checkpoint of an optimizer contains, how it lies in LibTorch's archive, and `save` and
// `load` for files and streams. How an optimizer turns itself into a Checkpoint and back is in
// optimizer.hpp.
#pragma once

#include <ATen/core/ivalue.h>
#include <c10/util/Exception.h>  // TORCH_CHECK
#include <torch/serialize/archive.h>

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <ios>
#include <istream>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/detail/archive.hpp>
#include <root_optim/options.hpp>  // ParamState

namespace root_optim {
inline namespace v0 {

/// A parameter's part of a checkpoint. `state.step() == 0` means that it has not been stepped yet.
struct CheckpointParam {
  std::vector<int64_t> shape;
  ParamState state;
};

/// A group's part of a checkpoint: complete options, and its parameters in their order.
struct CheckpointGroup {
  Fields options;
  std::vector<CheckpointParam> params;
};

/// All groups of an optimizer. Parameters are known by group and position, never by address, so
/// that two saves of equal optimizers have equal content.
using Checkpoint = std::vector<CheckpointGroup>;

namespace detail {

/// Raised when what is stored changes in a way that older readers cannot follow.
inline constexpr int64_t checkpoint_format = 1;

inline int64_t read_integer(torch::serialize::InputArchive& archive, const std::string& key) {
  c10::IValue value;
  TORCH_CHECK(archive.try_read(key, value) && value.isInt(),
              "root_optim::load: expected an integer '", key, "', got none");
  return value.toInt();
}

inline void write_checkpoint(torch::serialize::OutputArchive& archive,
                             const Checkpoint& checkpoint) {
  archive.write("root_optim_format", c10::IValue(checkpoint_format));
  archive.write("groups", c10::IValue(static_cast<int64_t>(checkpoint.size())));
  for (size_t g = 0; g < checkpoint.size(); ++g) {
    torch::serialize::OutputArchive group(archive.compilation_unit());
    torch::serialize::OutputArchive options(archive.compilation_unit());
    write_fields(options, checkpoint[g].options);
    group.write("options", options);
    const auto& params = checkpoint[g].params;
    group.write("params", c10::IValue(static_cast<int64_t>(params.size())));
    for (size_t p = 0; p < params.size(); ++p) {
      torch::serialize::OutputArchive param(archive.compilation_unit());
      param.write("shape", c10::IValue(params[p].shape));
      params[p].state.serialize(param);
      group.write("param" + std::to_string(p), param);
    }
    archive.write("group" + std::to_string(g), group);
  }
}

/// Reads all of a checkpoint.
/// @throws c10::Error if the archive is not a checkpoint of this library or of a newer format.
inline Checkpoint read_checkpoint(torch::serialize::InputArchive& archive) {
  c10::IValue format;
  TORCH_CHECK(archive.try_read("root_optim_format", format) && format.isInt(),
              "root_optim::load: expected a checkpoint written by root_optim, got another archive");
  TORCH_CHECK(format.toInt() == checkpoint_format, "root_optim::load: expected format ",
              checkpoint_format, ", got ", format.toInt(),
              format.toInt() > checkpoint_format ? " (written by a newer version)" : "");
  const auto nested = [](torch::serialize::InputArchive& from, const std::string& key) {
    torch::serialize::InputArchive to;
    TORCH_CHECK(from.try_read(key, to), "root_optim::load: expected an entry '", key,
                "', got none");
    return to;
  };
  Checkpoint checkpoint;
  const int64_t groups = read_integer(archive, "groups");
  for (int64_t g = 0; g < groups; ++g) {
    torch::serialize::InputArchive group = nested(archive, "group" + std::to_string(g));
    torch::serialize::InputArchive options = nested(group, "options");
    CheckpointGroup read_group;
    read_group.options = read_fields(options);
    const int64_t params = read_integer(group, "params");
    for (int64_t p = 0; p < params; ++p) {
      torch::serialize::InputArchive param = nested(group, "param" + std::to_string(p));
      CheckpointParam read_param;
      c10::IValue shape;
      TORCH_CHECK(param.try_read("shape", shape) && shape.isIntList(),
                  "root_optim::load: expected the shape of parameter ", p, " of group ", g,
                  ", got none");
      read_param.shape = shape.toIntVector();
      read_param.state.serialize(param);
      read_group.params.push_back(std::move(read_param));
    }
    checkpoint.push_back(std::move(read_group));
  }
  return checkpoint;
}

}  // namespace detail

/// Writes an optimizer's complete state and options to a stream, opened in binary mode.
///
/// torch::save(optimizer, …) writes the same archive. Memory: once the size of the checkpoint, since
/// LibTorch's own writer ends the program when a stream fails.
/// @throws c10::Error if it cannot be written.
template <class Optimizer>
void save(const Optimizer& optimizer, std::ostream& to) {
  torch::serialize::OutputArchive archive;
  optimizer.save(archive);
  std::string bytes;
  archive.save_to([&bytes](const void* data, size_t size) {
    bytes.append(static_cast<const char*>(data), size);
    return size;
  });
  to.write(bytes.data(), static_cast<std::streamsize>(bytes.size())).flush();
  TORCH_CHECK(to.good(), "root_optim::save: expected a stream that takes ", bytes.size(),
              " bytes, got a failure");
}

/// The same to a file, which is replaced.
template <class Optimizer>
void save(const Optimizer& optimizer, const std::string& path) {
  std::ofstream file(path, std::ios::binary);
  TORCH_CHECK(file.is_open(), "root_optim::save: expected a path that can be written, got '", path,
              "'");
  save(optimizer, file);
}

/// Reads an optimizer's state and options from what `save` or torch::save wrote.
///
/// The optimizer must have been built for the same model: equal numbers of groups and parameters,
/// equal shapes, equal names where both have names, the same policies. Everything is read and
/// checked before anything changes. Tensors move to the parameter's device and dtype of state;
/// options, learning rate included, become those of the file on every version of LibTorch.
/// @param from a path (std::string) or a std::istream, opened in binary mode.
/// @throws c10::Error (or what LibTorch's reader throws on a damaged archive); the optimizer is
/// then unchanged.
template <class Optimizer, class Source>
void load(Optimizer& optimizer, Source&& from) {
  torch::serialize::InputArchive archive;
  archive.load_from(std::forward<Source>(from));
  optimizer.load(archive);
}

}  // namespace v0
}  // namespace root_optim
