// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Coefficients: sets, spectra, their check, tables per shape. How they are designed: coefficients/design.hpp.
#pragma once

#include <root_optim/coefficients/form.hpp>
#include <root_optim/coefficients/normalization.hpp>
#include <root_optim/coefficients/precision.hpp>
#include <root_optim/coefficients/published.hpp>
#include <root_optim/coefficients/quintic.hpp>
#include <root_optim/coefficients/rational.hpp>
#include <root_optim/coefficients/rational_validation.hpp>
#include <root_optim/coefficients/shipped.hpp>
#include <root_optim/coefficients/shipped_rational.hpp>
#include <root_optim/coefficients/spectrum.hpp>
#include <root_optim/coefficients/table.hpp>
#include <root_optim/coefficients/validation.hpp>
