// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Preprocessed only: see macro_leaks.awk.
#include <root_optim/root_optim.hpp>
