// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Checkpoints: files, streams and what they contain.
#pragma once

#include <root_optim/checkpoint/checkpoint.hpp>
