// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Everything. Declares nothing itself; every header below also compiles alone.
#pragma once

#include <root_optim/ada_newton.hpp>
#include <root_optim/adamw.hpp>
#include <root_optim/calibrator.hpp>
#include <root_optim/checkpoint.hpp>
#include <root_optim/coefficient_design.hpp>
#include <root_optim/coefficient_table.hpp>
#include <root_optim/coefficient_validation.hpp>
#include <root_optim/coefficients.hpp>
#include <root_optim/default_coefficients.hpp>
#include <root_optim/diagnostics.hpp>
#include <root_optim/exact_polar.hpp>
#include <root_optim/iteration_plan.hpp>
#include <root_optim/layout.hpp>
#include <root_optim/lr_scheduler.hpp>
#include <root_optim/momentum.hpp>
#include <root_optim/newton_schulz.hpp>
#include <root_optim/optimizer.hpp>
#include <root_optim/options.hpp>
#include <root_optim/param_groups.hpp>
#include <root_optim/policy.hpp>
#include <root_optim/quintic.hpp>
#include <root_optim/routing.hpp>
#include <root_optim/shape_model.hpp>
#include <root_optim/soft_threshold.hpp>
#include <root_optim/spectrum.hpp>
#include <root_optim/suitability.hpp>
#include <root_optim/update.hpp>
#include <root_optim/version.hpp>
