// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Named coefficient sets of the Newton–Schulz iteration: the published ones and a user's own. Ours
// are in coefficients/shipped.hpp (shipped) and coefficients/design/design.hpp (the generator), the check
// before use in coefficients/validation.hpp; this header brings in what is needed to run them.
// ROOT, arXiv 2511.20626, "AdaNewton".
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/coefficients/quintic.hpp>
#include <root_optim/coefficients/shipped.hpp>
#include <root_optim/coefficients/validation.hpp>
#include <root_optim/core/finite.hpp>
#include <root_optim/core/policy.hpp>  // Fields
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
  static CoefficientSet you() {
    return CoefficientSet("you", {{4.0848, -6.8946, 2.9270},
                                  {3.9505, -6.3029, 2.6377},
                                  {3.7418, -5.5913, 2.3037},
                                  {2.8769, -3.1427, 1.2046},
                                  {2.8366, -3.0525, 1.2012}});
  }

  /// Polar Express (Amsel et al., arXiv 2505.16932, Algorithm 1): minimax composition on [1e-3, 1].
  ///
  /// As published, every entry but the repeated last (1.875, −1.25, .375) is used as p(x/safety):
  /// unscaled, the first step diverges for σ > 1.0001. 1.01 leaves the margin of float32; bfloat16
  /// needs about 1.03.
  /// @throws c10::Error unless 1 <= safety <= 2.
  static CoefficientSet polar_express(double safety = 1.01) {
    TORCH_CHECK(detail::is_finite(safety) && safety >= 1 && safety <= 2,
                "root_optim::CoefficientSet::polar_express: expected 1 <= safety <= 2, got ",
                safety);
    Quintics triples = {{8.28721201814563, -23.595886519098837, 17.300387312530933},
                        {4.107059111542203, -2.9478499167379106, 0.5448431082926601},
                        {3.9486908534822946, -2.908902115962949, 0.5518191394370137},
                        {3.3184196573706015, -2.488488024314874, 0.51004894012372},
                        {2.300652019954817, -1.6689039845747493, 0.4188073119525673},
                        {1.891301407787398, -1.2679958271945868, 0.37680408948524835},
                        {1.8750014808534479, -1.2500016453999487, 0.3750001645474248}};
    const double s3 = safety * safety * safety;
    for (Quintic& p : triples) p = {p.a / safety, p.b / s3, p.c / (s3 * safety * safety)};
    triples.push_back({1.875, -1.25, 0.375});
    return CoefficientSet("polar_express", std::move(triples));
  }

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
  static CoefficientSet per_step(Quintics triples, std::string name = "custom") {
    TORCH_CHECK(!triples.empty(),
                "root_optim::CoefficientSet::per_step: expected at least one triple, got none");
    return CoefficientSet(std::move(name), std::move(triples));
  }

  /// A published set by its name: jordan, you, polar_express, cubic or root_paper.
  /// @throws c10::Error for another name.
  static CoefficientSet named(const std::string& name) {
    if (name == "jordan") return jordan();
    if (name == "you") return you();
    if (name == "polar_express") return polar_express();
    if (name == "cubic") return cubic();
    TORCH_CHECK(name == "root_paper",
                "root_optim::CoefficientSet::named: expected jordan, you, polar_express, cubic or "
                "root_paper, got '",
                name, "'");
    return root_paper();
  }

  /// "jordan" and so on, or the name given to a set of one's own.
  const std::string& name() const { return name_; }

  /// The triples for `steps` steps on a rows x cols matrix.
  /// @throws c10::Error unless steps >= 1.
  Quintics quintics(int64_t rows, int64_t cols, int64_t steps) const {
    TORCH_CHECK(steps >= 1, "root_optim::CoefficientSet::schedule: expected steps >= 1, got ",
                steps);
    const auto count = static_cast<size_t>(steps);
    if (triples_.empty()) return Quintics(count, root_paper_triple(rows, cols));
    Quintics schedule = triples_;
    schedule.resize(count, triples_.back());
    return schedule;
  }

  void serialize(Fields& out) const {
    std::vector<double> flat;
    flat.reserve(3 * triples_.size());
    for (const Quintic& p : triples_) flat.insert(flat.end(), {p.a, p.b, p.c});
    out.set("coefficients.name", name_);
    out.set("coefficients.triples", std::move(flat));
  }

  /// @throws c10::Error if the fields are missing or not a list of triples.
  void deserialize(const Fields& in) {
    const auto& name = in.get<std::string>("coefficients.name");
    const auto& flat = in.get<std::vector<double>>("coefficients.triples");
    TORCH_CHECK(flat.size() % 3 == 0 && (!flat.empty() || name == "root_paper"),
                "root_optim::CoefficientSet::deserialize: expected a list of triples for '", name,
                "', got ", flat.size(), " numbers");
    Quintics triples;
    for (size_t i = 0; i < flat.size(); i += 3) {
      triples.push_back({flat[i], flat[i + 1], flat[i + 2]});
    }
    name_ = name;
    triples_ = std::move(triples);
  }

  friend bool operator==(const CoefficientSet& l, const CoefficientSet& r) {
    return l.name_ == r.name_ && l.triples_ == r.triples_;
  }
  friend bool operator!=(const CoefficientSet& l, const CoefficientSet& r) { return !(l == r); }

 private:
  CoefficientSet(std::string name, Quintics triples)
      : name_(std::move(name)), triples_(std::move(triples)) {}

  static Quintic root_paper_triple(int64_t rows, int64_t cols) {
    const int64_t shorter = rows < cols ? rows : cols, longer = rows < cols ? cols : rows;
    if (shorter == 2048 && longer == 2048) return {3.4916, -4.8224, 2.1095};
    if (shorter == 2048 && longer == 3072) return {3.4509, -4.5790, 1.9325};
    if (shorter == 2048 && longer == 8192) return {2.9794, -3.6674, 1.6207};
    if (shorter == 2048 && longer == 16384) return {3.1943, -3.8221, 1.5322};
    return {3.4445, -4.7750, 2.0315};
  }

  std::string name_;
  Quintics triples_;  ///< empty for root_paper, which has none of its own
};

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
