// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Prints include/root_optim/coefficients/detail/shipped_rationals.hpp: designs the shipped rational plans for the
// summary of real momentum, and says which of them is the fast, the default and the precise one.
//
//   build/release/tools/default_rationals > include/root_optim/coefficients/detail/shipped_rationals.hpp
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/coefficients/design/rational_design.hpp>
#include <root_optim/coefficients/published.hpp>
#include <root_optim/coefficients/spectrum.hpp>

#include "momentum_spectra.hpp"

namespace {

using namespace root_optim;

constexpr char kHead[] = R"(// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The data of coefficients/shipped_rational.hpp: written by tools/default_rationals.cpp, do not edit.
#pragma once

#include <cstddef>

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// A stage of up to three poles.
struct ShippedStage {
  size_t count;  ///< of poles
  double constant, weights[3], poles[3];
};

/// A plan of up to three stages; mean relative errors over the matrices that it was designed for and those held out.
struct ShippedPlan {
  size_t count;  ///< of stages
  double training, held_out;
  ShippedStage stages[3];
};

/// The plans for the longer side over the shorter from `least_ratio` on, and the error of Muon's five quintics.
struct ShippedRationalClass {
  double least_ratio, muon_training, muon_held_out;
  size_t fast, standard, precise;  ///< which of the plans
  ShippedPlan plans[7];
};

// clang-format off

inline constexpr ShippedRationalClass shipped_rational_classes[] = {
)";

constexpr char kTail[] = R"(};

// clang-format on

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
)";

/// Of the longer side over the shorter: the bounds are geometric means of 1, 2, 3, 4 and 8.
struct AspectClass {
  const char* name;
  double least_ratio, end, typical;
};

constexpr AspectClass kClasses[] = {{"1:1", 1, 1.414, 1},
                                    {"1:2", 1.414, 2.449, 2},
                                    {"1:3", 2.449, 3.464, 3},
                                    {"1:4", 3.464, 5.657, 4},
                                    {"1:8", 5.657, 1e30, 8}};

/// Cheapest first.
const std::vector<std::vector<int64_t>> kPlans = {{2},    {3},    {1, 1},   {1, 2},
                                                  {2, 2}, {2, 3}, {1, 2, 2}};

int64_t shorter_side(const tools::MomentumSpectrum& s) { return (std::min)(s.rows, s.cols); }

std::vector<double> singular_values(const tools::MomentumSpectrum& s) {
  return s.singular_values(shorter_side(s));
}

/// The rows of a class; for one that has none, those of the classes beside it.
std::vector<tools::MomentumSpectrum> rows_of(const std::vector<tools::MomentumSpectrum>& all,
                                             const AspectClass& shapes) {
  std::vector<tools::MomentumSpectrum> rows;
  double least = shapes.least_ratio, end = shapes.end;
  for (int widened = 0; rows.empty() && widened < 4; ++widened) {
    for (const tools::MomentumSpectrum& s : all) {
      const double ratio =
          static_cast<double>((std::max)(s.rows, s.cols)) / static_cast<double>(shorter_side(s));
      if (shorter_side(s) >= 16 && ratio >= least && ratio < end) rows.push_back(s);
    }
    least /= 1.5;
    end *= 1.5;
  }
  return rows;
}

Spectrum normalized(const tools::MomentumSpectrum& s) {
  return schatten4_spectrum(measured_spectrum(singular_values(s), Normalization::FrobeniusFloor),
                            static_cast<double>(shorter_side(s)));
}

double mean_error(const RationalStages& plan, const std::vector<Spectrum>& spectra) {
  double sum = 0;
  for (const Spectrum& s : spectra) sum += std::sqrt(expected_mse(plan, s));
  return sum / static_cast<double>(spectra.size());
}

double muon_error(const std::vector<tools::MomentumSpectrum>& rows) {
  const Quintics muon = CoefficientSet::jordan().quintics(1, 1, 5);
  double sum = 0;
  for (const tools::MomentumSpectrum& s : rows) {
    sum += std::sqrt(
        expected_mse(muon, measured_spectrum(singular_values(s), Normalization::FrobeniusFloor)));
  }
  return sum / static_cast<double>(rows.size());
}

RationalDesign design_plan(const std::vector<std::pair<double, Spectrum>>& parts,
                           const std::vector<int64_t>& poles) {
  RationalDesignOptions options;
  options.poles = poles;
  return design_rational(parts, options);
}

std::string name_of(const std::vector<int64_t>& poles) {
  std::string name;
  for (const int64_t count : poles) name += (name.empty() ? "" : "+") + std::to_string(count);
  return name;
}

void print_numbers(const std::vector<double>& values) {
  for (size_t i = 0; i < 3; ++i) {
    std::printf("%s%.9g", i == 0 ? "{" : ", ", i < values.size() ? values[i] : 0.0);
  }
  std::printf("}");
}

void print_class(const std::vector<tools::MomentumSpectrum>& all, const AspectClass& shapes) {
  const auto training = rows_of(tools::part_of(all, false), shapes);
  const auto held_out = rows_of(tools::part_of(all, true), shapes);
  std::vector<Spectrum> of_training, of_held_out;
  for (const auto& s : training) of_training.push_back(normalized(s));
  for (const auto& s : held_out) of_held_out.push_back(normalized(s));
  // One part in five Gaussian, as in ShapeModel.
  std::vector<std::pair<double, Spectrum>> parts{
      {0.2, schatten4_spectrum(gaussian_spectrum(512, static_cast<int64_t>(512 * shapes.typical),
                                                 Normalization::FrobeniusFloor),
                               512)}};
  for (const Spectrum& s : of_training) {
    parts.push_back({0.8 / static_cast<double>(of_training.size()), condensed(s)});
  }
  const double muon = muon_error(training), muon_held_out = muon_error(held_out);

  std::vector<RationalDesign> designs;
  std::vector<double> errors, held_out_errors;
  for (const auto& poles : kPlans) {
    designs.push_back(design_plan(parts, poles));
    errors.push_back(mean_error(designs.back().schedule, of_training));
    held_out_errors.push_back(mean_error(designs.back().schedule, of_held_out));
  }
  // Muon on a Gaussian matrix: what no captured matrix is, but users' may be.
  const double muon_gaussian =
      std::sqrt(expected_mse(CoefficientSet::jordan().quintics(1, 1, 5),
                             gaussian_spectrum(512, static_cast<int64_t>(512 * shapes.typical),
                                               Normalization::FrobeniusFloor)));
  const auto cheapest = [&](double share, bool gaussian) {  // also held out
    size_t i = 0;
    while (i + 1 < errors.size() &&
           (errors[i] > share * muon || held_out_errors[i] > share * muon_held_out ||
            (gaussian && std::sqrt(expected_mse(designs[i].schedule, parts.front().second)) >
                             share * muon_gaussian))) {
      ++i;
    }
    return i;
  };
  const size_t fast = cheapest(1, false), standard = cheapest(0.75, true);
  const size_t precise =
      static_cast<size_t>(std::min_element(errors.begin(), errors.end()) - errors.begin());

  std::printf("    // %s: %zu matrices, %zu held out\n", shapes.name, training.size(),
              held_out.size());
  std::printf("    {%.9g, %.4f, %.4f, %zu, %zu, %zu, {\n", shapes.least_ratio, muon, muon_held_out,
              fast, standard, precise);
  for (size_t i = 0; i < kPlans.size(); ++i) {
    const RationalDesign& design = designs[i];
    const RationalStages& stages = design.schedule;
    std::printf(
        "      // %s: gain %.4g, of the last stage %.4g, largest output %.4f; error "
        "%.3f of Muon's, held out %.3f\n",
        name_of(kPlans[i]).c_str(), design.report.gain, gain(stages.back()),
        design.report.max_output, errors[i] / muon, held_out_errors[i] / muon_held_out);
    std::printf("      {%zu, %.4f, %.4f, {\n", stages.size(), errors[i], held_out_errors[i]);
    for (const RationalStage& f : stages) {
      std::printf("        {%zu, %.9g, ", f.poles.size(), f.constant);
      print_numbers(f.weights);
      std::printf(", ");
      print_numbers(f.poles);
      std::printf("},\n");
    }
    std::printf("      }},\n");
  }
  std::printf("    }},\n");
}

}  // namespace

int main() {
  const auto all = tools::read_momentum_spectra(MOMENTUM_SPECTRA);
  std::fputs(kHead, stdout);
  for (const AspectClass& shapes : kClasses) print_class(all, shapes);
  std::fputs(kTail, stdout);
}
