// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Between mixed_headers.cpp, which uses the headers alone, and mixed_compiled.cpp, which is compiled against
// root_optim::compiled.
#pragma once

#include <root_optim/root.hpp>

double loss_of_compiled();
void step_in_compiled(root_optim::Root& optimizer);  // another function in each kind of file
