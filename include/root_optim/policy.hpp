// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What a user's own policy needs: the contract (core/policy.hpp), `Fields` and `Scratch`.
#pragma once

#include <root_optim/core/fields.hpp>
#include <root_optim/core/policy.hpp>
