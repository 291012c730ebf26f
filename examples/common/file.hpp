// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
#pragma once

#include <c10/util/Exception.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace examples {

namespace fs = std::filesystem;

/// All bytes of a file.
inline std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  TORCH_CHECK(in, "expected a file that can be read, got ", path.string());
  return bytes;
}

}  // namespace examples
