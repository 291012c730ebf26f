// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Muon, the named optimizer.
#pragma once

#include <root_optim/filters/no_filter.hpp>
#include <root_optim/optimizer/optimizer.hpp>
#include <root_optim/orthogonalizers/newton_schulz.hpp>
#include <root_optim/version.hpp>

#ifdef ROOT_OPTIM_COMPILED
#include <root_optim/optimizer/detail/instances.hpp>
#endif

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// Muon, with the defaults of torch.optim.Muon (EMA momentum, scale Original), and AdamW for what
/// is not a matrix.
using Muon = OrthogonalizedOptimizer<NoFilter, NewtonSchulz>;
using MuonOptions = Muon::Options;  ///< of a group of `Muon`

#ifdef ROOT_OPTIM_COMPILED
ROOT_OPTIM_INSTANCES(extern, NoFilter, NewtonSchulz);
#endif

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
