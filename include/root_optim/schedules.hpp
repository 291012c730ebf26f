// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Learning-rate schedules.
#pragma once

#include <root_optim/schedules/lr_scheduler.hpp>
