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
#include <tuple>
#include <utility>
#include <vector>

#include <root_optim/coefficients/form.hpp>
#include <root_optim/coefficients/normalization.hpp>
#include <root_optim/coefficients/precision.hpp>
#include <root_optim/coefficients/quintic.hpp>
#include <root_optim/coefficients/spectrum.hpp>
#include <root_optim/coefficients/table.hpp>
#include <root_optim/coefficients/validation.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

inline constexpr int table_format = 1;
inline constexpr size_t max_table_steps = 64;

inline std::tuple<int64_t, int64_t, Precision> table_key(int64_t rows, int64_t cols,
                                                         Precision precision) {
  return {(std::min)(rows, cols), (std::max)(rows, cols),
          precision == Precision::BFloat16 ? Precision::BFloat16 : Precision::Float32};
}

inline const char* word_of(Precision precision) {
  return precision == Precision::BFloat16 ? "bfloat16" : "float32";
}
inline const char* word_of(Form form) {
  return form == Form::Auto ? "auto" : (form == Form::Gram ? "gram" : "direct");
}

/// The shortest decimal form that reads back as `value`.
inline std::string exact_digits(double value) {
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

inline bool is_word(const std::string& text) {
  return !text.empty() && text.find_first_of(" \t\n\v\f\r#") == std::string::npos;
}

/// Lines of the text, split into fields, with their number for messages.
struct TableReader {
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
      const std::string problem = problem_of(entry.spectrum);
      expect(problem.empty(), problem);
      expect(next(), "a triple 'a b c' or 'end'");
    }
    while (!(fields.size() == 1 && fields[0] == "end")) {
      expect(fields.size() == 3, "a triple 'a b c' or 'end'");
      const char* what = "three finite numbers";
      entry.quintics.push_back(
          {number<double>(0, what), number<double>(1, what), number<double>(2, what)});
      expect(entry.quintics.size() <= max_table_steps, "at most 64 steps");
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

}  // namespace detail

ROOT_OPTIM_INLINE const TableEntry* CoefficientTable::find(int64_t rows, int64_t cols,
                                                           Precision precision) const {
  const auto found = entries_.find(detail::table_key(rows, cols, precision));
  return found == entries_.end() ? nullptr : &found->second;
}

ROOT_OPTIM_INLINE void CoefficientTable::set(TableEntry entry) {
  TORCH_CHECK(entry.rows >= 1 && entry.cols >= 1,
              "root_optim::CoefficientTable::set: expected rows, cols >= 1, got ", entry.rows, ", ",
              entry.cols);
  TORCH_CHECK(detail::is_word(entry.origin),
              "root_optim::CoefficientTable::set: expected origin to be one word, got '",
              entry.origin, "'");
  TORCH_CHECK(entry.quintics.size() <= detail::max_table_steps,
              "root_optim::CoefficientTable::set: expected at most ", detail::max_table_steps,
              " steps, got ", entry.quintics.size());
  if (entry.spectrum.sigma.size() + entry.spectrum.weight.size() > 0) {
    detail::check_spectrum(entry.spectrum, "CoefficientTable::set");
  }
  const Key key = detail::table_key(entry.rows, entry.cols, entry.precision);
  std::tie(entry.rows, entry.cols, entry.precision) = key;
  const auto options = ValidationOptions::for_precision(entry.precision, Normalization::Schatten8);
  check_quintics(entry.quintics, options, "CoefficientTable::set");
  entry.report = validate_quintics(entry.quintics, options);
  entries_.insert_or_assign(key, std::move(entry));
}

ROOT_OPTIM_INLINE void CoefficientTable::set(int64_t rows, int64_t cols, Quintics quintics,
                                             Precision precision) {
  TableEntry entry;
  entry.rows = rows;
  entry.cols = cols;
  entry.precision = precision;
  entry.quintics = std::move(quintics);
  set(std::move(entry));
}

ROOT_OPTIM_INLINE std::vector<TableEntry> CoefficientTable::entries() const {
  std::vector<TableEntry> all;
  all.reserve(entries_.size());
  for (const auto& item : entries_) all.push_back(item.second);
  return all;
}

ROOT_OPTIM_INLINE std::string CoefficientTable::to_text() const {
  std::ostringstream out;
  out.imbue(std::locale::classic());
  out << "root_optim coefficients " << detail::table_format << '\n';
  for (const auto& item : entries_) {
    const TableEntry& entry = item.second;
    const ValidationReport& r = entry.report;
    out << "entry " << entry.rows << ' ' << entry.cols << ' ' << detail::word_of(entry.precision)
        << ' ' << detail::word_of(entry.form) << ' ' << entry.origin << '\n';
    out << "figures " << r.margin << ' ' << r.min_output << ' ' << r.max_output << ' ' << r.slope
        << '\n';
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
    out << "end\n";
  }
  return out.str();
}

ROOT_OPTIM_INLINE void CoefficientTable::read(std::istream& in, const std::string& source) {
  detail::TableReader reader{in, source, 0, {}};
  reader.expect(reader.next(), "a first line 'root_optim coefficients 1'");
  reader.expect(reader.fields.size() == 3 && reader.fields[0] == "root_optim" &&
                    reader.fields[1] == "coefficients",
                "a first line 'root_optim coefficients 1'");
  reader.expect(reader.fields[2] == std::to_string(detail::table_format), "format version 1");

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
