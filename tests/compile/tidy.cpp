// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What clang-tidy reads: all headers, with the templates of the named optimizers instantiated. Not
// part of any program; scripts/test-long.sh tidy.
#include <root_optim/root_optim.hpp>

template class root_optim::OrthogonalizedOptimizer<root_optim::SoftThreshold,
                                                   root_optim::AdaNewton>;
template class root_optim::OrthogonalizedOptimizer<root_optim::NoFilter, root_optim::NewtonSchulz>;
template class root_optim::OrthogonalizedOptimizer<root_optim::SoftThreshold,
                                                   root_optim::NewtonSchulz>;
template class root_optim::Calibrator<root_optim::SoftThreshold>;
