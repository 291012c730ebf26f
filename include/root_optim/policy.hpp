// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What a policy of one's own needs: the contract and `Fields`.
#pragma once

#include <root_optim/core/fields.hpp>
#include <root_optim/core/policy.hpp>
