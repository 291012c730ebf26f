// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Whole files: read, and replaced so that a program killed in between leaves the old one or the new.
#pragma once

#include <istream>
#include <ostream>
#include <string>

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// What is left in a stream.
std::string read_all(std::istream& from, const char* who);

/// Puts bytes into a stream.
void write_all(std::ostream& to, const std::string& bytes, const char* who);

/// All of a file.
std::string read_all(const std::string& path, const char* who);

/// Asks the system to put a file, or the entries of a directory, onto the disk.
bool sync_to_disk(const std::string& path);

/// Writes a file, or all of `bytes` to what else has the name `path`.
///
/// A file is written under a name of its own beside the old one, PATH.NUMBER.partial with a random
/// number, brought onto the disk and then renamed: whatever happens in between, `path` holds all of the
/// old bytes or all of the new, and of several writers the last one's. A symbolic link is followed,
/// permissions are kept. Devices and pipes are written directly.
/// @throws c10::Error if it cannot be written; an old file is then as it was.
void replace_file(const std::string& path, const std::string& bytes, const char* who);

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/checkpoint/detail/file_impl.hpp>
#endif
