// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What a step does, against the exact polar factor.
#pragma once

#include <root_optim/diagnostics/diagnostics.hpp>
#include <root_optim/diagnostics/next_matrices.hpp>
