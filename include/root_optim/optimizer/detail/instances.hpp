// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What the optimizer of a filter and an orthogonalizer is compiled to, in one list:
// ROOT_OPTIM_INSTANCES(extern, F, O) declares that it is compiled elsewhere, which root.hpp and muon.hpp do
// for root_optim::compiled; src/root_optim.cpp leaves the first argument empty, which compiles it.
#pragma once

#include <torch/nn/module.h>
#include <torch/optim/optimizer.h>

#include <vector>

#include <root_optim/optimizer/optimizer.hpp>
#include <root_optim/optimizer/options.hpp>
#include <root_optim/parameters/routing.hpp>
#include <root_optim/parameters/routing_table.hpp>
#include <root_optim/version.hpp>

#define ROOT_OPTIM_INSTANCES(linkage, F, O)                                                 \
  linkage template class OrthogonalizedOptions<F, O>;                                       \
  linkage template class OrthogonalizedOptimizer<F, O>;                                     \
  linkage template class RoutingTable<OrthogonalizedOptions<F, O>>;                         \
  linkage template RoutingTable<OrthogonalizedOptions<F, O>> route(                         \
      const torch::nn::Module&, const OrthogonalizedOptions<F, O>&, const RoutingOverride&, \
      const RoutingOptions&);                                                               \
  linkage template std::vector<torch::optim::OptimizerParamGroup> param_groups(             \
      const torch::nn::Module&, const OrthogonalizedOptions<F, O>&, const RoutingOverride&, \
      const RoutingOptions&)
