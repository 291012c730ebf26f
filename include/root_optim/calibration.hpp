// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Coefficients that follow the training.
#pragma once

#include <root_optim/calibration/calibrator.hpp>
#include <root_optim/calibration/design_coefficients.hpp>
