// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The odd quintic of one Newton–Schulz step and a list of them. Named sets are in coefficients/published.hpp,
// the check before use in coefficients/validation.hpp, the generator in coefficients/design/design.hpp.
#pragma once

#include <ostream>
#include <vector>

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// p(x) = a x + b x³ + c x⁵: what one step X ← aX + (bA + cA²)X, A = XXᵀ, does to a singular value.
struct Quintic {
  double a = 0;  ///< of x
  double b = 0;  ///< of x³
  double c = 0;  ///< of x⁵

  friend bool operator==(const Quintic& l, const Quintic& r) {
    return l.a == r.a && l.b == r.b && l.c == r.c;
  }
  friend bool operator!=(const Quintic& l, const Quintic& r) { return !(l == r); }
  friend std::ostream& operator<<(std::ostream& out, const Quintic& p) {
    return out << '(' << p.a << ", " << p.b << ", " << p.c << ')';
  }
};

/// One triple per step, first step first.
using Quintics = std::vector<Quintic>;

/// p(x).
inline double evaluate(const Quintic& p, double x) {
  const double y = x * x;
  return x * (p.a + y * (p.b + y * p.c));
}

/// What the whole schedule makes of a normalized singular value.
inline double evaluate(const Quintics& schedule, double x) {
  for (const Quintic& p : schedule) x = evaluate(p, x);
  return x;
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
