// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Coefficients that follow the training: a running summary of the spectra that an orthogonalizer
// sees, and a redesign of a CoefficientTable's entries from it. ROOT, arXiv 2511.20626:
// coefficients "optimized jointly with the model". AdaNewton::calibrate switches it on.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/linalg_svdvals.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <utility>
#include <vector>

#include <root_optim/coefficient_table.hpp>
#include <root_optim/policy.hpp>  // Fields
#include <root_optim/spectrum.hpp>

namespace root_optim {
inline namespace v0 {

/// Watches the input of an orthogonalizer and redesigns its coefficients now and then.
///
/// Per shape, every `every`-th call: the singular values of one matrix of the batch (in turn), over
/// their Schatten-8 norm, update a running mean of their log-quantiles (weight 0.3 for the new
/// ones); from the mixture of three parts of these and one part Gaussian a new schedule is
/// designed, starting from the one in use, checked, and put into the table, where the next call
/// finds it. A design that fails leaves the old coefficients and is counted.
///
/// Cost:     one SVD (float64) and one design (about 20 ms) per shape and `every` calls;
/// synchronizes
///           with the host then, and only then.
/// State:    `serialize` keeps the summaries and counts; the schedules are the table's.
/// Internally synchronized.
class Calibrator {
 public:
  static constexpr int64_t quantile_count = 65;

  /// @param table whose entries are replaced; not null.
  /// @param every calls per shape between two designs, >= 1.
  explicit Calibrator(std::shared_ptr<CoefficientTable> table, int64_t every = 200)
      : table_(std::move(table)), every_(every) {
    TORCH_CHECK(table_ != nullptr, "root_optim::Calibrator: expected a table, got none");
    TORCH_CHECK(every >= 1, "root_optim::Calibrator: expected every >= 1, got ", every);
  }

  int64_t every() const { return every_; }
  /// Schedules put into the table so far.
  int64_t designs() const { return locked(designs_); }
  /// Designs that failed and left the old schedule in use; matrices with non-finite or only zero
  /// entries count too.
  int64_t failures() const { return locked(failures_); }

  /// To be called with every batch x [k, m, n] before it is orthogonalized in `steps` steps.
  void observe(const at::Tensor& x, int64_t steps, Precision precision) {
    const int64_t rows = std::min(x.size(-2), x.size(-1)), cols = std::max(x.size(-2), x.size(-1));
    if (rows < 2 || x.size(0) < 1) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    Summary& summary = summaries_[{rows, cols}];
    if (++summary.calls % every_ != 0) return;
    try {
      const int64_t turn = summary.calls / every_ - 1;
      update(summary, x[turn % x.size(0)]);
      const Spectrum seen = spectrum_of(summary);
      DesignOptions options;
      options.steps = steps;
      options.validation = ValidationOptions::for_precision(precision, NormKind::Schatten8);
      options.warm_start = table_->schedule(rows, cols, steps, precision);
      const Spectrum target =
          mixture({{0.25, gaussian_spectrum(rows, cols, NormKind::Schatten8)}, {0.75, seen}});
      table_->set(rows, cols, design_schedule(target, options).schedule, precision, "calibrated");
      ++designs_;
    } catch (const c10::Error&) {
      ++failures_;
    }
  }

  /// The running quantiles of log10(σ / ‖X‖_S8) of a shape, from the largest to the smallest; empty
  /// if there are none yet.
  std::vector<double> quantiles(int64_t rows, int64_t cols) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = summaries_.find({std::min(rows, cols), std::max(rows, cols)});
    return found == summaries_.end() ? std::vector<double>{} : found->second.quantiles;
  }

  void serialize(Fields& out) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<int64_t> shapes;
    std::vector<double> quantiles;
    for (const auto& [shape, summary] : summaries_) {
      shapes.insert(shapes.end(), {shape.first, shape.second, summary.calls,
                                   static_cast<int64_t>(summary.quantiles.size())});
      quantiles.insert(quantiles.end(), summary.quantiles.begin(), summary.quantiles.end());
    }
    out.set("every", every_);
    out.set("designs", designs_);
    out.set("failures", failures_);
    out.set("shapes", std::move(shapes));
    out.set("quantiles", std::move(quantiles));
  }

  /// Restores what `serialize` wrote, all or nothing.
  /// @throws c10::Error if the fields are missing or do not fit together.
  void deserialize(const Fields& in) {
    const auto& shapes = in.get<std::vector<int64_t>>("shapes");
    const auto& quantiles = in.get<std::vector<double>>("quantiles");
    TORCH_CHECK(shapes.size() % 4 == 0,
                "root_optim::Calibrator::deserialize: expected four numbers per shape, got ",
                shapes.size());
    std::map<std::pair<int64_t, int64_t>, Summary> summaries;
    size_t next = 0;
    for (size_t i = 0; i < shapes.size(); i += 4) {
      const int64_t count = shapes[i + 3];
      TORCH_CHECK((count == 0 || count == quantile_count) && shapes[i + 2] >= 0 &&
                      next + static_cast<size_t>(count) <= quantiles.size(),
                  "root_optim::Calibrator::deserialize: expected 0 or ", quantile_count,
                  " quantiles for each shape, got ", count);
      Summary& summary = summaries[{shapes[i], shapes[i + 1]}];
      summary.calls = shapes[i + 2];
      const auto first = quantiles.begin() + static_cast<std::ptrdiff_t>(next);
      summary.quantiles.assign(first, first + count);
      next += static_cast<size_t>(count);
    }
    const int64_t every = in.get<int64_t>("every"), designs = in.get<int64_t>("designs"),
                  failures = in.get<int64_t>("failures");
    TORCH_CHECK(every >= 1 && designs >= 0 && failures >= 0,
                "root_optim::Calibrator::deserialize: expected every >= 1 and counts >= 0, got ",
                every, ", ", designs, " and ", failures);
    const std::lock_guard<std::mutex> lock(mutex_);
    every_ = every;
    designs_ = designs;
    failures_ = failures;
    summaries_ = std::move(summaries);
  }

 private:
  struct Summary {
    int64_t calls = 0;
    std::vector<double> quantiles;
  };

  int64_t locked(const int64_t& value) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return value;
  }

  static void update(Summary& summary, const at::Tensor& matrix) {
    const at::Tensor sigma = at::linalg_svdvals(matrix.to(at::kDouble)).to(at::kCPU).contiguous();
    const double* values = sigma.data_ptr<double>();
    const auto count = static_cast<size_t>(sigma.numel());
    const Spectrum seen =
        measured_spectrum(std::vector<double>(values, values + count), NormKind::Schatten8);
    const bool first = summary.quantiles.empty();
    summary.quantiles.resize(quantile_count);
    for (size_t i = 0; i < summary.quantiles.size(); ++i) {
      const double at = static_cast<double>(i * (count - 1)) / (quantile_count - 1);
      const double value =
          std::log10(std::max(seen.sigma[static_cast<size_t>(std::llround(at))], 1e-16));
      summary.quantiles[i] += (first ? 1.0 : 0.3) * (value - summary.quantiles[i]);
    }
  }

  /// Trapezoidal weights over the quantiles; already normalized.
  static Spectrum spectrum_of(const Summary& summary) {
    Spectrum spectrum;
    const double step = 1.0 / static_cast<double>(quantile_count - 1);
    for (size_t i = 0; i < summary.quantiles.size(); ++i) {
      const bool end = i == 0 || i + 1 == summary.quantiles.size();
      spectrum.sigma.push_back(std::min(1.0, std::pow(10.0, summary.quantiles[i])));
      spectrum.weight.push_back(end ? step / 2 : step);
    }
    return spectrum;
  }

  std::shared_ptr<CoefficientTable> table_;
  mutable std::mutex mutex_;
  int64_t every_;
  int64_t designs_ = 0;
  int64_t failures_ = 0;
  std::map<std::pair<int64_t, int64_t>, Summary> summaries_;
};

}  // namespace v0
}  // namespace root_optim
