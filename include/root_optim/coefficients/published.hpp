// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Named coefficient sets of the Newton–Schulz iteration: the published ones and a user's own. Ours
// are in coefficients/shipped.hpp (shipped) and coefficients/design/design.hpp (the generator), the check
// before use in coefficients/validation.hpp.
// ROOT, arXiv 2511.20626, "AdaNewton".
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include <root_optim/coefficients/quintic.hpp>
#include <root_optim/core/fields.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// A named list of triples, one per step; beyond the list the last triple repeats. `root_paper`
/// alone depends on the shape. A value type; nothing here is validated before use.
class CoefficientSet {
 public:
  /// (3.4445, −4.7750, 2.0315) at every step. K. Jordan, Muon, 2024; torch.optim.Muon.
  static CoefficientSet jordan() { return CoefficientSet("jordan", {{3.4445, -4.7750, 2.0315}}); }

  /// Five triples by J. You, 2025, as circulated with Muon.
  static CoefficientSet you();

  /// Polar Express (Amsel et al., arXiv 2505.16932, Algorithm 1): minimax composition on [1e-3, 1].
  ///
  /// As published, every entry but the repeated last (1.875, −1.25, .375) is used as p(x/safety):
  /// unscaled, the first step diverges for σ > 1.0001. 1.01 leaves the margin of float32; bfloat16
  /// needs about 1.03.
  /// @throws c10::Error unless 1 <= safety <= 2.
  static CoefficientSet polar_express(double safety = 1.01);

  /// (1.5, −0.5, 0) at every step: the classic iteration of Björck and Bowie, 1971.
  static CoefficientSet cubic() { return CoefficientSet("cubic", {{1.5, -0.5, 0}}); }

  /// The triples published with ROOT by (min, max) of the shape; jordan for any other shape.
  ///
  /// Kept for reproduction. The one for 2048x2048 is not forward-invariant and fails validation:
  /// its local maximum p(0.5591) = 1.22459 lies above its repelling fixed point 1.22355.
  static CoefficientSet root_paper() { return CoefficientSet("root_paper", {}); }

  /// One triple at every step.
  static CoefficientSet repeated(Quintic triple, std::string name = "custom") {
    return CoefficientSet(std::move(name), {triple});
  }

  /// One triple per step; the last repeats beyond the list.
  /// @throws c10::Error if there is none.
  static CoefficientSet per_step(Quintics triples, std::string name = "custom");

  /// A published set by its name: jordan, you, polar_express, cubic or root_paper.
  /// @throws c10::Error for another name.
  static CoefficientSet named(const std::string& name);

  /// "jordan" and so on, or the name given to a set of one's own.
  const std::string& name() const { return name_; }

  /// The triples for `steps` steps on a rows x cols matrix.
  /// @throws c10::Error unless steps >= 1.
  Quintics quintics(int64_t rows, int64_t cols, int64_t steps) const;

  void serialize(Fields& out) const;

  /// @throws c10::Error if the fields are missing or not a list of triples.
  void deserialize(const Fields& in);

  friend bool operator==(const CoefficientSet& l, const CoefficientSet& r) {
    return l.name_ == r.name_ && l.triples_ == r.triples_;
  }
  friend bool operator!=(const CoefficientSet& l, const CoefficientSet& r) { return !(l == r); }

 private:
  CoefficientSet(std::string name, Quintics triples)
      : name_(std::move(name)), triples_(std::move(triples)) {}

  static Quintic root_paper_triple(int64_t rows, int64_t cols);

  std::string name_;
  Quintics triples_;  ///< empty for root_paper, which has none of its own
};

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/coefficients/detail/published_impl.hpp>
#endif
