// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// losses.csv: one row per step of every run, written, read back and gone on with.
#pragma once

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <cstdint>
#include <exception>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace examples {

namespace fs = std::filesystem;

/// One row.
struct StepRecord {
  int64_t step = 0;                           ///< from 1
  double train_loss = 0;                      ///< of this step's batch, before its update
  std::optional<double> validation_loss;      ///< after the update, where it was evaluated
  std::optional<double> validation_accuracy;  ///< likewise, of classifiers
  double seconds = 0;                         ///< spent training so far: evaluation does not count
  double optimizer_seconds = 0;               ///< of these, inside Optimizer::step()
};

/// The rows of one optimizer.
struct Run {
  std::string optimizer;
  std::vector<StepRecord> records;
};

/// The file is complete up to the last step at any time. Losses have nine digits, enough to tell any
/// two float32 apart.
class LossesCsv {
 public:
  /// @param accuracy whether there is a column for it
  LossesCsv(fs::path path, bool accuracy) : path_(std::move(path)), accuracy_(accuracy) {}

  /// Replaces the file by one with these rows; `write` goes on behind them.
  void start(const std::vector<Run>& runs) {
    const fs::path partial = path_.string() + ".partial";
    out_.close();
    out_.open(partial, std::ios::trunc);
    out_ << header() << '\n';
    for (const Run& run : runs) {
      for (const StepRecord& record : run.records) out_ << row(run.optimizer, record);
    }
    out_.flush();
    check();
    fs::rename(partial, path_);  // the open file goes along
  }

  void write(const std::string& optimizer, const StepRecord& record) {
    out_ << row(optimizer, record);
    out_.flush();
    check();
  }

  /// The rows of the file as it is, which may be of a program that was killed.
  std::vector<Run> read() const {
    std::ifstream in(path_);
    std::string line;
    std::getline(in, line);
    TORCH_CHECK(in && line == header(), path_.string(), ": expected the columns ", header(),
                ", got ", in ? line : "no such file");
    std::vector<Run> runs;
    while (std::getline(in, line)) {
      if (in.eof()) break;  // without its end of line: cut short
      auto [optimizer, record] = parse(line);
      if (runs.empty() || runs.back().optimizer != optimizer) runs.push_back({optimizer, {}});
      runs.back().records.push_back(record);
    }
    return runs;
  }

  const fs::path& path() const { return path_; }

 private:
  std::string header() const {
    return fmt::format("optimizer,step,train_loss,validation_loss,{}seconds,optimizer_seconds",
                       accuracy_ ? "validation_accuracy," : "");
  }

  std::string row(const std::string& optimizer, const StepRecord& r) const {
    const auto cell = [](const std::optional<double>& value) {
      return value ? fmt::format("{:.9g},", *value) : std::string(",");
    };
    return fmt::format("{},{},{:.9g},{}{}{:.4f},{:.4f}\n", optimizer, r.step, r.train_loss,
                       cell(r.validation_loss), accuracy_ ? cell(r.validation_accuracy) : "",
                       r.seconds, r.optimizer_seconds);
  }

  std::pair<std::string, StepRecord> parse(const std::string& line) const {
    std::vector<std::string> cells;
    std::istringstream in(line);
    for (std::string cell; std::getline(in, cell, ',');) cells.push_back(cell);
    const size_t expected = accuracy_ ? 7 : 6;
    const auto optional = [](const std::string& cell) {
      return cell.empty() ? std::nullopt : std::optional<double>(std::stod(cell));
    };
    bool read = cells.size() == expected;
    StepRecord r;
    try {
      if (read) {
        r.step = std::stoll(cells[1]);
        r.train_loss = std::stod(cells[2]);
        r.validation_loss = optional(cells[3]);
        if (accuracy_) r.validation_accuracy = optional(cells[4]);
        r.seconds = std::stod(cells[expected - 2]);
        r.optimizer_seconds = std::stod(cells[expected - 1]);
      }
    } catch (const std::exception&) {  // what stod throws says nothing of the file
      read = false;
    }
    TORCH_CHECK(read, path_.string(), ": expected a row of ", header(), ", got ", line);
    return {cells[0], r};
  }

  void check() const { TORCH_CHECK(out_, "expected to write ", path_.string(), ", got a failure"); }

  fs::path path_;
  bool accuracy_;
  std::ofstream out_;
};

}  // namespace examples
