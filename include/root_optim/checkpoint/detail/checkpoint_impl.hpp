// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of checkpoint/checkpoint.hpp.
#pragma once

#include <ATen/core/ivalue.h>
#include <c10/util/Exception.h>  // TORCH_CHECK
#include <torch/serialize/archive.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/checkpoint/checkpoint.hpp>
#include <root_optim/checkpoint/detail/checksum.hpp>
#include <root_optim/core/archive.hpp>
#include <root_optim/parameters/param_state.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
ROOT_OPTIM_COLD ROOT_OPTIM_INLINE std::string LoadReport::text() const {
  std::string text = "loaded " + std::to_string(loaded.size()) + " parameters";
  if (!missing.empty()) text += "; missing " + detail::listed(missing);
  if (!surplus.empty()) text += "; surplus " + detail::listed(surplus);
  for (const auto& [name, why] : unfit) text += "; '" + name + "' does not fit: " + why;
  return text;
}

namespace detail {

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE std::string listed(const std::vector<std::string>& names) {
  constexpr size_t most = 20;  // that a message shows
  std::string text;
  for (size_t i = 0; i < names.size() && i < most; ++i) {
    text += (i == 0 ? "'" : ", '") + names[i] + "'";
  }
  if (names.size() > most) text += " and " + std::to_string(names.size() - most) + " more";
  return text;
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE int64_t read_integer(torch::serialize::InputArchive& archive,
                                                       const std::string& key) {
  c10::IValue value;
  TORCH_CHECK(archive.try_read(key, value) && value.isInt(),
              "root_optim::load: expected an integer '", key, "', got none");
  return value.toInt();
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE int64_t checksum_of(const Checkpoint& checkpoint, int64_t format,
                                                      const GateState& gate) {
  Checksum sum;
  if (format >= 5) sum.add(format);  // one flipped bit, and it would be read as an older one
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
  if (gate.norms.defined()) {
    for (const at::Tensor& tensor : {gate.norms, gate.run, gate.strikes}) sum.add(tensor);
  }
  return sum.value();
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void write_checkpoint(torch::serialize::OutputArchive& archive,
                                                        const Checkpoint& checkpoint,
                                                        const GateState& gate) {
  archive.write("root_optim_format", c10::IValue(checkpoint_format));
  archive.write("checksum", c10::IValue(checksum_of(checkpoint, checkpoint_format, gate)));
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
  if (gate.norms.defined()) {
    torch::serialize::OutputArchive stored(archive.compilation_unit());
    stored.write("norms", gate.norms);
    stored.write("run", gate.run);
    stored.write("strikes", gate.strikes);
    archive.write("gate", stored);
  }
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE StoredCheckpoint
read_checkpoint(torch::serialize::InputArchive& archive) {
  for (const char* key : {shard_key, manifest_key}) {
    torch::serialize::InputArchive part;
    TORCH_CHECK(
        !archive.try_read(key, part),
        "root_optim::load: expected a whole checkpoint, got a file of one that has a file for "
        "each rank: load_sharded(optimizer, folder) reads it");
  }
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
  GateState gate;
  torch::serialize::InputArchive gate_archive;
  if (archive.try_read("gate", gate_archive)) {
    read_tensor(gate_archive, "norms", gate.norms);
    read_tensor(gate_archive, "run", gate.run);
    read_tensor(gate_archive, "strikes", gate.strikes);
    TORCH_CHECK(gate.norms.defined() && gate.run.defined() && gate.strikes.defined(),
                "root_optim::load: expected three tensors of a gate, got fewer");
  }
  const int64_t stored = read_integer(archive, "checksum"),
                actual = checksum_of(checkpoint, format, gate);
  TORCH_CHECK(stored == actual, "root_optim::load: expected content with the checksum ", stored,
              ", got ", actual, ": the checkpoint is damaged");
  return {format, std::move(checkpoint), std::move(gate)};
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE std::string bytes_of(torch::serialize::OutputArchive& archive) {
  std::string bytes;
  archive.save_to([&bytes](const void* data, size_t size) {
    bytes.append(static_cast<const char*>(data), size);
    return size;
  });
  append_digest(bytes);
  return bytes;
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void write_scheduler(torch::serialize::OutputArchive& archive,
                                                       const LrSchedulerState& state) {
  archive.write("root_optim_scheduler_step", c10::IValue(state.step));
  archive.write("root_optim_scheduler_base_lrs", c10::IValue(state.base_lrs));
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE LrSchedulerState
read_scheduler(torch::serialize::InputArchive& archive) {
  c10::IValue step, base_lrs;
  TORCH_CHECK(
      archive.try_read("root_optim_scheduler_step", step) && step.isInt() &&
          archive.try_read("root_optim_scheduler_base_lrs", base_lrs) && base_lrs.isDoubleList(),
      "root_optim::load: expected the step and the base learning rates of a scheduler, got none: "
      "save(optimizer, scheduler, path) writes them; without, load the optimizer alone and call "
      "LrScheduler::set_step");
  return {step.toInt(), base_lrs.toDoubleVector()};
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void load_bytes(
    const std::string& bytes, const std::function<void(torch::serialize::InputArchive&)>& load) {
  check_digest(bytes);
  try {
    torch::serialize::InputArchive archive;
    // Whatever device the tensors were on: it need not be there, and they go on to the parameters' anyway.
    archive.load_from(bytes.data(), bytes.size(), at::Device(at::kCPU));
    load(archive);
  } catch (const c10::Error&) {
    throw;
  } catch (const std::exception& error) {
    TORCH_CHECK(false, "root_optim::load: expected an archive of LibTorch, got '", error.what(),
                "'");
  }
}

}  // namespace detail

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
