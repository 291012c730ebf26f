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

#include <torch/arg.h>  // TORCH_ARG
#include <torch/serialize/archive.h>

#include <cstdint>
#include <functional>
#include <map>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/checkpoint/detail/file.hpp>
#include <root_optim/core/fields.hpp>
#include <root_optim/parameters/param_state.hpp>
#include <root_optim/schedules/lr_scheduler.hpp>
#include <root_optim/stages/norm_gate.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// A parameter's part of a checkpoint. `state.step() == 0` means that it has not been stepped yet.
struct CheckpointParam {
  std::vector<int64_t> shape;  ///< of the parameter
  ParamState state;            ///< what `ParamState::slot_list` lists, and the step
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
  GateState gate;     ///< of the whole optimizer; undefined tensors without one
};

/// How a checkpoint is loaded.
class LoadOptions {
  /// true: the checkpoint must be that of the same parameters in the same groups. false, for fine-tuning: each
  /// parameter whose name is in the checkpoint takes its state from there, if it fits; all others keep theirs,
  /// and so do all options, policies with their coefficients included. Needs names on both sides, as
  /// `param_groups` sets them. Default: true.
  TORCH_ARG(bool, strict) = true;
};

/// What a load did with each parameter, by name, or by its place where it has none.
struct LoadReport {
  std::vector<std::string> loaded;   ///< have the state of the checkpoint
  std::vector<std::string> missing;  ///< of the optimizer alone: left as they were
  std::vector<std::string> surplus;  ///< of the checkpoint alone
  std::map<std::string, std::string>
      unfit;  ///< of both, but otherwise shaped or stepped, and why: left as well

  /// "loaded 12 parameters; missing 'head.weight', 'head.bias'; …".
  friend std::ostream& operator<<(std::ostream& out, const LoadReport& report) {
    return out << report.text();
  }

 private:
  std::string text() const;
};

namespace detail {

/// "'a', 'b' and 3 more".
std::string listed(const std::vector<std::string>& names);

/// 1: the first. 2: the option `non_finite` and the counters `skipped` and `non_finite`. 3: the option
/// `filter_place` and the passes of SoftThreshold. 4: no spectra to design coefficients for. 5: NonFinite::Skip
/// is per parameter; the options `base_lr`, `adamw_lr_ratio`, `adamw_weight_decay`, of a momentum that rises and
/// of a gate; the state of the gate; master weights; AdaNewton's iteration and tables of stages.
inline constexpr int64_t checkpoint_format = 5;

/// Of archives that are parts of a checkpoint of one file a rank (distributed/sharded_checkpoint.hpp).
inline constexpr char shard_key[] = "root_optim_shard", manifest_key[] = "root_optim_manifest";

int64_t read_integer(torch::serialize::InputArchive& archive, const std::string& key);

/// The checksum of all that a checkpoint holds, kept in the archive: torch::load knows no digest of
/// the file, and LibTorch's reader accepts archives whose content is damaged.
int64_t checksum_of(const Checkpoint& checkpoint, int64_t format, const GateState& gate = {});

void write_checkpoint(torch::serialize::OutputArchive& archive, const Checkpoint& checkpoint,
                      const GateState& gate = {});

/// Reads all of a checkpoint.
/// @throws c10::Error if the archive is not a checkpoint of this library or of a newer format.
StoredCheckpoint read_checkpoint(torch::serialize::InputArchive& archive);

/// The archive as bytes, with a digest of them at the end.
std::string bytes_of(torch::serialize::OutputArchive& archive);

void write_scheduler(torch::serialize::OutputArchive& archive, const LrSchedulerState& state);

/// @throws c10::Error if the archive has no scheduler.
LrSchedulerState read_scheduler(torch::serialize::InputArchive& archive);

/// Hands the archive that `bytes_of` made to `load`, after checking its digest.
void load_bytes(const std::string& bytes,
                const std::function<void(torch::serialize::InputArchive&)>& load);

}  // namespace detail

/// The checkpoint of an optimizer as `save` writes it: the archive of torch::save and a digest of it.
template <class Optimizer>
std::string checkpoint_bytes(const Optimizer& optimizer) {
  torch::serialize::OutputArchive archive;
  optimizer.save(archive);
  return detail::bytes_of(archive);
}

/// Writes an optimizer's complete state and options to a stream, opened in binary mode.
///
/// A zip archive that torch::load reads too (torch::save(optimizer, …) writes the same without the
/// digest at its end). State on another device is copied to the CPU first, so that every machine can read
/// the file. Memory: once the size of the checkpoint, twice for state on another device.
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

namespace detail {

/// An optimizer and a scheduler that are saved as one.
template <class Optimizer>
struct WithScheduler {
  const Optimizer& optimizer;
  const LrScheduler& scheduler;

  void save(torch::serialize::OutputArchive& archive) const {
    optimizer.save(archive);
    write_scheduler(archive, scheduler.state());
  }
};

}  // namespace detail

/// Writes an optimizer, of this library or of LibTorch, together with its scheduler's step and bases.
/// `load(optimizer, path)` reads the file, too, and leaves out the scheduler.
/// @param to a stream or a path
/// @throws c10::Error if it cannot be written.
template <class Optimizer, class Target>
void save(const Optimizer& optimizer, const LrScheduler& scheduler, Target&& to) {
  save(detail::WithScheduler<Optimizer>{optimizer, scheduler}, std::forward<Target>(to));
}

/// Reads an optimizer's state and options from what `save` or torch::save wrote.
///
/// The optimizer must have been built for the same model: equal numbers of groups and parameters,
/// equal shapes, equal names where both have names, the same policies. docs/checkpoints.md says of each
/// option whether it must be equal, becomes the file's (the learning rate does, on every version of
/// LibTorch) or stays the code's. The digest is checked before anything is parsed, everything is read and
/// checked before anything changes. Tensors move to the parameter's device and dtype of state (float64 that
/// overflows float32 is refused).
/// @param from a path (std::string) or a std::istream, opened in binary mode, which is read to its
/// end. Memory: twice the size of the checkpoint.
/// @throws c10::Error; the optimizer is then unchanged.
template <class Optimizer, class Source>
void load(Optimizer& optimizer, Source&& from) {
  detail::load_bytes(
      detail::read_all(from, "load"),
      [&optimizer](torch::serialize::InputArchive& archive) { optimizer.load(archive); });
}

/// The same with options: `LoadOptions().strict(false)` loads by name what there is, and the report says what
/// that was.
/// @throws c10::Error as `load(optimizer, from)`; without `strict`, if a parameter has no name or two have one.
template <class Optimizer, class Source>
LoadReport load(Optimizer& optimizer, Source&& from, const LoadOptions& options) {
  LoadReport report;
  detail::load_bytes(detail::read_all(from, "load"), [&](torch::serialize::InputArchive& archive) {
    report = optimizer.load(archive, options);
  });
  return report;
}

/// Reads what `save(optimizer, scheduler, …)` wrote. The scheduler goes on from the step of the file, with the
/// schedule of the code, and from the bases of the file unless its constructor was given some.
/// @param scheduler of this optimizer
/// @throws c10::Error as `load(optimizer, from)`, or if the file has no scheduler or that of another number
/// of groups; neither of the two has changed then.
template <class Optimizer, class Source>
void load(Optimizer& optimizer, LrScheduler& scheduler, Source&& from) {
  detail::load_bytes(detail::read_all(from, "load"), [&](torch::serialize::InputArchive& archive) {
    const LrSchedulerState state = detail::read_scheduler(archive);
    scheduler.validate(state);
    optimizer.load(archive);
    scheduler.restore(state);
  });
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/checkpoint/detail/checkpoint_impl.hpp>
#endif
