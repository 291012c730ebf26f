// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What a step does, against the exact polar factor.
#pragma once

#include <root_optim/diagnostics/gradient_faults.hpp>
#include <root_optim/diagnostics/next_matrices.hpp>
#include <root_optim/diagnostics/orthogonality.hpp>
#include <root_optim/diagnostics/step_report.hpp>
#include <root_optim/diagnostics/tail_statistics.hpp>
