// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A checkpoint of one file a rank: the names of its files, and the manifest, which lists them. A file belongs
// to the checkpoint of a folder if the manifest says so; all others are what a save left that came to no end.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK
#include <torch/serialize/archive.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <root_optim/checkpoint/checkpoint.hpp>
#include <root_optim/checkpoint/detail/checksum.hpp>
#include <root_optim/checkpoint/detail/file.hpp>
#include <root_optim/core/archive.hpp>
#include <root_optim/core/fields.hpp>
#include <root_optim/schedules/lr_scheduler.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// Rows of the state of a parameter.
struct StateRows {
  int64_t position;  ///< of the parameter among those of all groups
  int64_t first, rows;
};

/// One rank's file.
struct ShardFile {
  std::string name;  ///< in the folder
  int64_t bytes = 0;
  std::string digest;              ///< with which it ends
  std::vector<StateRows> parts{};  ///< what it has
};

/// What a checkpoint consists of.
struct Manifest {
  int64_t step = 0;
  std::vector<int64_t> params;   ///< how many each group has
  std::vector<ShardFile> files;  ///< by rank
  std::optional<LrSchedulerState> scheduler;
};

inline constexpr char manifest_name[] = "manifest.pt";

// ---- Names ---------------------------------------------------------------------------------------------

/// "step-12.", or "step-12.1." if files of step 12 are there already.
ROOT_OPTIM_COLD inline std::string set_prefix(int64_t step, int64_t again) {
  return "step-" + std::to_string(step) + "." + (again > 0 ? std::to_string(again) + "." : "");
}

ROOT_OPTIM_COLD inline std::string shard_name(int64_t step, int64_t again, int64_t rank,
                                              int64_t ranks) {
  return set_prefix(step, again) + "rank-" + std::to_string(rank) + "-of-" + std::to_string(ranks) +
         ".pt";
}

/// How often files of that step have been begun in the folder: a new set overwrites none of them.
ROOT_OPTIM_COLD inline int64_t times_begun(const std::filesystem::path& folder, int64_t step) {
  for (int64_t again = 0;; ++again) {
    const std::string prefix = set_prefix(step, again) + "rank-";
    bool is_there = false;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      is_there = is_there || entry.path().filename().string().rfind(prefix, 0) == 0;
    }
    if (!is_there) return again;
  }
}

/// Whether a file is one rank's, by its name, or what a killed save left of one or of a manifest.
ROOT_OPTIM_COLD inline bool is_of_a_save(std::string_view name) {
  const auto take = [&name](std::string_view text) {
    if (name.substr(0, text.size()) != text) return false;
    name.remove_prefix(text.size());
    return true;
  };
  const auto take_some_of = [&name](std::string_view characters) {
    const size_t count = (std::min)(name.find_first_not_of(characters), name.size());
    name.remove_prefix(count);
    return count > 0;
  };
  const auto take_number = [&] { return take_some_of("0123456789"); };
  const auto take_partial = [&] {
    return take(".") && take_some_of("0123456789abcdef") && take(".partial") && name.empty();
  };
  if (take(manifest_name)) return take_partial();
  if (!take("step-") || !take_number() || !take(".")) return false;
  if (take_number() && !take(".")) return false;
  return take("rank-") && take_number() && take("-of-") && take_number() && take(".pt") &&
         (name.empty() || take_partial());
}

/// Deletes what no longer belongs to the checkpoint of a folder. What cannot be deleted stays for the next time.
ROOT_OPTIM_COLD inline void delete_others(const std::filesystem::path& folder,
                                          const Manifest& manifest) {
  std::error_code error;
  std::vector<std::filesystem::path> others;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    const bool belongs = std::any_of(manifest.files.begin(), manifest.files.end(),
                                     [&](const ShardFile& file) { return file.name == name; });
    if (!belongs && is_of_a_save(name)) others.push_back(entry->path());
  }
  for (const auto& other : others) std::filesystem::remove(other, error);
}

// ---- Content -------------------------------------------------------------------------------------------

/// f(), whose errors then say in which file.
template <class F>
void naming_file(const std::string& path, const F& f) {
  try {
    f();
  } catch (const c10::Error& error) {
    TORCH_CHECK(false, error.what_without_backtrace(), ", in '", path, "'");
  }
}

/// The digest with which a file ends that `bytes_of` made.
ROOT_OPTIM_COLD inline std::string digest_at_end(const std::string& bytes) {
  return bytes.size() < digest_size ? std::string() : bytes.substr(bytes.size() - digest_size);
}

ROOT_OPTIM_COLD inline void write_manifest(const std::string& path, const Manifest& manifest) {
  Fields fields;
  fields.set("format", checkpoint_format);
  fields.set("step", manifest.step);
  fields.set("params", manifest.params);
  fields.set("files", static_cast<int64_t>(manifest.files.size()));
  for (size_t f = 0; f < manifest.files.size(); ++f) {
    Fields file;
    file.set("name", manifest.files[f].name);
    file.set("bytes", manifest.files[f].bytes);
    file.set("digest", manifest.files[f].digest);
    std::vector<int64_t> position, first, rows;
    for (const StateRows& part : manifest.files[f].parts) {
      position.push_back(part.position);
      first.push_back(part.first);
      rows.push_back(part.rows);
    }
    file.set("param", std::move(position));
    file.set("first", std::move(first));
    file.set("rows", std::move(rows));
    fields.insert("file" + std::to_string(f), file);
  }
  torch::serialize::OutputArchive archive;
  torch::serialize::OutputArchive listed(archive.compilation_unit());
  write_fields(listed, fields);
  archive.write(manifest_key, listed);
  if (manifest.scheduler) write_scheduler(archive, *manifest.scheduler);
  replace_file(path, bytes_of(archive), "save_sharded");
}

/// @param bytes of the manifest's file
/// @param with_scheduler whether it must have one
/// @throws c10::Error for anything but a manifest.
ROOT_OPTIM_COLD inline Manifest read_manifest(const std::string& bytes, bool with_scheduler) {
  Manifest manifest;
  load_bytes(bytes, [&](torch::serialize::InputArchive& archive) {
    torch::serialize::InputArchive listed;
    TORCH_CHECK(
        archive.try_read(manifest_key, listed),
        "root_optim::load_sharded: expected a manifest that save_sharded wrote, got another "
        "archive");
    const Fields fields = read_fields(listed);
    const auto format = fields.get<int64_t>("format");
    TORCH_CHECK(format <= checkpoint_format, "root_optim::load_sharded: expected a format up to ",
                checkpoint_format, ", got ", format, " (written by a newer version)");
    manifest.step = fields.get<int64_t>("step");
    manifest.params = fields.get<std::vector<int64_t>>("params");
    const auto files = fields.get<int64_t>("files");
    TORCH_CHECK(files > 0, "root_optim::load_sharded: expected one file or more, got ", files);
    for (int64_t f = 0; f < files; ++f) {
      const Fields file = fields.nested("file" + std::to_string(f));
      ShardFile& read = manifest.files.emplace_back();
      read.name = file.get<std::string>("name");
      read.bytes = file.get<int64_t>("bytes");
      read.digest = file.get<std::string>("digest");
      const auto& position = file.get<std::vector<int64_t>>("param");
      const auto& first = file.get<std::vector<int64_t>>("first");
      const auto& rows = file.get<std::vector<int64_t>>("rows");
      TORCH_CHECK(first.size() == position.size() && rows.size() == position.size(),
                  "root_optim::load_sharded: expected rows of ", position.size(), " parts, got of ",
                  first.size(), " and ", rows.size());
      for (size_t i = 0; i < position.size(); ++i) {
        read.parts.push_back({position[i], first[i], rows[i]});
      }
    }
    if (with_scheduler) manifest.scheduler = read_scheduler(archive);
  });
  return manifest;
}

/// The bytes of a file of the manifest.
/// @throws c10::Error if it is missing, cut short, or another one. Its digest is compared with the manifest's;
/// whether it is that of the content is for `load_bytes` to find out.
ROOT_OPTIM_COLD inline std::string read_listed(const std::string& path, const ShardFile& file) {
  std::string bytes = read_all(path, "load_sharded");
  const auto size = static_cast<int64_t>(bytes.size());
  TORCH_CHECK(size == file.bytes, "root_optim::load_sharded: expected ", file.bytes, " bytes, got ",
              size, size < file.bytes ? ": the file is cut short" : "");
  const std::string digest = digest_at_end(bytes);
  TORCH_CHECK(digest == file.digest, "root_optim::load_sharded: expected the digest '", file.digest,
              "' of the manifest, got '", digest,
              "': the file is damaged or of another checkpoint");
  return bytes;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
