// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The contract of a policy: what an outlier filter or an orthogonalizer must offer to be used by
// OrthogonalizedOptimizer. The library's own are in soft_threshold.hpp, newton_schulz.hpp,
// ada_newton.hpp and exact_polar.hpp; examples/custom_policy.cpp shows a user's.
//
// A policy is a copyable, default-constructible value type whose moves do not throw, with
//
//     static constexpr const char* name;                 stable: checkpoints record it
//     at::Tensor operator()(const at::Tensor& x) const;  a batch [k, m, n] in float32 or float64 in,
//                                                        one of the same shape out; must not write x
//
// and, unless it has no members,
//
//     void validate() const;                throws if a setting is out of range
//     void serialize(Fields& out) const;    stores its settings by name …
//     void deserialize(const Fields& in);   … and takes them back
//
// Optional:
//
//     at::Tensor threshold(const at::Tensor& x) const;  filters: ε of each matrix, [k, 1, 1], or of
//                                                       each entry; step_report shows its mean
//     at::Tensor operator()(const at::Tensor& x,        the same with what a step offers: memory for
//                           Scratch scratch) const;     temporaries and, if it says so, x's own;
//                                                       must keep neither x nor the result
//     static constexpr bool capturable = false;         it waits for the device: no CUDA graph may
//                                                       contain it (option `capturable`)
//     static constexpr bool collective = true;          it sees a part of each matrix, and ranks call it
//                                                       together; then it also has the members that
//                                                       distributed/sharded_ada_newton.hpp has for steps
//     void keep(const P& own);                          after deserialize: takes over from the policy in
//                                                       the code what no checkpoint can hold
//     void validate_for(int64_t rows, int64_t cols,     throws if it cannot treat such a matrix of
//                       const at::Tensor& parameter)    the parameter; asked before a step
//                       const;                          changes anything
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include <root_optim/core/fields.hpp>
#include <root_optim/core/scratch.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

namespace detail {

template <class P, class = void>
struct has_name : std::false_type {};
template <class P>
struct has_name<P, std::enable_if_t<std::is_convertible_v<decltype(P::name), const char*>>>
    : std::true_type {};

template <class P, class = void>
struct has_validate : std::false_type {};
template <class P>
struct has_validate<P, std::void_t<decltype(std::declval<const P&>().validate())>>
    : std::true_type {};

template <class P, class = void>
struct has_serialize : std::false_type {};
template <class P>
struct has_serialize<
    P, std::void_t<decltype(std::declval<const P&>().serialize(std::declval<Fields&>())),
                   decltype(std::declval<P&>().deserialize(std::declval<const Fields&>()))>>
    : std::true_type {};

template <class P, class = void>
struct has_validate_for : std::false_type {};
template <class P>
struct has_validate_for<P, std::void_t<decltype(std::declval<const P&>().validate_for(
                               int64_t{}, int64_t{}, std::declval<const at::Tensor&>()))>>
    : std::true_type {};

template <class P>
inline constexpr bool takes_scratch =
    std::is_invocable_r_v<at::Tensor, const P&, const at::Tensor&, Scratch>;

template <class P, class = void>
struct has_threshold : std::false_type {};
template <class P>
struct has_threshold<
    P, std::void_t<decltype(std::declval<const P&>().threshold(std::declval<const at::Tensor&>()))>>
    : std::true_type {};

template <class P, class = void>
struct waits : std::false_type {};
template <class P>
struct waits<P, std::enable_if_t<!P::capturable>> : std::true_type {};

template <class P, class = void>
struct is_collective : std::false_type {};
template <class P>
struct is_collective<P, std::enable_if_t<P::collective>> : std::true_type {};

template <class P, class = void>
struct has_keep : std::false_type {};
template <class P>
struct has_keep<P, std::void_t<decltype(std::declval<P&>().keep(std::declval<const P&>()))>>
    : std::true_type {};

/// Whether a CUDA graph may contain a policy's call: unless it says that it waits for the device.
template <class P>
constexpr bool is_capturable() {
  return !waits<P>::value;
}

/// Says in words what a policy lacks. `const at::Tensor& -> at::Tensor` covers filters and
/// orthogonalizers alike: a batch of matrices [k, m, n] in, one of the same shape out.
template <class P>
constexpr bool check_policy() {
  static_assert(std::is_copy_constructible_v<P> && std::is_copy_assignable_v<P>,
                "a root_optim policy must be a copyable value type: options hold it by value");
  static_assert(std::is_nothrow_move_assignable_v<P>,
                "a root_optim policy must be move-assignable without exceptions (noexcept): a "
                "checkpoint is taken over as a whole or not at all");
  static_assert(std::is_default_constructible_v<P>,
                "a root_optim policy must be default-constructible: options start from its "
                "defaults");
  static_assert(has_name<P>::value,
                "a root_optim policy must have `static constexpr const char* name`: checkpoints "
                "record which policy wrote them");
  static_assert(std::is_invocable_r_v<at::Tensor, const P&, const at::Tensor&>,
                "a root_optim policy must be callable as `at::Tensor operator()(const at::Tensor& "
                "batch) const`: [k, m, n] in, [k, m, n] out, without writing its input");
  static_assert(std::is_empty_v<P> || has_validate<P>::value,
                "a root_optim policy with members must have `void validate() const`");
  static_assert(std::is_empty_v<P> || has_serialize<P>::value,
                "a root_optim policy with members must have `void serialize(Fields&) const` and "
                "`void deserialize(const Fields&)`: checkpoints keep its settings");
  return true;
}

template <class P>
void validate_policy(const P& policy) {
  if constexpr (has_validate<P>::value) policy.validate();
}

template <class P>
void validate_policy_for(const P& policy, int64_t rows, int64_t cols, const at::Tensor& parameter) {
  if constexpr (has_validate_for<P>::value) policy.validate_for(rows, cols, parameter);
}

template <class P>
ROOT_OPTIM_COLD Fields policy_fields(const P& policy) {
  Fields fields;
  if constexpr (has_serialize<P>::value) policy.serialize(fields);
  return fields;
}

template <class P>
ROOT_OPTIM_COLD P policy_from_fields(const Fields& fields) {
  P policy{};
  if constexpr (has_serialize<P>::value) policy.deserialize(fields);
  validate_policy(policy);
  return policy;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
