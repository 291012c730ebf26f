// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The design of coefficients; nothing that a step needs.
#pragma once

#include <root_optim/coefficients/design/design.hpp>
#include <root_optim/coefficients/design/rational_design.hpp>
#include <root_optim/coefficients/design/shape_model.hpp>
