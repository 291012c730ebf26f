// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The files that a run leaves: rows while it goes on, a result when it is complete.
#pragma once

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

namespace experiments {

/// A CSV that is complete up to the last row at any time; without a path it is nothing.
class Rows {
 public:
  Rows(std::string path, const std::string& header) : path_(std::move(path)) {
    if (path_.empty()) return;
    out_.open(path_);
    write(header);
  }

  bool wanted() const { return !path_.empty(); }

  void write(const std::string& row) {
    if (path_.empty()) return;
    out_ << row << '\n' << std::flush;
    TORCH_CHECK(out_, "cannot write ", path_);
  }

 private:
  std::string path_;
  std::ofstream out_;
};

/// A flat JSON object.
class Result {
 public:
  void set(const std::string& key, const std::string& value) {
    std::string quoted = "\"";
    for (const char c : value) {
      if (c == '"' || c == '\\') quoted += '\\';
      quoted += c;
    }
    add(key, quoted + '"');
  }
  void set(const std::string& key, double value) {
    add(key, std::isfinite(value) ? fmt::format("{:.9g}", value) : "null");
  }
  void set(const std::string& key, int64_t value) { add(key, fmt::format("{}", value)); }
  void set(const std::string& key, bool value) { add(key, value ? "true" : "false"); }

  /// Under another name first: the file exists only when it is complete.
  void write(const std::string& path) const {
    const std::string partial = path + ".partial";
    {
      std::ofstream out(partial);
      out << '{' << text_ << "}\n" << std::flush;
      TORCH_CHECK(out, "cannot write ", partial);
    }
    std::filesystem::rename(partial, path);
  }

 private:
  void add(const std::string& key, const std::string& value) {
    text_ += fmt::format("{}\"{}\": {}", text_.empty() ? "" : ", ", key, value);
  }

  std::string text_;
};

}  // namespace experiments
