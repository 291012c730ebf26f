// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// An optimizer's state to one file a rank, and from those files to what any rank keeps.
//
// A rank's file is an archive with one entry, a checkpoint as `write_checkpoint` makes it: parameters whose
// state is elsewhere have none. Behind the groups it has one more, of the rows of parameters that are cut, in
// the order in which the manifest lists them.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>  // TORCH_CHECK
#include <torch/serialize/archive.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <root_optim/checkpoint/checkpoint.hpp>
#include <root_optim/checkpoint/detail/checksum.hpp>
#include <root_optim/checkpoint/detail/file.hpp>
#include <root_optim/core/state_key.hpp>
#include <root_optim/distributed/detail/agreement.hpp>
#include <root_optim/distributed/detail/collectives.hpp>
#include <root_optim/distributed/detail/description.hpp>
#include <root_optim/distributed/detail/manifest.hpp>
#include <root_optim/distributed/detail/partition.hpp>
#include <root_optim/distributed/detail/state_part.hpp>
#include <root_optim/optimizer/detail/group_options.hpp>
#include <root_optim/optimizer/detail/restore.hpp>
#include <root_optim/parameters/detail/parameter_checks.hpp>
#include <root_optim/parameters/param_state.hpp>
#include <root_optim/schedules/lr_scheduler.hpp>
#include <root_optim/stages/norm_gate.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// How many parameters each group has.
ROOT_OPTIM_COLD inline std::vector<int64_t> params_of(const Groups& groups) {
  std::vector<int64_t> params;
  for (const auto& group : groups) params.push_back(static_cast<int64_t>(group.params().size()));
  return params;
}

// ---- Saving --------------------------------------------------------------------------------------------

/// What a rank keeps, as its file.
template <class Options>
ROOT_OPTIM_COLD std::string shard_bytes(const Groups& groups, const StateMap& states,
                                        const GateState& gate, const std::vector<StatePart>& parts,
                                        int64_t rank) {
  Checkpoint checkpoint = to_checkpoint<Options>(groups, states);
  CheckpointGroup rows;
  for (const StatePart& part : parts) {
    if (part.owner != rank || part.is_whole()) continue;
    rows.params.push_back(to_checkpoint(part.tensor, states));
  }
  checkpoint.push_back(std::move(rows));
  torch::serialize::OutputArchive archive;
  torch::serialize::OutputArchive part(archive.compilation_unit());
  write_checkpoint(part, checkpoint, stored_gate(gate));
  archive.write(shard_key, part);
  return bytes_of(archive);
}

/// What a save is called with, beside the optimizer.
struct ShardedSave {
  std::filesystem::path folder;
  int64_t step;
  std::optional<LrSchedulerState> scheduler;
};

/// Writes this rank's file, and as rank 0 the manifest. Collective.
template <class Options>
ROOT_OPTIM_COLD void save_shards(Collectives& ranks, const Partition& partition,
                                 const Groups& groups, const StateMap& states,
                                 const GateState& gate, int64_t taken, const ShardedSave& save) {
  namespace fs = std::filesystem;
  const fs::path& folder = save.folder;
  const bool is_first = ranks.rank() == 0;
  std::vector<StatePart> parts;
  std::string error;
  int64_t options = 0, scheduler = 0, again = 0;
  attempt(error, [&] {
    TORCH_CHECK(save.step >= 0, "root_optim::save_sharded: expected a step >= 0, got ", save.step);
    std::error_code code;
    fs::create_directories(folder, code);
    TORCH_CHECK(
        fs::is_directory(folder, code),
        "root_optim::save_sharded: expected a folder, or a path where one can be made, got '",
        folder.string(), "'");
    parts = parts_of(groups, &partition);
    options = checksum_of_options<Options>(groups);
    Checksum sum;
    sum.add(save.scheduler.has_value());
    if (save.scheduler) {
      sum.add(save.scheduler->step);
      sum.add(save.scheduler->base_lrs);
    }
    scheduler = sum.value();
    if (is_first) again = times_begun(folder, save.step);
  });
  const std::vector<Agreed> agreed{{"steps to save", save.step},
                                   {"numbers of steps since `distribute` or loading", taken},
                                   {"options", options},
                                   {"schedulers", scheduler}};
  Agreement begin = start_agreement(ranks, error, agreed, {again});
  again = finish_agreement(ranks, begin)[0][1 + agreed.size()];

  const fs::path own = folder / shard_name(save.step, again, ranks.rank(), ranks.size());
  try {
    ShardFile file;
    attempt(error, [&] {
      const std::string bytes = shard_bytes<Options>(groups, states, gate, parts, ranks.rank());
      replace_file(own.string(), bytes, "save_sharded");
      file.bytes = static_cast<int64_t>(bytes.size());
      file.digest = digest_at_end(bytes);
    });
    agree(ranks, error);
    const std::vector<std::vector<int64_t>> sizes = ranks.gather_numbers({file.bytes});
    const std::vector<std::string> digests = ranks.gather_texts(file.digest);

    Manifest manifest{save.step, params_of(groups), {}, save.scheduler};
    attempt(error, [&] {
      if (!is_first) return;
      for (size_t r = 0; r < digests.size(); ++r) {
        file = {shard_name(save.step, again, static_cast<int64_t>(r), ranks.size()), sizes[r][0],
                digests[r]};
        std::error_code code;
        TORCH_CHECK(
            fs::file_size(folder / file.name, code) == static_cast<uintmax_t>(file.bytes) && !code,
            "root_optim::save_sharded: expected one folder for all ranks, got '", folder.string(),
            "', where rank 0 does not see '", file.name, "' of rank ", r);
        manifest.files.push_back(std::move(file));
      }
      for (const StatePart& part : parts) {
        manifest.files[static_cast<size_t>(part.owner)].parts.push_back(
            {part.position, part.first, part.rows});
      }
      sync_to_disk(folder.string());
      write_manifest((folder / manifest_name).string(), manifest);
    });
    agree(ranks, error);
    // From here on the new files are the checkpoint.
    if (is_first) delete_others(folder, manifest);
  } catch (const AgreedError&) {  // on all ranks alike: there is no manifest of these files
    std::error_code code;
    fs::remove(own, code);
    throw;
  }
}

// ---- Loading -------------------------------------------------------------------------------------------

/// Rows of a parameter in one rank's file.
struct StoredPart {
  StateRows rows;
  ParamState state;
};

/// One rank's file.
struct StoredShard {
  StoredCheckpoint without_state;
  std::vector<StoredPart> parts;
};

/// @throws c10::Error for anything but the file that the manifest means.
ROOT_OPTIM_COLD inline StoredShard read_shard(const std::string& path, const ShardFile& file,
                                              const std::vector<int64_t>& params) {
  StoredShard shard;
  load_bytes(read_listed(path, file), [&shard](torch::serialize::InputArchive& archive) {
    torch::serialize::InputArchive content;
    TORCH_CHECK(archive.try_read(shard_key, content),
                "root_optim::load_sharded: expected one rank's file, got another archive");
    shard.without_state = read_checkpoint(content);
  });
  Checkpoint& groups = shard.without_state.groups;
  TORCH_CHECK(!groups.empty(), "root_optim::load_sharded: expected rows of parameters, got none");
  CheckpointGroup rows = std::move(groups.back());
  groups.pop_back();

  std::vector<CheckpointParam*> all;
  std::vector<int64_t> counts;
  for (CheckpointGroup& group : groups) {
    counts.push_back(static_cast<int64_t>(group.params.size()));
    for (CheckpointParam& param : group.params) all.push_back(&param);
  }
  TORCH_CHECK(counts == params, "root_optim::load_sharded: expected groups of ", params,
              " parameters, as in the manifest, got ", counts);
  size_t cut = 0;
  for (const StateRows& part : file.parts) {
    TORCH_CHECK(part.position >= 0 && static_cast<size_t>(part.position) < all.size(),
                "root_optim::load_sharded: expected parameters below ", all.size(), ", got ",
                part.position);
    CheckpointParam* param = all[static_cast<size_t>(part.position)];
    if (part.rows < rows_of(param->shape)) {
      TORCH_CHECK(cut < rows.params.size(), "root_optim::load_sharded: expected more than ", cut,
                  " parameters that are cut");
      param = &rows.params[cut++];
    }
    TORCH_CHECK(part.rows == rows_of(param->shape), "root_optim::load_sharded: expected ",
                part.rows, " rows of parameter ", part.position, ", got ", rows_of(param->shape));
    shard.parts.push_back({part, std::move(param->state)});
    param->state = ParamState();
  }
  return shard;
}

/// What a load makes of an optimizer.
template <class Options>
struct LoadedShards {
  Restored<Options> restored;
  Manifest manifest;
  int64_t checksum = 0;  ///< of the manifest, and so of all files
};

/// Reads what a rank keeps, one file after the other. Local.
/// @param rank, ranks which files to check beside those that are needed: together ranks check all
/// @throws c10::Error for anything that is missing or damaged, or does not fit; as `restore`.
template <class Options>
ROOT_OPTIM_COLD LoadedShards<Options> load_shards(const Groups& groups,
                                                  const std::vector<StatePart>& parts, int64_t rank,
                                                  int64_t ranks,
                                                  const std::filesystem::path& folder,
                                                  const LrScheduler* scheduler) {
  LoadedShards<Options> loaded;
  Manifest& manifest = loaded.manifest;
  const std::string path = (folder / manifest_name).string();
  const std::string bytes = read_all(path, "load_sharded");
  naming_file(path, [&] { manifest = read_manifest(bytes, scheduler != nullptr); });
  if (scheduler != nullptr) scheduler->validate(*manifest.scheduler);
  loaded.checksum = static_cast<int64_t>(crc64(bytes.data(), bytes.size()));

  std::multimap<int64_t, std::pair<const StatePart*, GatheredState>> own;  // by position
  for (const StatePart& part : parts) {
    if (part.owner == rank) own.emplace(part.position, std::pair(&part, GatheredState(part)));
  }
  const auto files = static_cast<int64_t>(manifest.files.size());
  for (int64_t k = 0; k < files; ++k) {
    const int64_t f = (rank + k) % files;  // not all ranks begin with the same
    const ShardFile& file = manifest.files[static_cast<size_t>(f)];
    const bool needed =
        std::any_of(file.parts.begin(), file.parts.end(), [&own](const StateRows& rows) {
          const auto [begin, end] = own.equal_range(rows.position);
          return std::any_of(begin, end, [&rows](const auto& entry) {
            return entry.second.second.needs(rows.first, rows.rows);
          });
        });
    if (k > 0 && !needed && f % ranks != rank) continue;
    const std::string shard_path = (folder / file.name).string();
    naming_file(shard_path, [&] {
      StoredShard shard = read_shard(shard_path, file, manifest.params);
      // Options and shapes are the same in all files.
      if (k == 0) loaded.restored = restore<Options>(groups, std::move(shard.without_state));
      for (const StoredPart& stored : shard.parts) {
        const auto [begin, end] = own.equal_range(stored.rows.position);
        for (auto it = begin; it != end; ++it) {
          auto& [part, gathered] = it->second;
          gathered.add(stored.state, stored.rows.first, stored.rows.rows,
                       describe_part<Options>(groups, *part));
        }
      }
    });
  }
  for (auto it = own.begin(); it != own.end(); it = own.erase(it)) {  // and its memory
    const auto& [part, gathered] = it->second;
    const std::string where = describe_part<Options>(groups, *part);
    ParamState state = restored_state(gathered.state(where), part->tensor,
                                      group_options<Options>(groups, part->group).layout(), where);
    if (state.step() == 0) continue;
    loaded.restored.states[state_key(part->tensor)] =
        std::make_unique<ParamState>(std::move(state));
  }
  return loaded;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
