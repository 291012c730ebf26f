// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of coefficients/published.hpp.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/coefficients/published.hpp>
#include <root_optim/coefficients/quintic.hpp>
#include <root_optim/core/fields.hpp>
#include <root_optim/core/finite.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE CoefficientSet CoefficientSet::you() {
  return CoefficientSet("you", {{4.0848, -6.8946, 2.9270},
                                {3.9505, -6.3029, 2.6377},
                                {3.7418, -5.5913, 2.3037},
                                {2.8769, -3.1427, 1.2046},
                                {2.8366, -3.0525, 1.2012}});
}

ROOT_OPTIM_INLINE CoefficientSet CoefficientSet::polar_express(double safety) {
  TORCH_CHECK(detail::is_finite(safety) && safety >= 1 && safety <= 2,
              "root_optim::CoefficientSet::polar_express: expected 1 <= safety <= 2, got ", safety);
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

ROOT_OPTIM_INLINE CoefficientSet CoefficientSet::per_step(Quintics triples, std::string name) {
  TORCH_CHECK(!triples.empty(),
              "root_optim::CoefficientSet::per_step: expected at least one triple, got none");
  return CoefficientSet(std::move(name), std::move(triples));
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE CoefficientSet CoefficientSet::named(const std::string& name) {
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

ROOT_OPTIM_INLINE Quintics CoefficientSet::quintics(int64_t rows, int64_t cols,
                                                    int64_t steps) const {
  TORCH_CHECK(steps >= 1, "root_optim::CoefficientSet::schedule: expected steps >= 1, got ", steps);
  const auto count = static_cast<size_t>(steps);
  if (triples_.empty()) return Quintics(count, root_paper_triple(rows, cols));
  Quintics schedule = triples_;
  schedule.resize(count, triples_.back());
  return schedule;
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void CoefficientSet::serialize(Fields& out) const {
  std::vector<double> flat;
  flat.reserve(3 * triples_.size());
  for (const Quintic& p : triples_) flat.insert(flat.end(), {p.a, p.b, p.c});
  out.set("coefficients.name", name_);
  out.set("coefficients.triples", std::move(flat));
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void CoefficientSet::deserialize(const Fields& in) {
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

ROOT_OPTIM_INLINE Quintic CoefficientSet::root_paper_triple(int64_t rows, int64_t cols) {
  const int64_t shorter = rows < cols ? rows : cols, longer = rows < cols ? cols : rows;
  if (shorter == 2048 && longer == 2048) return {3.4916, -4.8224, 2.1095};
  if (shorter == 2048 && longer == 3072) return {3.4509, -4.5790, 1.9325};
  if (shorter == 2048 && longer == 8192) return {2.9794, -3.6674, 1.6207};
  if (shorter == 2048 && longer == 16384) return {3.1943, -3.8221, 1.5322};
  return {3.4445, -4.7750, 2.0315};
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
