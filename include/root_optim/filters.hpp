// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Outlier filters.
#pragma once

#include <root_optim/filters/no_filter.hpp>
#include <root_optim/filters/outlier_split.hpp>
#include <root_optim/filters/soft_threshold.hpp>
