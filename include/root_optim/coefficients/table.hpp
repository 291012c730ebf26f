// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Coefficients per matrix shape: given by the user, designed or calibrated; written and read as
// text. ROOT, arXiv 2511.20626, "AdaNewton": (a, b, c)^(m,n). Designs are made by
// coefficients/design/design.hpp; AdaNewton (ada_newton.hpp) looks shapes up here first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <istream>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include <root_optim/coefficients/form.hpp>
#include <root_optim/coefficients/precision.hpp>
#include <root_optim/coefficients/quintic.hpp>
#include <root_optim/coefficients/rational.hpp>
#include <root_optim/coefficients/rational_validation.hpp>
#include <root_optim/coefficients/spectrum.hpp>
#include <root_optim/coefficients/validation.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// The coefficients of one shape, triples of Newton–Schulz or stages with inverses, with where they come from
/// and the validator's figures.
struct TableEntry {
  int64_t rows = 0;  ///< smaller side
  int64_t cols = 0;  ///< larger side
  /// Of the products.
  Precision precision = Precision::Float32;
  Quintics quintics;               ///< one triple per step, or none with `stages`
  Form form = Form::Auto;          ///< how the triples are applied
  RationalStages stages;           ///< of the rational iteration, or none with `quintics`
  std::string origin = "user";     ///< "user", "designed", "calibrated", …: one word
  Spectrum spectrum;               ///< what they were designed for, or empty
  ValidationReport report;         ///< of the triples, set by the table
  RationalReport rational_report;  ///< of the stages, set by the table

  bool is_rational() const { return !stages.empty(); }  ///< whether it has stages
};

/// Coefficients by shape and precision.
///
/// A value type. A shape is looked up in either orientation; float64 shares float32's
/// entries. Every entry has passed `validate_quintics` for its precision and the Schatten-8 norm, or
/// `validate_rational` for float32.
///
/// Text format, one entry after the other, '#' starts a comment:
///     root_optim coefficients 1
///     entry 768 3072 float32 auto designed
///     figures 0.0051 0.62 1.18 1210
///     sigma 0.91 0.4 0.011
///     weight 0.01 0.19 0.8
///     4.1 -11.5 8.1
///     …
///     end
/// that is: smaller and larger side, precision, form, origin; margin, smallest output for σ >= .01,
/// largest output, slope; optionally the spectrum; then one triple per step. Stages with inverses have the form
/// "rational", the figures smallest and largest output and gain, and one line a stage, a₀ and then every weight
/// with its pole:
///     entry 256 1024 float32 rational calibrated
///     figures 0.71 1.19 812
///     stage 0.02 0.31 0.22 0.0041 0.00071
///     end
/// Coefficients and spectrum are written in digits that restore every bit. A table without stages is written as
/// version 1, which older versions of the library read, one with stages as version 2.
class CoefficientTable {
 public:
  /// The entry for a shape, or null. It lives until the table is changed or destroyed.
  const TableEntry* find(int64_t rows, int64_t cols,
                         Precision precision = Precision::Float32) const;

  /// Adds an entry, or replaces the one of its shape and precision.
  /// @throws c10::Error unless rows, cols >= 1, origin is one word, the spectrum is empty or as its
  /// type says, there are either triples or stages, no more than 64, and they pass validation for the
  /// precision (stages: float32 or float64, and Form::Auto); nothing is changed then.
  void set(TableEntry entry);

  /// As above, for triples of one's own.
  void set(int64_t rows, int64_t cols, Quintics quintics, Precision precision = Precision::Float32);

  /// As above, for stages of one's own.
  void set(int64_t rows, int64_t cols, RationalStages stages);

  size_t size() const { return entries_.size(); }  ///< number of entries
  bool empty() const { return entries_.empty(); }  ///< whether there are none

  /// All entries, by rows, cols and precision.
  std::vector<TableEntry> entries() const;

  /// The table as text; the same entries give the same bytes.
  std::string to_text() const;

  /// Reads `to_text`'s format into this table, replacing entries of the same key. All or nothing.
  /// @param source name for messages, such as the file's
  /// @throws c10::Error with source, line and reason if the text is malformed, of another version,
  /// an entry fails validation, or its figures are not those of its triples.
  void read(std::istream& in, const std::string& source = "text");

 private:
  /// Smaller side, larger side, precision.
  using Key = std::tuple<int64_t, int64_t, Precision>;

  std::map<Key, TableEntry> entries_;
};

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/coefficients/detail/table_impl.hpp>
#endif
