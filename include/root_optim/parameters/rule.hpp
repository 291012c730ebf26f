// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The two update rules.
#pragma once

#include <string>

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// Which update rule a parameter follows.
enum class Rule {
  Auto,            ///< by rank and suitability of the shape (suitability.hpp): the default
  Orthogonalized,  ///< filter, momentum, orthogonalizer; an error for rank < 2
  AdamW            ///< the rule of adamw.hpp
};

/// "auto", "orthogonalized" or "adamw".
ROOT_OPTIM_COLD inline std::string to_string(Rule rule) {
  switch (rule) {
    case Rule::Auto:
      return "auto";
    case Rule::Orthogonalized:
      return "orthogonalized";
    case Rule::AdamW:
      return "adamw";
  }
  return "unknown rule";
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
