// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of coefficients/shipped.hpp.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstdint>
#include <vector>

#include <root_optim/coefficients/detail/shipped_triples.hpp>
#include <root_optim/coefficients/precision.hpp>
#include <root_optim/coefficients/quintic.hpp>
#include <root_optim/coefficients/shipped.hpp>
#include <root_optim/coefficients/spectrum.hpp>  // HeavyTail
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

ROOT_OPTIM_INLINE Quintics shipped_quintics(int64_t steps, Precision precision) {
  TORCH_CHECK(steps >= min_default_steps && steps <= max_default_steps,
              "root_optim::shipped_quintics: expected ", min_default_steps,
              " <= steps <= ", max_default_steps, ", got ", steps);
  const Quintic* const all =
      precision == Precision::BFloat16 ? detail::shipped_bfloat16 : detail::shipped_float32;
  const Quintic* const first =
      all + (steps * (steps - 1) / 2 - 3);  // behind 3 + 4 + … + (steps − 1)
  return {first, first + steps};
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE std::vector<HeavyTail> momentum_families() {
  std::vector<HeavyTail> families;
  for (const auto& [median, condition] : detail::shipped_families) {
    families.push_back({median, condition});
  }
  return families;
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
