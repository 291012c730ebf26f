// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The stages of a step as functions over tensors, but for filters and orthogonalizers.
#pragma once

#include <root_optim/stages/adamw.hpp>
#include <root_optim/stages/lr_scale.hpp>
#include <root_optim/stages/master_weights.hpp>
#include <root_optim/stages/momentum.hpp>
#include <root_optim/stages/norm_gate.hpp>
#include <root_optim/stages/update.hpp>
#include <root_optim/stages/update_balance.hpp>
