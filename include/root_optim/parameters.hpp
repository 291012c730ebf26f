// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Which parameter follows which rule, and how it becomes matrices.
#pragma once

#include <root_optim/parameters/layout.hpp>
#include <root_optim/parameters/name_table.hpp>
#include <root_optim/parameters/param_state.hpp>
#include <root_optim/parameters/routing.hpp>
#include <root_optim/parameters/routing_table.hpp>
#include <root_optim/parameters/rule.hpp>
#include <root_optim/parameters/suitability.hpp>
