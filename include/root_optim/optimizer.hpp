// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The optimizer and its options.
#pragma once

#include <root_optim/optimizer/optimizer.hpp>
#include <root_optim/optimizer/options.hpp>
