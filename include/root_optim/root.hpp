// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// ROOT as this library recommends it, and as it was published.
#pragma once

#include <root_optim/filters/soft_threshold.hpp>
#include <root_optim/optimizer/optimizer.hpp>
#include <root_optim/orthogonalizers/ada_newton.hpp>
#include <root_optim/orthogonalizers/newton_schulz.hpp>
#include <root_optim/version.hpp>

#ifdef ROOT_OPTIM_COMPILED
#include <root_optim/optimizer/detail/instances.hpp>
#endif

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// ROOT: an outlier split of the gradient, by rows and columns, a momentum of .85, AdaNewton, and updates balanced
/// over rows and columns.
using Root = OrthogonalizedOptimizer<SoftThreshold, AdaNewton>;
using RootOptions = Root::Options;  ///< of a group of `Root`

/// The type of ROOT as published. Only the options of `root_paper` make it that: RootPaperOptions by
/// itself starts from the split of `Root` and the coefficients of `Muon`.
using RootPaper = OrthogonalizedOptimizer<SoftThreshold, NewtonSchulz>;
using RootPaperOptions = RootPaper::Options;  ///< of a group of `RootPaper`

/// The whole published configuration of ROOT, for reproduction: quantile .90 + 1e-9, the paper's
/// triples per shape (five steps), X / (‖X‖_F + 1e-7), sum momentum .95 with Nesterov, weight decay
/// .1, scale 0.2·√max(m, n). The triple for 2048×2048 is not forward-invariant; it runs all the same,
/// with one warning. The compute dtype is the library's default, whereas the reference computes in the
/// gradient's dtype.
/// Reference: arXiv 2511.20626.
inline RootPaperOptions root_paper(double lr = 1e-3) {
  return RootPaperOptions(lr)
      .filter(SoftThreshold::published())
      .filter_place(FilterPlace::Momentum)
      .orthogonalizer(NewtonSchulz()
                          .coefficients(CoefficientSet::root_paper())
                          .normalization(Normalization::FrobeniusPlus)
                          .allow_unsafe(true));
}

#ifdef ROOT_OPTIM_COMPILED
ROOT_OPTIM_INSTANCES(extern, SoftThreshold, AdaNewton);
ROOT_OPTIM_INSTANCES(extern, SoftThreshold, NewtonSchulz);
#endif

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
