// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Catch2 2's main(). Catch2 3 brings a compiled one.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
