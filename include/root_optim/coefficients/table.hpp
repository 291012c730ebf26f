// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Coefficients per matrix shape: given by the user, designed or calibrated; written and read as
// text. ROOT, arXiv 2511.20626, "AdaNewton": (a, b, c)^(m,n). Designs are made by
// coefficients/design/design.hpp; AdaNewton (ada_newton.hpp) looks shapes up here first.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <istream>
#include <iterator>
#include <locale>
#include <sstream>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include <root_optim/coefficients/form.hpp>
#include <root_optim/coefficients/precision.hpp>
#include <root_optim/coefficients/quintic.hpp>
#include <root_optim/coefficients/spectrum.hpp>
#include <root_optim/coefficients/validation.hpp>
#include <root_optim/core/finite.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// The triples of one shape, with where they come from and the validator's figures.
struct TableEntry {
  int64_t rows = 0;  ///< smaller side
  int64_t cols = 0;  ///< larger side
  /// Of the products.
  Precision precision = Precision::Float32;
  Quintics quintics;            ///< one triple per step
  Form form = Form::Auto;       ///< how they are applied
  std::string origin = "user";  ///< "user", "designed", "calibrated", …: one word
  Spectrum spectrum;            ///< what they were designed for, or empty
  ValidationReport report;      ///< set by the table
};

/// Coefficients by shape and precision.
///
/// A value type. A shape is looked up in either orientation, in O(1); float64 shares float32's
/// entries. Every entry has passed `validate_quintics` for its precision and the Schatten-8 norm.
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
/// largest output, slope; optionally the spectrum; then one triple per step. Coefficients and
/// spectrum are written in digits that restore every bit.
class CoefficientTable {
 public:
  /// The entry for a shape, or null. It lives until the table is changed or destroyed.
  const TableEntry* find(int64_t rows, int64_t cols,
                         Precision precision = Precision::Float32) const {
    const auto found = entries_.find(key_of(rows, cols, precision));
    return found == entries_.end() ? nullptr : &found->second;
  }

  /// Adds an entry, or replaces the one of its shape and precision.
  /// @throws c10::Error unless rows, cols >= 1, origin is one word, the spectrum is empty or as its
  /// type says, and the schedule has at most 64 steps and passes validation for the precision; nothing
  /// is changed then.
  void set(TableEntry entry) {
    TORCH_CHECK(entry.rows >= 1 && entry.cols >= 1,
                "root_optim::CoefficientTable::set: expected rows, cols >= 1, got ", entry.rows,
                ", ", entry.cols);
    TORCH_CHECK(is_word(entry.origin),
                "root_optim::CoefficientTable::set: expected origin to be one word, got '",
                entry.origin, "'");
    TORCH_CHECK(entry.quintics.size() <= max_steps,
                "root_optim::CoefficientTable::set: expected at most ", max_steps, " steps, got ",
                entry.quintics.size());
    if (entry.spectrum.sigma.size() + entry.spectrum.weight.size() > 0) {
      detail::check_spectrum(entry.spectrum, "CoefficientTable::set");
    }
    const Key key = key_of(entry.rows, entry.cols, entry.precision);
    entry.rows = key.rows;
    entry.cols = key.cols;
    entry.precision = key.precision;
    const auto options = ValidationOptions::for_precision(key.precision, Normalization::Schatten8);
    check_quintics(entry.quintics, options, "CoefficientTable::set");
    entry.report = validate_quintics(entry.quintics, options);
    entries_.insert_or_assign(key, std::move(entry));
  }

  /// As above, for triples of one's own.
  void set(int64_t rows, int64_t cols, Quintics schedule,
           Precision precision = Precision::Float32) {
    TableEntry entry;
    entry.rows = rows;
    entry.cols = cols;
    entry.precision = precision;
    entry.quintics = std::move(schedule);
    set(std::move(entry));
  }

  size_t size() const { return entries_.size(); }  ///< number of entries
  bool empty() const { return entries_.empty(); }  ///< whether there are none

  /// All entries, by rows, cols and precision.
  std::vector<TableEntry> entries() const {
    std::vector<TableEntry> all;
    all.reserve(entries_.size());
    for (const auto& item : entries_) all.push_back(item.second);
    std::sort(all.begin(), all.end(), [](const TableEntry& l, const TableEntry& r) {
      return std::tie(l.rows, l.cols, l.precision) < std::tie(r.rows, r.cols, r.precision);
    });
    return all;
  }

  /// The table as text; the same entries give the same bytes.
  std::string to_text() const {
    std::ostringstream out;
    out.imbue(std::locale::classic());
    out << "root_optim coefficients " << format_version << '\n';
    for (const TableEntry& entry : entries()) {
      const ValidationReport& r = entry.report;
      out << "entry " << entry.rows << ' ' << entry.cols << ' ' << word_of(entry.precision) << ' '
          << word_of(entry.form) << ' ' << entry.origin << '\n';
      out << "figures " << r.margin << ' ' << r.min_output << ' ' << r.max_output << ' ' << r.slope
          << '\n';
      if (!entry.spectrum.sigma.empty()) {
        out << "sigma";
        for (const double v : entry.spectrum.sigma) out << ' ' << exact_digits(v);
        out << "\nweight";
        for (const double v : entry.spectrum.weight) out << ' ' << exact_digits(v);
        out << '\n';
      }
      for (const Quintic& p : entry.quintics) {
        out << exact_digits(p.a) << ' ' << exact_digits(p.b) << ' ' << exact_digits(p.c) << '\n';
      }
      out << "end\n";
    }
    return out.str();
  }

  /// Reads `to_text`'s format into this table, replacing entries of the same key. All or nothing.
  /// @param source name for messages, such as the file's
  /// @throws c10::Error with source, line and reason if the text is malformed, of another version,
  /// an entry fails validation, or its figures are not those of its triples.
  void read(std::istream& in, const std::string& source = "text") {
    Reader reader{in, source, 0, {}};
    reader.expect(reader.next(), "a first line 'root_optim coefficients 1'");
    reader.expect(reader.fields.size() == 3 && reader.fields[0] == "root_optim" &&
                      reader.fields[1] == "coefficients",
                  "a first line 'root_optim coefficients 1'");
    reader.expect(reader.fields[2] == std::to_string(format_version), "format version 1");

    Entries read_entries;
    while (reader.next()) {
      TableEntry entry = reader.entry();
      const Key key = key_of(entry.rows, entry.cols, entry.precision);
      reader.expect(read_entries.count(key) == 0, "each shape and precision once");
      read_entries.emplace(key, std::move(entry));
    }
    for (auto& item : read_entries) entries_.insert_or_assign(item.first, std::move(item.second));
  }

 private:
  static constexpr int format_version = 1;
  static constexpr size_t max_steps = 64;

  struct Key {
    int64_t rows, cols;
    Precision precision;
    friend bool operator==(const Key& l, const Key& r) {
      return l.rows == r.rows && l.cols == r.cols && l.precision == r.precision;
    }
  };
  struct KeyHash {
    size_t operator()(const Key& k) const {
      size_t h = 0;
      for (const int64_t v : {k.rows, k.cols, static_cast<int64_t>(k.precision)}) {
        h = h * 1000003U + std::hash<int64_t>()(v);
      }
      return h;
    }
  };

  using Entries = std::unordered_map<Key, TableEntry, KeyHash>;

  static Key key_of(int64_t rows, int64_t cols, Precision precision) {
    return {(std::min)(rows, cols), (std::max)(rows, cols),
            precision == Precision::BFloat16 ? Precision::BFloat16 : Precision::Float32};
  }

  static const char* word_of(Precision precision) {
    return precision == Precision::BFloat16 ? "bfloat16" : "float32";
  }
  static const char* word_of(Form form) {
    return form == Form::Auto ? "auto" : (form == Form::Gram ? "gram" : "direct");
  }

  /// The shortest decimal form that reads back as `value`.
  static std::string exact_digits(double value) {
    for (int digits = 15;; ++digits) {
      std::ostringstream out;
      out.imbue(std::locale::classic());
      out.precision(digits);
      out << value;
      std::istringstream in(out.str());
      in.imbue(std::locale::classic());
      double back = 0;
      if (digits == 17 || (in >> back && back == value)) return out.str();
    }
  }

  static bool is_word(const std::string& text) {
    return !text.empty() && text.find_first_of(" \t\n\v\f\r#") == std::string::npos;
  }

  /// Lines of the text, split into fields, with their number for messages.
  struct Reader {
    std::istream& in;
    const std::string& source;
    int64_t line;
    std::vector<std::string> fields;

    void expect(bool condition, const std::string& what) const {
      if (condition) return;
      std::string got;
      for (const std::string& field : fields) got += (got.empty() ? "" : " ") + field;
      TORCH_CHECK(false, "root_optim::CoefficientTable: ", source, ":", line, ": expected ", what,
                  ", got '", got, "'");
    }

    /// The next line that holds anything; false at the end.
    bool next() {
      std::string text;
      while (std::getline(in, text)) {
        ++line;
        text.resize((std::min)(text.size(), text.find('#')));
        std::istringstream words(text);
        words.imbue(std::locale::classic());
        fields.assign(std::istream_iterator<std::string>(words), {});
        if (!fields.empty()) return true;
      }
      fields.clear();
      return false;
    }

    template <class T>
    T number(size_t field, const std::string& what) const {
      std::istringstream text(fields[field]);
      text.imbue(std::locale::classic());
      T value{};
      const bool read = static_cast<bool>(text >> value);
      expect(read && text.peek() == std::istringstream::traits_type::eof(), what);
      return value;
    }

    /// The numbers of the line that begins with `name`.
    std::vector<double> numbers(const std::string& name) const {
      expect(fields.size() > 1 && fields[0] == name, "'" + name + "' and numbers");
      std::vector<double> values;
      for (size_t i = 1; i < fields.size(); ++i) values.push_back(number<double>(i, "a number"));
      return values;
    }

    /// The entry that begins at the current line.
    TableEntry entry() {
      const int64_t first = line;
      const char* form =
          "'entry <smaller side> <larger side> float32|bfloat16 auto|direct|gram <origin>'";
      expect(fields.size() == 6 && fields[0] == "entry", form);
      TableEntry entry;
      entry.rows = number<int64_t>(1, form);
      entry.cols = number<int64_t>(2, form);
      expect(entry.rows >= 1 && entry.cols >= entry.rows, "1 <= smaller side <= larger side");
      expect(fields[3] == "float32" || fields[3] == "bfloat16", form);
      entry.precision = fields[3] == "bfloat16" ? Precision::BFloat16 : Precision::Float32;
      expect(fields[4] == "auto" || fields[4] == "direct" || fields[4] == "gram", form);
      entry.form = fields[4] == "auto"     ? Form::Auto
                   : fields[4] == "direct" ? Form::Direct
                                           : Form::Gram;
      entry.origin = fields[5];

      expect(next() && fields.size() == 5,
             "'figures <margin> <smallest output> <largest output> <slope>'");
      const std::vector<double> figures = numbers("figures");
      const int64_t figures_line = line;

      expect(next(), "a triple 'a b c', 'sigma' or 'end'");
      if (fields[0] == "sigma") {
        entry.spectrum.sigma = numbers("sigma");
        expect(next(), "'weight' and numbers");
        entry.spectrum.weight = numbers("weight");
        const std::string problem = detail::problem_of(entry.spectrum);
        expect(problem.empty(), problem);
        expect(next(), "a triple 'a b c' or 'end'");
      }
      while (!(fields.size() == 1 && fields[0] == "end")) {
        expect(fields.size() == 3, "a triple 'a b c' or 'end'");
        const char* what = "three finite numbers";
        entry.quintics.push_back(
            {number<double>(0, what), number<double>(1, what), number<double>(2, what)});
        expect(entry.quintics.size() <= max_steps, "at most 64 steps");
        expect(next(), "a triple 'a b c' or 'end'");
      }

      entry.report = validate_quintics(
          entry.quintics,
          ValidationOptions::for_precision(entry.precision, Normalization::Schatten8));
      const ValidationReport& r = entry.report;
      TORCH_CHECK(r.valid, "root_optim::CoefficientTable: ", source, ":", first,
                  ": expected coefficients that pass validation, got step ", r.failing_step,
                  " that fails at σ = ", r.failing_sigma, ": ", r.reason);
      const double actual[4] = {r.margin, r.min_output, r.max_output, r.slope};
      for (size_t i = 0; i < 4; ++i) {
        TORCH_CHECK(std::abs(figures[i] - actual[i]) <= 1e-4 * std::abs(actual[i]) + 1e-8,
                    "root_optim::CoefficientTable: ", source, ":", figures_line,
                    ": the figures are not those of the triples: expected ", actual[i], ", got ",
                    figures[i]);
      }
      return entry;
    }
  };

  Entries entries_;
};

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
