// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of coefficients/table.hpp.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <istream>
#include <iterator>
#include <locale>
#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <root_optim/coefficients/form.hpp>
#include <root_optim/coefficients/normalization.hpp>
#include <root_optim/coefficients/precision.hpp>
#include <root_optim/coefficients/quintic.hpp>
#include <root_optim/coefficients/rational.hpp>
#include <root_optim/coefficients/rational_validation.hpp>
#include <root_optim/coefficients/spectrum.hpp>
#include <root_optim/coefficients/table.hpp>
#include <root_optim/coefficients/validation.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

inline constexpr int table_format = 2;
inline constexpr size_t max_table_steps = 64;

inline std::tuple<int64_t, int64_t, Precision> table_key(int64_t rows, int64_t cols,
                                                         Precision precision) {
  return {(std::min)(rows, cols), (std::max)(rows, cols),
          precision == Precision::BFloat16 ? Precision::BFloat16 : Precision::Float32};
}

ROOT_OPTIM_COLD inline const char* word_of(Precision precision) {
  return precision == Precision::BFloat16 ? "bfloat16" : "float32";
}
ROOT_OPTIM_COLD inline const char* word_of(Form form) {
  return form == Form::Auto ? "auto" : (form == Form::Gram ? "gram" : "direct");
}

/// The form, as an entry's line says it.
ROOT_OPTIM_COLD inline std::string word_of(const TableEntry& entry) {
  return entry.is_rational() ? "rational" : word_of(entry.form);
}

/// The numbers by which a reader knows that the coefficients are those that were written.
ROOT_OPTIM_COLD inline std::vector<double> figures_of(const TableEntry& entry) {
  const ValidationReport& q = entry.report;
  const RationalReport& r = entry.rational_report;
  return entry.is_rational() ? std::vector<double>{r.min_output, r.max_output, r.gain}
                             : std::vector<double>{q.margin, q.min_output, q.max_output, q.slope};
}

/// Sets the entry's report. The reason why its coefficients are refused, or nothing.
ROOT_OPTIM_COLD inline std::string validate_entry(TableEntry& entry) {
  if (entry.is_rational()) {
    entry.rational_report = validate_rational(
        entry.stages, RationalValidationOptions::for_precision(Precision::Float32));
    const RationalReport& r = entry.rational_report;
    return r.valid ? "" : c10::str("stage ", r.failing_stage, ": ", r.reason);
  }
  entry.report = validate_quintics(
      entry.quintics, ValidationOptions::for_precision(entry.precision, Normalization::Schatten8));
  const ValidationReport& r = entry.report;
  return r.valid ? ""
                 : c10::str("step ", r.failing_step, " that fails at σ = ", r.failing_sigma, ": ",
                            r.reason);
}

/// The shortest decimal form that reads back as `value`.
ROOT_OPTIM_COLD inline std::string exact_digits(double value) {
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

ROOT_OPTIM_COLD inline bool is_word(const std::string& text) {
  return !text.empty() && text.find_first_of(" \t\n\v\f\r#") == std::string::npos;
}

/// Lines of the text, split into fields, with their number for messages.
struct TableReader {
  std::istream& in;
  const std::string& source;
  int version;
  int64_t line;
  std::vector<std::string> fields;

  ROOT_OPTIM_COLD void expect(bool condition, std::string_view what) const {
    if (condition) return;
    std::string got;
    for (const std::string& field : fields) got += (got.empty() ? "" : " ") + field;
    TORCH_CHECK(false, "root_optim::CoefficientTable: ", source, ":", line, ": expected ", what,
                ", got '", got, "'");
  }

  /// The next line that holds anything; false at the end.
  ROOT_OPTIM_COLD bool next() {
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
  ROOT_OPTIM_COLD T number(size_t field, std::string_view what) const {
    std::istringstream text(fields[field]);
    text.imbue(std::locale::classic());
    T value{};
    const bool read = static_cast<bool>(text >> value);
    expect(read && text.peek() == std::istringstream::traits_type::eof(), what);
    return value;
  }

  /// The numbers of the line that begins with `name`.
  ROOT_OPTIM_COLD std::vector<double> numbers(const std::string& name) const {
    expect(fields.size() > 1 && fields[0] == name, "'" + name + "' and numbers");
    std::vector<double> values;
    for (size_t i = 1; i < fields.size(); ++i) values.push_back(number<double>(i, "a number"));
    return values;
  }

  /// The entry that begins at the current line.
  ROOT_OPTIM_COLD TableEntry entry() {
    const int64_t first = line;
    const char* form =
        "'entry <smaller side> <larger side> float32|bfloat16 auto|direct|gram|rational <origin>'";
    expect(fields.size() == 6 && fields[0] == "entry", form);
    TableEntry entry;
    entry.rows = number<int64_t>(1, form);
    entry.cols = number<int64_t>(2, form);
    expect(entry.rows >= 1 && entry.cols >= entry.rows, "1 <= smaller side <= larger side");
    expect(fields[3] == "float32" || fields[3] == "bfloat16", form);
    entry.precision = fields[3] == "bfloat16" ? Precision::BFloat16 : Precision::Float32;
    const bool rational = fields[4] == "rational";
    expect(fields[4] == "auto" || fields[4] == "direct" || fields[4] == "gram" ||
               (rational && version >= 2 && entry.precision == Precision::Float32),
           form);
    entry.form = fields[4] == "direct" ? Form::Direct
                 : fields[4] == "gram" ? Form::Gram
                                       : Form::Auto;
    entry.origin = fields[5];

    expect(next() && fields.size() == (rational ? 4 : 5),
           rational ? "'figures <smallest output> <largest output> <gain>'"
                    : "'figures <margin> <smallest output> <largest output> <slope>'");
    const std::vector<double> figures = numbers("figures");
    const int64_t figures_line = line;

    const std::string item = rational ? "'stage' and numbers" : "a triple 'a b c'";
    expect(next(), item + ", 'sigma' or 'end'");
    if (fields[0] == "sigma") {
      entry.spectrum.sigma = numbers("sigma");
      expect(next(), "'weight' and numbers");
      entry.spectrum.weight = numbers("weight");
      const std::string problem = problem_of(entry.spectrum);
      expect(problem.empty(), problem);
      expect(next(), item + " or 'end'");
    }
    while (!(fields.size() == 1 && fields[0] == "end")) {
      if (rational) {
        entry.stages.push_back(stage());
      } else {
        expect(fields.size() == 3, item + " or 'end'");
        const char* what = "three finite numbers";
        entry.quintics.push_back(
            {number<double>(0, what), number<double>(1, what), number<double>(2, what)});
      }
      expect(entry.quintics.size() + entry.stages.size() <= max_table_steps, "at most 64 steps");
      expect(next(), item + " or 'end'");
    }
    expect(!rational || !entry.stages.empty(), item);

    const std::string reason = validate_entry(entry);
    TORCH_CHECK(reason.empty(), "root_optim::CoefficientTable: ", source, ":", first,
                ": expected coefficients that pass validation, got ", reason);
    const std::vector<double> actual = figures_of(entry);
    for (size_t i = 0; i < actual.size(); ++i) {
      TORCH_CHECK(std::abs(figures[i] - actual[i]) <= 1e-4 * std::abs(actual[i]) + 1e-8,
                  "root_optim::CoefficientTable: ", source, ":", figures_line,
                  ": the figures are not those of the coefficients: expected ", actual[i], ", got ",
                  figures[i]);
    }
    return entry;
  }

  /// The stage of the current line.
  ROOT_OPTIM_COLD RationalStage stage() const {
    const std::vector<double> values = numbers("stage");
    expect(values.size() % 2 == 1, "'stage', a₀, and every weight with its pole");
    RationalStage stage;
    stage.constant = values[0];
    for (size_t i = 1; i < values.size(); i += 2) {
      stage.weights.push_back(values[i]);
      stage.poles.push_back(values[i + 1]);
    }
    return stage;
  }
};

}  // namespace detail

ROOT_OPTIM_INLINE const TableEntry* CoefficientTable::find(int64_t rows, int64_t cols,
                                                           Precision precision) const {
  const auto found = entries_.find(detail::table_key(rows, cols, precision));
  return found == entries_.end() ? nullptr : &found->second;
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void CoefficientTable::set(TableEntry entry) {
  TORCH_CHECK(entry.rows >= 1 && entry.cols >= 1,
              "root_optim::CoefficientTable::set: expected rows, cols >= 1, got ", entry.rows, ", ",
              entry.cols);
  TORCH_CHECK(detail::is_word(entry.origin),
              "root_optim::CoefficientTable::set: expected origin to be one word, got '",
              entry.origin, "'");
  TORCH_CHECK(entry.quintics.empty() != entry.stages.empty(),
              "root_optim::CoefficientTable::set: expected either triples or stages, got ",
              entry.quintics.size(), " triples and ", entry.stages.size(), " stages");
  TORCH_CHECK(entry.quintics.size() + entry.stages.size() <= detail::max_table_steps,
              "root_optim::CoefficientTable::set: expected at most ", detail::max_table_steps,
              " steps, got ", entry.quintics.size() + entry.stages.size());
  TORCH_CHECK(
      !entry.is_rational() || (entry.precision != Precision::BFloat16 && entry.form == Form::Auto),
      "root_optim::CoefficientTable::set: expected Precision::Float32 or Float64 and Form::Auto "
      "with "
      "stages, got ",
      detail::word_of(entry.precision), " and ", detail::word_of(entry.form));
  if (entry.spectrum.sigma.size() + entry.spectrum.weight.size() > 0) {
    detail::check_spectrum(entry.spectrum, "CoefficientTable::set");
  }
  const Key key = detail::table_key(entry.rows, entry.cols, entry.precision);
  std::tie(entry.rows, entry.cols, entry.precision) = key;
  constexpr const char* who = "CoefficientTable::set";
  if (!detail::validate_entry(entry).empty()) {
    if (entry.is_rational()) {
      check_rational(entry.stages, RationalValidationOptions::for_precision(Precision::Float32),
                     who);
    }
    check_quintics(entry.quintics,
                   ValidationOptions::for_precision(entry.precision, Normalization::Schatten8),
                   who);
  }
  entries_.insert_or_assign(key, std::move(entry));
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void CoefficientTable::set(int64_t rows, int64_t cols,
                                                             Quintics quintics,
                                                             Precision precision) {
  TableEntry entry;
  entry.rows = rows;
  entry.cols = cols;
  entry.precision = precision;
  entry.quintics = std::move(quintics);
  set(std::move(entry));
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void CoefficientTable::set(int64_t rows, int64_t cols,
                                                             RationalStages stages) {
  TableEntry entry;
  entry.rows = rows;
  entry.cols = cols;
  entry.stages = std::move(stages);
  set(std::move(entry));
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE std::vector<TableEntry> CoefficientTable::entries() const {
  std::vector<TableEntry> all;
  all.reserve(entries_.size());
  for (const auto& item : entries_) all.push_back(item.second);
  return all;
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE std::string CoefficientTable::to_text() const {
  std::ostringstream out;
  out.imbue(std::locale::classic());
  const bool rational = std::any_of(entries_.begin(), entries_.end(),
                                    [](const auto& item) { return item.second.is_rational(); });
  out << "root_optim coefficients " << (rational ? 2 : 1) << '\n';
  for (const auto& item : entries_) {
    const TableEntry& entry = item.second;
    out << "entry " << entry.rows << ' ' << entry.cols << ' ' << detail::word_of(entry.precision)
        << ' ' << detail::word_of(entry) << ' ' << entry.origin << '\n';
    out << "figures";
    for (const double figure : detail::figures_of(entry)) out << ' ' << figure;
    out << '\n';
    if (!entry.spectrum.sigma.empty()) {
      out << "sigma";
      for (const double v : entry.spectrum.sigma) out << ' ' << detail::exact_digits(v);
      out << "\nweight";
      for (const double v : entry.spectrum.weight) out << ' ' << detail::exact_digits(v);
      out << '\n';
    }
    for (const Quintic& p : entry.quintics) {
      out << detail::exact_digits(p.a) << ' ' << detail::exact_digits(p.b) << ' '
          << detail::exact_digits(p.c) << '\n';
    }
    for (const RationalStage& f : entry.stages) {
      out << "stage " << detail::exact_digits(f.constant);
      for (size_t j = 0; j < f.poles.size(); ++j) {
        out << ' ' << detail::exact_digits(f.weights[j]) << ' ' << detail::exact_digits(f.poles[j]);
      }
      out << '\n';
    }
    out << "end\n";
  }
  return out.str();
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void CoefficientTable::read(std::istream& in,
                                                              const std::string& source) {
  detail::TableReader reader{in, source, 0, 0, {}};
  const std::string first =
      "a first line 'root_optim coefficients " + std::to_string(detail::table_format) + "'";
  reader.expect(reader.next(), first);
  reader.expect(reader.fields.size() == 3 && reader.fields[0] == "root_optim" &&
                    reader.fields[1] == "coefficients",
                first);
  reader.version = reader.number<int>(2, "format version 1 or 2");
  reader.expect(reader.version >= 1 && reader.version <= detail::table_format,
                "format version 1 or 2");

  std::map<Key, TableEntry> read_entries;
  while (reader.next()) {
    TableEntry entry = reader.entry();
    const Key key = detail::table_key(entry.rows, entry.cols, entry.precision);
    reader.expect(read_entries.count(key) == 0, "each shape and precision once");
    read_entries.emplace(key, std::move(entry));
  }
  for (auto& item : read_entries) entries_.insert_or_assign(item.first, std::move(item.second));
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
