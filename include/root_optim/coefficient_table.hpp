// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Coefficients per matrix shape: designed on first use, kept, replaced by the user, written and
// read as text. ROOT, arXiv 2511.20626, "AdaNewton": (a, b, c)^(m,n). The design itself is in
// coefficient_design.hpp, the one shipped schedule for all shapes in default_coefficients.hpp.
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
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include <root_optim/coefficient_design.hpp>
#include <root_optim/coefficient_validation.hpp>
#include <root_optim/default_coefficients.hpp>
#include <root_optim/quintic.hpp>
#include <root_optim/spectrum.hpp>

namespace root_optim {
inline namespace v0 {

/// What a shape's coefficients are designed for: a Gaussian matrix of that shape and heavy-tailed
/// families (the paper calibrates on random and real matrices).
struct ShapeModel {
  double gaussian_weight = 0.2;  ///< share of the Gaussian part, in [0, 1]
  /// Families that share the rest equally, from spectra of early training to nearly rank-deficient.
  std::vector<HeavyTail> tails = {{0.1, 1e4}, {0.03, 1e6}, {0.003, 1e8}, {1e-4, 1e10}};
};

/// The model's spectra for a rows × cols matrix after Schatten-8 normalization, with their weights.
/// @throws c10::Error unless rows, cols >= 1, 0 <= gaussian_weight <= 1, and there are tails if it
/// is below 1.
inline std::vector<std::pair<double, Spectrum>> shape_spectra(int64_t rows, int64_t cols,
                                                              const ShapeModel& model = {}) {
  TORCH_CHECK(rows >= 1 && cols >= 1, "root_optim::shape_spectra: expected rows, cols >= 1, got ",
              rows, ", ", cols);
  TORCH_CHECK(
      model.gaussian_weight >= 0 && model.gaussian_weight <= 1 &&
          (model.gaussian_weight == 1 || !model.tails.empty()),
      "root_optim::shape_spectra: expected 0 <= gaussian_weight <= 1, and tails below 1, got ",
      model.gaussian_weight, " and ", model.tails.size(), " tails");
  std::vector<std::pair<double, Spectrum>> parts;
  if (model.gaussian_weight > 0) {
    parts.emplace_back(model.gaussian_weight, gaussian_spectrum(rows, cols, NormKind::Schatten8));
  }
  for (const HeavyTail& tail : model.tails) {
    if (model.gaussian_weight == 1) break;
    parts.emplace_back((1 - model.gaussian_weight) / static_cast<double>(model.tails.size()),
                       heavy_tailed_spectrum(std::min(rows, cols), NormKind::Schatten8, tail));
  }
  return parts;
}

/// Designs the triples for a rows × cols matrix by `design_mixture`, starting among others from the
/// shipped schedule of as many steps.
/// @param precision of the products: its slack and margins; BFloat16's serve every precision.
/// @throws c10::Error as shape_spectra, and unless 1 <= steps <= 16.
inline Design design_for_shape(int64_t rows, int64_t cols, int64_t steps,
                               Precision precision = Precision::Float32,
                               const ShapeModel& model = {}) {
  DesignOptions options;
  options.steps = steps;
  options.validation = ValidationOptions::for_precision(precision, NormKind::Schatten8);
  if (steps >= min_default_steps && steps <= max_default_steps) {
    options.warm_start = default_schedule(steps);
  }
  return design_mixture(shape_spectra(rows, cols, model), options);
}

/// The triples of one shape, with where they come from and the validator's figures.
struct TableEntry {
  int64_t rows = 0;  ///< smaller side
  int64_t cols = 0;  ///< larger side
  Precision precision = Precision::Float32;
  Schedule schedule;
  std::string origin;  ///< "designed", "user", … : one word
  ValidationReport report;
};

/// Coefficients by shape, number of steps and precision.
///
/// A shape is looked up in either orientation; float64 shares float32's entries. Internally
/// synchronized: hold one by std::shared_ptr and use it from any thread. Every entry has passed
/// `validate_schedule` for its precision and the Schatten-8 norm.
///
/// Text format, one entry after the other, '#' starts a comment:
///     root_optim coefficients 1
///     entry 768 3072 float32 designed
///     figures 0.0051 0.62 1.18 1210
///     4.1 -11.5 8.1
///     …
///     end
/// that is: smaller and larger side, precision, origin; margin, smallest output for σ >= .01,
/// largest output, slope; then one triple per step, in digits that restore every bit.
class CoefficientTable {
 public:
  explicit CoefficientTable(ShapeModel model = {}) : model_(std::move(model)) {}

  const ShapeModel& model() const { return model_; }

  /// The entry for a shape; designs it (some 10 ms) if it is not there yet. O(1) afterwards.
  /// @throws c10::Error as design_for_shape.
  std::shared_ptr<const TableEntry> find(int64_t rows, int64_t cols, int64_t steps,
                                         Precision precision = Precision::Float32) {
    const Key key = key_of(rows, cols, steps, precision);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      const auto found = entries_.find(key);
      if (found != entries_.end()) return found->second;
    }
    // Outside the lock: two threads may design the same entry, with the same result.
    Design design = design_for_shape(key.rows, key.cols, steps, key.precision, model_);
    auto entry = std::make_shared<TableEntry>();
    *entry = {key.rows,      key.cols,
              key.precision, std::move(design.schedule),
              "designed",    std::move(design.report)};
    const std::lock_guard<std::mutex> lock(mutex_);
    return entries_.emplace(key, std::move(entry)).first->second;
  }

  /// The triples for a shape, as `find`.
  Schedule schedule(int64_t rows, int64_t cols, int64_t steps,
                    Precision precision = Precision::Float32) {
    return find(rows, cols, steps, precision)->schedule;
  }

  /// Replaces the entry for a shape, schedule.size() steps and a precision.
  /// @param origin one word, kept for the text format
  /// @throws c10::Error if the schedule fails validation for that precision; nothing is changed.
  void set(int64_t rows, int64_t cols, Schedule schedule, Precision precision = Precision::Float32,
           std::string origin = "user") {
    const Key key = key_of(rows, cols, static_cast<int64_t>(schedule.size()), precision);
    TORCH_CHECK(is_word(origin),
                "root_optim::CoefficientTable::set: expected origin to be one word, got '", origin,
                "'");
    const auto options = ValidationOptions::for_precision(key.precision, NormKind::Schatten8);
    check_schedule(schedule, options, "CoefficientTable::set");
    auto entry = std::make_shared<TableEntry>();
    entry->report = validate_schedule(schedule, options);
    entry->rows = key.rows;
    entry->cols = key.cols;
    entry->precision = key.precision;
    entry->schedule = std::move(schedule);
    entry->origin = std::move(origin);
    const std::lock_guard<std::mutex> lock(mutex_);
    entries_[key] = std::move(entry);
  }

  size_t size() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return entries_.size();
  }

  /// All entries, by rows, cols, precision and steps.
  std::vector<std::shared_ptr<const TableEntry>> entries() const {
    std::vector<std::shared_ptr<const TableEntry>> all;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      all.reserve(entries_.size());
      for (const auto& item : entries_) all.push_back(item.second);
    }
    const auto order = [](const TableEntry& e) {
      return std::make_tuple(e.rows, e.cols, e.precision, e.schedule.size());
    };
    std::sort(all.begin(), all.end(),
              [&](const auto& l, const auto& r) { return order(*l) < order(*r); });
    return all;
  }

  /// The table as text; the same entries give the same bytes.
  std::string to_text() const {
    std::ostringstream out;
    out.imbue(std::locale::classic());
    out << "root_optim coefficients " << format_version << '\n';
    for (const auto& entry : entries()) {
      const ValidationReport& r = entry->report;
      out << "entry " << entry->rows << ' ' << entry->cols << ' ' << word_of(entry->precision)
          << ' ' << entry->origin << '\n';
      out << "figures " << r.margin << ' ' << r.min_output << ' ' << r.max_output << ' ' << r.slope
          << '\n';
      for (const Quintic& p : entry->schedule) {
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

    std::vector<std::pair<Key, std::shared_ptr<const TableEntry>>> read_entries;
    while (reader.next()) {
      auto entry = reader.entry();
      const Key key = key_of(entry->rows, entry->cols, static_cast<int64_t>(entry->schedule.size()),
                             entry->precision);
      for (const auto& other : read_entries) {
        reader.expect(!(other.first == key), "each shape, precision and number of steps once");
      }
      read_entries.emplace_back(key, std::move(entry));
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto& item : read_entries) entries_[item.first] = std::move(item.second);
  }

 private:
  static constexpr int format_version = 1;

  struct Key {
    int64_t rows, cols, steps;
    Precision precision;
    friend bool operator==(const Key& l, const Key& r) {
      return l.rows == r.rows && l.cols == r.cols && l.steps == r.steps &&
             l.precision == r.precision;
    }
  };
  struct KeyHash {
    size_t operator()(const Key& k) const {
      size_t h = 0;
      for (const int64_t v : {k.rows, k.cols, k.steps, static_cast<int64_t>(k.precision)}) {
        h = h * 1000003U + std::hash<int64_t>()(v);
      }
      return h;
    }
  };

  static Key key_of(int64_t rows, int64_t cols, int64_t steps, Precision precision) {
    TORCH_CHECK(rows >= 1 && cols >= 1 && steps >= 1,
                "root_optim::CoefficientTable: expected rows, cols, steps >= 1, got ", rows, ", ",
                cols, ", ", steps);
    return {std::min(rows, cols), std::max(rows, cols), steps,
            precision == Precision::BFloat16 ? Precision::BFloat16 : Precision::Float32};
  }

  static const char* word_of(Precision precision) {
    return precision == Precision::BFloat16 ? "bfloat16" : "float32";
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
    return !text.empty() && text.find_first_of(" \t\r\n#") == std::string::npos;
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
        text.resize(std::min(text.size(), text.find('#')));
        std::istringstream words(text);
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

    /// The entry that begins at the current line.
    std::shared_ptr<const TableEntry> entry() {
      const int64_t first = line;
      const char* form = "'entry <smaller side> <larger side> float32|bfloat16 <origin>'";
      expect(fields.size() == 5 && fields[0] == "entry", form);
      auto entry = std::make_shared<TableEntry>();
      entry->rows = number<int64_t>(1, form);
      entry->cols = number<int64_t>(2, form);
      expect(entry->rows >= 1 && entry->cols >= entry->rows, "1 <= smaller side <= larger side");
      expect(fields[3] == "float32" || fields[3] == "bfloat16", form);
      entry->precision = fields[3] == "bfloat16" ? Precision::BFloat16 : Precision::Float32;
      entry->origin = fields[4];

      expect(next() && fields.size() == 5 && fields[0] == "figures",
             "'figures <margin> <smallest output> <largest output> <slope>'");
      double figures[4];
      for (size_t i = 0; i < 4; ++i) figures[i] = number<double>(i + 1, "four numbers");
      const int64_t figures_line = line;

      while (true) {
        expect(next(), "a triple 'a b c' or 'end'");
        if (fields.size() == 1 && fields[0] == "end") break;
        expect(fields.size() == 3, "a triple 'a b c' or 'end'");
        const char* what = "three finite numbers";
        entry->schedule.push_back(
            {number<double>(0, what), number<double>(1, what), number<double>(2, what)});
        expect(entry->schedule.size() <= 64, "at most 64 steps");
      }

      entry->report = validate_schedule(
          entry->schedule, ValidationOptions::for_precision(entry->precision, NormKind::Schatten8));
      const ValidationReport& r = entry->report;
      TORCH_CHECK(r.valid, "root_optim::CoefficientTable: ", source, ":", first,
                  ": the entry fails validation: step ", r.failing_step,
                  " fails at σ = ", r.failing_sigma, ": ", r.reason);
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

  ShapeModel model_;
  mutable std::mutex mutex_;
  std::unordered_map<Key, std::shared_ptr<const TableEntry>, KeyHash> entries_;
};

}  // namespace v0
}  // namespace root_optim
