// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Everything that needs LibTorch alone. Declares nothing itself; every header below also
// compiles alone.
#pragma once

#include <root_optim/calibration.hpp>
#include <root_optim/checkpoint.hpp>
#include <root_optim/coefficients.hpp>
#include <root_optim/coefficients/design.hpp>
#include <root_optim/diagnostics.hpp>
#include <root_optim/filters.hpp>
#include <root_optim/muon.hpp>
#include <root_optim/optimizer.hpp>
#include <root_optim/orthogonalizers.hpp>
#include <root_optim/parameters.hpp>
#include <root_optim/policy.hpp>
#include <root_optim/root.hpp>
#include <root_optim/schedules.hpp>
#include <root_optim/stages.hpp>
#include <root_optim/version.hpp>
