// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The library's settings in the terms of the reference.
#pragma once

#include "catch_torch.hpp"

#include <root_optim/coefficients/rational.hpp>
#include <root_optim/orthogonalizers/newton_schulz.hpp>

#include <vector>

#include "reference.hpp"

namespace test {

inline std::vector<reference::Triple> triples(const root_optim::Quintics& schedule) {
  std::vector<reference::Triple> result;
  for (const root_optim::Quintic& p : schedule) result.push_back({p.a, p.b, p.c});
  return result;
}

inline std::vector<reference::Stage> stages(const root_optim::RationalStages& schedule) {
  std::vector<reference::Stage> result;
  for (const root_optim::RationalStage& f : schedule) {
    result.push_back({f.constant, f.weights, f.poles});
  }
  return result;
}

inline reference::Start start(root_optim::Normalization normalization) {
  switch (normalization) {
    case root_optim::Normalization::FrobeniusFloor:
      return reference::Start::FrobeniusFloor;
    case root_optim::Normalization::FrobeniusPlus:
      return reference::Start::FrobeniusPlus;
    case root_optim::Normalization::Schatten8:
      return reference::Start::Schatten8;
  }
  throw std::logic_error("unreachable");
}

inline root_optim::OrthogonalizeOptions normalized_by(root_optim::Normalization normalization) {
  root_optim::OrthogonalizeOptions options;
  options.normalization = normalization;
  return options;
}

}  // namespace test
