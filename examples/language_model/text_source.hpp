// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Where the text comes from, as the command line says it.
#pragma once

#include <c10/util/Exception.h>

#include <filesystem>
#include <string>
#include <vector>

#include "../data/text.hpp"

/// Where the LibTorch headers are, the default text; the build sets it.
#ifndef LANGUAGE_MODEL_TEXT_DIR
#define LANGUAGE_MODEL_TEXT_DIR ""
#endif

namespace language_model {

/// @param file empty: what is below the directories
/// @param directories empty: the LibTorch headers
inline std::string read_text(const std::string& file, const std::vector<std::string>& directories) {
  if (!file.empty()) return read_file(file);
  std::vector<fs::path> paths(directories.begin(), directories.end());
  if (paths.empty()) {
    const fs::path include = LANGUAGE_MODEL_TEXT_DIR;
    TORCH_CHECK(fs::is_directory(include / "c10"), "no LibTorch headers in \"", include.string(),
                "\" to learn from: give a text with --text FILE or --text-dir DIR");
    paths = {include / "ATen", include / "c10", include / "torch"};
  }
  return read_directories(paths);
}

}  // namespace language_model
