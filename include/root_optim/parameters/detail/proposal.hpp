// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What the type of its module, its name and its shape propose for a parameter.
#pragma once

#include <string>

#include <root_optim/parameters/detail/registration.hpp>
#include <root_optim/parameters/layout.hpp>  // MatrixLayout
#include <root_optim/parameters/rule.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// What a proposal rests on. What is known better decides between the names of a tied tensor.
enum class Basis {
  Unknown,  ///< on the shape alone, or on `RoutingOptions::unknown`
  Matrix,   ///< type or name allow orthogonalization, and so does the shape
  Shape,    ///< type or name allow orthogonalization, the shape does not
  Kind      ///< type or name call for AdamW
};

/// A rule, a layout and a reason for one registration.
struct Proposal {
  Rule rule;
  MatrixLayout layout;
  std::string reason;
  Basis basis;
  std::string kind;
};

/// AdamW, for the reason `kind` and `rest`.
Proposal to_adamw(const std::string& kind, Basis basis = Basis::Kind, const std::string& rest = "");

/// A proposal for a parameter that is no output head.
/// @param unknown the rule where neither type nor name says anything, as `RoutingOptions::unknown`
Proposal propose(const Registration& at, Rule unknown);

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/parameters/detail/proposal_impl.hpp>
#endif
