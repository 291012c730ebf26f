// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Coefficients that follow the training: a running summary of the spectra that an orthogonalizer
// meets, and new coefficients for them. ROOT, arXiv 2511.20626: coefficients "optimized jointly with the
// model". The result is a CoefficientTable (coefficients/table.hpp) in the options of each group.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>  // NoGradGuard
#include <c10/util/Exception.h>   // TORCH_CHECK

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include <root_optim/coefficients/spectrum.hpp>
#include <root_optim/coefficients/table.hpp>
#include <root_optim/diagnostics/next_matrices.hpp>
#include <root_optim/optimizer/detail/group_options.hpp>
#include <root_optim/optimizer/detail/lookup.hpp>
#include <root_optim/optimizer/optimizer.hpp>
#include <root_optim/orthogonalizers/ada_newton.hpp>
#include <root_optim/parameters/layout.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// The singular values of a matrix [m, n], from XXᵀ in float64. Those below 1e-8 of the largest are
/// rounding, which no schedule lifts. Empty for a zero matrix and for entries that are not finite.
/// Complexity: one product and an eigendecomposition of the smaller side. Waits for the device.
/// @throws c10::Error for other than one real floating-point matrix.
std::vector<double> gram_singular_values(const at::Tensor& matrix);

/// Designs a table entry for measured spectra of a rows × cols matrix.
///
/// Math: `design_quintics` on the mixture of `seen` and, with weight `gaussian_weight`, a Gaussian
/// matrix of that shape (the paper mixes real and random matrices), which keeps an entry usable on
/// what it was not made from.
/// @param warm_start a schedule of as many steps to start from as well, or empty.
/// @throws c10::Error as `design_quintics`, and unless 0 <= gaussian_weight < 1.
TableEntry calibrated_entry(int64_t rows, int64_t cols, const Spectrum& seen, int64_t steps,
                            Precision precision = Precision::Float32, double gaussian_weight = 0.1,
                            Quintics warm_start = {});

/// Designs a table entry of stages with inverses for measured spectra of a rows × cols matrix.
///
/// Math: `design_rational` on `seen` and, with weight `gaussian_weight`, a Gaussian matrix of that shape.
/// @param seen normalized in whatever way; the entry keeps it as it is.
/// @param poles of each stage
/// @throws c10::Error as `design_rational`, and unless 0 <= gaussian_weight < 1.
TableEntry calibrated_stages(int64_t rows, int64_t cols, const Spectrum& seen,
                             const std::vector<int64_t>& poles, double gaussian_weight = 0.1);

/// Settings of a Calibrator.
struct CalibratorOptions {
  int64_t every = 200;           ///< steps between two calibrations, >= 1
  int64_t samples = 2;           ///< matrices measured per shape and calibration, >= 1
  double memory = 0.7;           ///< weight of what was seen before, in [0, 1)
  double gaussian_weight = 0.1;  ///< see `calibrated_entry`
};

/// Redesigns AdaNewton's coefficients from the matrices that it meets, during training.
///
///     root_optim::Calibrator calibrator(optimizer);
///     for (auto& batch : *loader) {
///       optimizer.zero_grad();
///       loss_of(batch).backward();
///       calibrator.step();      // before optimizer.step()
///       optimizer.step();
///     }
///
/// A shape of a group is due when the step count of one of its parameters is a multiple of `every`. Then the
/// singular values of a few matrices, as the coming step will orthogonalize them, join a running summary. A
/// schedule of as many steps, or stages and poles, as the shape has now is designed for the summary and validated.
/// It goes into the table of the group's AdaNewton, where the coming step finds it. Entries of origin "user" are left
/// alone. A matrix that is zero or not finite, or a design that fails, is counted and leaves the old
/// coefficients.
///
/// State:    none of its own. The summaries are in the tables, which are saved and loaded with the
///           optimizer, and the parameters' step counts say whose turn it is. So a resumed run goes on
///           exactly as an uninterrupted one.
/// Cost:     per shape and calibration `samples` eigendecompositions of m×m in float64 and one
///           design (about 20 ms on one core); synchronizes with the host then, and with `capturable` in every
///           call, once for each parameter.
/// Off by default: without a Calibrator nothing here runs.
template <class OutlierFilter>
class Calibrator {
 public:
  using Optimizer = OrthogonalizedOptimizer<OutlierFilter, AdaNewton>;  ///< what it calibrates

  /// @param optimizer must outlive the calibrator.
  /// @throws c10::Error if an option is out of range.
  explicit Calibrator(Optimizer& optimizer, CalibratorOptions options = {})
      : optimizer_(optimizer), options_(options) {
    TORCH_CHECK(options.every >= 1 && options.samples >= 1,
                "root_optim::Calibrator: expected every, samples >= 1, got ", options.every, ", ",
                options.samples);
    TORCH_CHECK(options.memory >= 0 && options.memory < 1 && options.gaussian_weight >= 0 &&
                    options.gaussian_weight < 1,
                "root_optim::Calibrator: expected memory and gaussian_weight in [0, 1), got ",
                options.memory, ", ", options.gaussian_weight);
  }

  /// Number of entries that this object has designed.
  int64_t designs() const { return designs_; }
  /// Number of shapes that could not be measured or designed for, and kept their coefficients.
  int64_t failures() const { return failures_; }

  /// Calibrates what is due. Call it at every step, when the gradients are there and before
  /// optimizer.step().
  /// @throws c10::Error for a gradient that does not match its parameter, as optimizer.step() would;
  /// earlier groups may have been calibrated by then. And for a distributed optimizer.
  void step() {
    TORCH_CHECK(!optimizer_.is_distributed(),
                "root_optim::Calibrator: expected an optimizer of one process, got a distributed "
                "one, of whose "
                "momentum this rank has a part: design coefficients before `distribute` "
                "(design_coefficients)");
    at::NoGradGuard no_grad;
    for (size_t g = 0; g < optimizer_.param_groups().size(); ++g) step_group(g);
  }

 private:
  /// A matrix that the coming step orthogonalizes: parameter of the group, and which of its matrices.
  struct Source {
    size_t group, index, matrix;
  };
  using Key = std::pair<std::pair<int64_t, int64_t>, Precision>;

  void step_group(size_t group) {
    const auto& options = detail::group_options<typename Optimizer::Options>(
        optimizer_.param_groups(), group, "Calibrator");
    const auto& parameters = optimizer_.param_groups()[group].params();
    std::map<Key, std::vector<Source>> due;
    int64_t turn = 0;
    for (size_t i = 0; i < parameters.size(); ++i) {
      const ParamState* state = detail::state_of(optimizer_, parameters[i]);
      const int64_t steps = state == nullptr ? 0 : state->counted_steps();
      if (steps == 0 || steps % options_.every != 0) continue;
      if (!detail::is_orthogonalized_next(parameters[i], group, i, options)) continue;
      turn = steps / options_.every - 1;
      const Precision precision = options.orthogonalizer().precision_for(parameters[i]);
      size_t matrix = 0;
      for (const MatrixShape& shape : matrix_shapes(parameters[i].sizes(), options.layout())) {
        const auto sides = std::minmax(shape.rows, shape.cols);
        due[{{sides.first, sides.second}, precision}].push_back({group, i, matrix++});
      }
    }
    if (due.empty()) return;

    CoefficientTable table = options.orthogonalizer().table();
    for (const auto& [key, sources] : due) {
      const auto& [sides, precision] = key;
      const TableEntry* entry = table.find(sides.first, sides.second, precision);
      if (sides.first < 2 || (entry != nullptr && entry->origin == "user")) continue;
      try {
        Spectrum seen = measure(sources, turn);
        if (entry != nullptr && !entry->spectrum.sigma.empty()) {
          seen = mixture({{options_.memory, entry->spectrum}, {1 - options_.memory, seen}});
        }
        table.set(designed(options.orthogonalizer(), sides.first, sides.second, precision,
                           parameters[sources.front().index], condensed(seen)));
        ++designs_;
      } catch (const c10::Error&) {
        ++failures_;
      }
    }
    auto& stored =
        static_cast<typename Optimizer::Options&>(optimizer_.param_groups()[group].options());
    stored.orthogonalizer(AdaNewton(stored.orthogonalizer()).table(std::move(table)));
  }

  /// New coefficients of the kind and the length that the shape has now.
  TableEntry designed(const AdaNewton& policy, int64_t rows, int64_t cols, Precision precision,
                      const at::Tensor& parameter, const Spectrum& seen) const {
    if (policy.iteration_for(rows, cols, parameter) == Iteration::Rational) {
      return calibrated_stages(rows, cols, seen, poles_of(policy.stages(rows, cols)),
                               options_.gaussian_weight);
    }
    return calibrated_entry(rows, cols, seen, policy.steps_for(rows, cols, precision), precision,
                            options_.gaussian_weight, policy.quintics(rows, cols, precision));
  }

  /// The spectra of the matrices whose turn it is.
  Spectrum measure(const std::vector<Source>& sources, int64_t turn) const {
    const auto count = static_cast<int64_t>(sources.size());
    std::vector<std::pair<double, Spectrum>> parts;
    for (int64_t i = 0; i < (std::min)(options_.samples, count); ++i) {
      const Source& source = sources[static_cast<size_t>((turn * options_.samples + i) % count)];
      const at::Tensor body =
          next_matrices(optimizer_, source.group, source.index)[source.matrix].body;
      parts.emplace_back(
          1.0, measured_spectrum(gram_singular_values(body[0]), Normalization::Schatten8));
    }
    return mixture(parts);
  }

  Optimizer& optimizer_;
  CalibratorOptions options_;
  int64_t designs_ = 0;
  int64_t failures_ = 0;
};

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/calibration/detail/calibrator_impl.hpp>
#endif
