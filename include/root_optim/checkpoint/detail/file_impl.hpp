// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of checkpoint/detail/file.hpp.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstdint>
#include <exception>
#include <filesystem>
#include <fstream>
#include <ios>
#include <istream>
#include <iterator>
#include <ostream>
#include <random>
#include <string>
#include <system_error>

#if defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <unistd.h>
#endif

#include <root_optim/checkpoint/detail/file.hpp>
#include <root_optim/checkpoint/detail/hex_digits.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE std::string read_all(std::istream& from, const char* who) {
  TORCH_CHECK(!from.fail(), "root_optim::", who,
              ": expected a stream that can be read, got one that has failed");
  try {
    return {std::istreambuf_iterator<char>(from), std::istreambuf_iterator<char>()};
  } catch (const std::exception& error) {  // of the stream's buffer: a disk, a connection
    TORCH_CHECK(false, "root_optim::", who, ": expected a stream that can be read, got '",
                error.what(), "'");
  }
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void write_all(std::ostream& to, const std::string& bytes,
                                                 const char* who) {
  const auto expect = [&](bool written, const char* got) {
    TORCH_CHECK(written, "root_optim::", who, ": expected a stream that takes ", bytes.size(),
                " bytes, got ", got);
  };
  try {
    to.write(bytes.data(), static_cast<std::streamsize>(bytes.size())).flush();
  } catch (const std::exception& error) {  // std::ostream::exceptions
    expect(false, error.what());
  }
  expect(to.good(), "a failure");
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE std::string read_all(const std::string& path, const char* who) {
  std::ifstream file(path, std::ios::binary);
  std::error_code error;
  TORCH_CHECK(file.is_open() && !std::filesystem::is_directory(path, error), "root_optim::", who,
              ": expected a file that can be read, got '", path, "'");
  return read_all(file, who);
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE bool sync_to_disk(const std::string& path) {
#if defined(__unix__) || defined(__APPLE__)
  const int descriptor = ::open(path.c_str(), O_RDONLY);
  if (descriptor < 0) return false;
  const bool synced = ::fsync(descriptor) == 0;
  return ::close(descriptor) == 0 && synced;
#else
  static_cast<void>(path);
  return true;
#endif
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void replace_file(const std::string& path,
                                                    const std::string& bytes, const char* who) {
  namespace fs = std::filesystem;
  const auto write = [&](const std::string& to) {
    std::ofstream file(to, std::ios::binary);
    TORCH_CHECK(file.is_open(), "root_optim::", who, ": expected a path that can be written, got '",
                path, "'");
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size())).flush();
    TORCH_CHECK(file.good(), "root_optim::", who, ": expected '", path, "' to take ", bytes.size(),
                " bytes, got a failure");
  };
  std::error_code error;
  const bool exists = fs::exists(path, error);
  if (exists && !fs::is_regular_file(path, error)) return write(path);

  const fs::path target = exists ? fs::canonical(path, error) : fs::path(path);
  TORCH_CHECK(!target.empty(), "root_optim::", who, ": expected a path that can be written, got '",
              path, "'");
  std::random_device random;
  const uint64_t number = uint64_t{random()} << 32 | random();
  const std::string partial = target.string() + "." + hex_digits(number) + ".partial";
  try {
    write(partial);
    TORCH_CHECK(sync_to_disk(partial), "root_optim::", who, ": expected '", path,
                "' to reach the disk, got a failure");
    if (exists) fs::permissions(partial, fs::status(target, error).permissions(), error);
    fs::rename(partial, target, error);
    TORCH_CHECK(!error, "root_optim::", who, ": expected a path that can be written, got '", path,
                "': ", error.message());
  } catch (...) {
    fs::remove(partial, error);
    throw;
  }
  const fs::path directory = target.parent_path();
  sync_to_disk(directory.empty() ? "." : directory.string());
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
