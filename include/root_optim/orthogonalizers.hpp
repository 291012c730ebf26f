// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Orthogonalizers, each usable alone.
#pragma once

#include <root_optim/orthogonalizers/ada_newton.hpp>
#include <root_optim/orthogonalizers/exact_polar.hpp>
#include <root_optim/orthogonalizers/iteration_plan.hpp>
#include <root_optim/orthogonalizers/newton_schulz.hpp>
#include <root_optim/orthogonalizers/rational.hpp>
