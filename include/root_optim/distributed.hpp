// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Optimizers that several processes share, over LibTorch's c10d. Not a part of root_optim.hpp: it needs a
// LibTorch with c10d.
#pragma once

#include <root_optim/distributed/clip_norm.hpp>
#include <root_optim/distributed/distribute.hpp>
#include <root_optim/distributed/filter_gradients.hpp>
#include <root_optim/distributed/gradient_reducer.hpp>
#include <root_optim/distributed/options.hpp>
#include <root_optim/distributed/owner_reducer.hpp>
#include <root_optim/distributed/reducer_options.hpp>
#include <root_optim/distributed/sharded_ada_newton.hpp>
#include <root_optim/distributed/sharded_checkpoint.hpp>
#include <root_optim/distributed/sharded_layout.hpp>
