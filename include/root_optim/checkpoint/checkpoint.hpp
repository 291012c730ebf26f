// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What a checkpoint of an optimizer contains, how it lies in LibTorch's archive, and `save` and
// `load` for files and streams. How an optimizer turns itself into a Checkpoint and back is in
// optimizer.hpp.
//
// The rule for changes: whatever adds, removes or redefines something stored raises
// `checkpoint_format`. Every format up to the present one is read; what an older one lacks gets the
// value under which that version behaved (`upgrade`). Newer formats are refused. Files of every
// format stay in tests/fixtures for ever.
#pragma once

#include <ATen/core/ivalue.h>
#include <c10/util/Exception.h>  // TORCH_CHECK
#include <torch/serialize/archive.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <ios>
#include <istream>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/checkpoint/detail/checksum.hpp>
#include <root_optim/checkpoint/detail/file.hpp>
#include <root_optim/core/archive.hpp>
#include <root_optim/parameters/param_state.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// A parameter's part of a checkpoint. `state.step() == 0` means that it has not been stepped yet.
struct CheckpointParam {
  std::vector<int64_t> shape;  ///< of the parameter
  ParamState state;            ///< what `ParamState::slots` lists, and the step
};

/// A group's part of a checkpoint: complete options, and its parameters in their order.
struct CheckpointGroup {
  Fields options;                       ///< as `OrthogonalizedOptions::fields`
  std::vector<CheckpointParam> params;  ///< in the order of the group
};

/// All groups of an optimizer. Parameters are known by group and position, never by address, so
/// that two saves of equal optimizers have equal content.
using Checkpoint = std::vector<CheckpointGroup>;

/// A checkpoint as it was stored. What a format before the present one lacks is missing.
struct StoredCheckpoint {
  int64_t format;     ///< the `checkpoint_format` that wrote it
  Checkpoint groups;  ///< what it holds
};

namespace detail {

/// 1: the first. 2: the option `non_finite` and the counters `skipped` and `non_finite`. 3: the option
/// `filter_place` and the passes of SoftThreshold. 4: no spectra to design coefficients for.
inline constexpr int64_t checkpoint_format = 4;

inline int64_t read_integer(torch::serialize::InputArchive& archive, const std::string& key) {
  c10::IValue value;
  TORCH_CHECK(archive.try_read(key, value) && value.isInt(),
              "root_optim::load: expected an integer '", key, "', got none");
  return value.toInt();
}

/// The checksum of all that a checkpoint holds, kept in the archive: torch::load knows no digest of
/// the file, and LibTorch's reader accepts archives whose content is damaged.
inline int64_t checksum_of(const Checkpoint& checkpoint, int64_t format) {
  Checksum sum;
  sum.add(static_cast<int64_t>(checkpoint.size()));
  for (const CheckpointGroup& group : checkpoint) {
    sum.add(group.options);
    sum.add(static_cast<int64_t>(group.params.size()));
    for (const CheckpointParam& param : group.params) {
      sum.add(param.shape);
      sum.add(param.state.step());
      for (const ParamState::Slot& slot : ParamState::slot_list()) {
        if (slot.since <= format) sum.add(param.state.*slot.tensor);
      }
    }
  }
  return sum.value();
}

inline void write_checkpoint(torch::serialize::OutputArchive& archive,
                             const Checkpoint& checkpoint) {
  archive.write("root_optim_format", c10::IValue(checkpoint_format));
  archive.write("checksum", c10::IValue(checksum_of(checkpoint, checkpoint_format)));
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
inline StoredCheckpoint read_checkpoint(torch::serialize::InputArchive& archive) {
  c10::IValue stored_format;
  TORCH_CHECK(archive.try_read("root_optim_format", stored_format) && stored_format.isInt(),
              "root_optim::load: expected a checkpoint written by root_optim, got another archive");
  const int64_t format = stored_format.toInt();
  TORCH_CHECK(format >= 1 && format <= checkpoint_format,
              "root_optim::load: expected a format from 1 to ", checkpoint_format, ", got ", format,
              format > checkpoint_format ? " (written by a newer version)" : "");
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
  const int64_t stored = read_integer(archive, "checksum"),
                actual = checksum_of(checkpoint, format);
  TORCH_CHECK(stored == actual, "root_optim::load: expected content with the checksum ", stored,
              ", got ", actual, ": the checkpoint is damaged");
  return {format, std::move(checkpoint)};
}

}  // namespace detail

/// The checkpoint of an optimizer as `save` writes it: the archive of torch::save and a digest of it.
template <class Optimizer>
std::string checkpoint_bytes(const Optimizer& optimizer) {
  torch::serialize::OutputArchive archive;
  optimizer.save(archive);
  std::string bytes;
  archive.save_to([&bytes](const void* data, size_t size) {
    bytes.append(static_cast<const char*>(data), size);
    return size;
  });
  detail::append_digest(bytes);
  return bytes;
}

/// Writes an optimizer's complete state and options to a stream, opened in binary mode.
///
/// A zip archive that torch::load reads too (torch::save(optimizer, …) writes the same without the
/// digest at its end). Memory: once the size of the checkpoint.
/// @throws c10::Error if it cannot be written.
template <class Optimizer>
void save(const Optimizer& optimizer, std::ostream& to) {
  detail::write_all(to, checkpoint_bytes(optimizer), "save");
}

/// The same to a file, which is replaced as a whole: a program that is killed while it saves leaves
/// the old checkpoint or the new one, never a part (and perhaps a file PATH.NUMBER.partial). Of several
/// programs that save to one path, the last one's checkpoint is there.
template <class Optimizer>
void save(const Optimizer& optimizer, const std::string& path) {
  detail::replace_file(path, checkpoint_bytes(optimizer), "save");
}

/// Reads an optimizer's state and options from what `save` or torch::save wrote.
///
/// The optimizer must have been built for the same model: equal numbers of groups and parameters,
/// equal shapes, equal names where both have names, the same policies. The digest is checked before
/// anything is parsed, everything is read and checked before anything changes. Tensors move to the
/// parameter's device and dtype of state (float64 that overflows float32 is refused); options, learning
/// rate included, become those of the file on every version of LibTorch.
/// @param from a path (std::string) or a std::istream, opened in binary mode, which is read to its
/// end. Memory: twice the size of the checkpoint.
/// @throws c10::Error; the optimizer is then unchanged.
template <class Optimizer, class Source>
void load(Optimizer& optimizer, Source&& from) {
  const std::string bytes = detail::read_all(from, "load");
  detail::check_digest(bytes);
  try {
    torch::serialize::InputArchive archive;
    archive.load_from(bytes.data(), bytes.size());
    optimizer.load(archive);
  } catch (const c10::Error&) {
    throw;
  } catch (const std::exception& error) {
    TORCH_CHECK(false, "root_optim::load: expected an archive of LibTorch, got '", error.what(),
                "'");
  }
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
