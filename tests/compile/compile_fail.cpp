// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// One mistake per CASE_...: each must be refused, in the words that CMakeLists.txt expects.
// CASE_nothing has no mistake and compiles: the cases fail for their mistake and nothing else.
#include "support/catch_torch.hpp"

#include <root_optim/optimizer/options.hpp>
#include <root_optim/orthogonalizers/ada_newton.hpp>
#if defined(CASE_nothing) || defined(CASE_options_of_another_optimizer)
#include <root_optim/muon.hpp>
#include <root_optim/root.hpp>
#endif

struct Complete {
  static constexpr const char* name = "complete";
  double factor = 1.0;
  void validate() const {}
  void serialize(root_optim::Fields& out) const { out.set("factor", factor); }
  void deserialize(const root_optim::Fields& in) { factor = in.get<double>("factor"); }
  at::Tensor operator()(const at::Tensor& batch) const { return batch.mul(factor); }
};

#if defined(CASE_policy_that_cannot_be_copied)
struct Policy : Complete {
  Policy() = default;
  Policy(const Policy&) = delete;
};
#elif defined(CASE_policy_whose_assignment_may_throw)
struct Policy : Complete {
  Policy() = default;
  Policy(const Policy&) = default;
  Policy& operator=(const Policy& other) {
    factor = other.factor;
    return *this;
  }
};
#elif defined(CASE_policy_without_defaults)
struct Policy : Complete {
  explicit Policy(double f) { factor = f; }
};
#elif defined(CASE_policy_without_name)
struct Policy {
  at::Tensor operator()(const at::Tensor& batch) const { return batch; }
};
#elif defined(CASE_policy_that_cannot_be_called)
struct Policy {
  static constexpr const char* name = "policy";
};
#elif defined(CASE_policy_with_a_call_that_is_not_const)
struct Policy {
  static constexpr const char* name = "policy";
  at::Tensor operator()(const at::Tensor& batch) { return batch; }
};
#elif defined(CASE_policy_with_members_without_validate)
struct Policy {
  static constexpr const char* name = "policy";
  double factor = 1.0;
  void serialize(root_optim::Fields& out) const { out.set("factor", factor); }
  void deserialize(const root_optim::Fields& in) { factor = in.get<double>("factor"); }
  at::Tensor operator()(const at::Tensor& batch) const { return batch; }
};
#elif defined(CASE_policy_with_members_without_serialize)
struct Policy {
  static constexpr const char* name = "policy";
  double factor = 1.0;
  void validate() const {}
  at::Tensor operator()(const at::Tensor& batch) const { return batch; }
};
#else
using Policy = Complete;
#endif

using Options = root_optim::OrthogonalizedOptions<Policy, root_optim::AdaNewton>;
static_assert(sizeof(Options) > 0);

#if defined(CASE_nothing)
void construct(const std::vector<at::Tensor>& parameters);
void construct(const std::vector<at::Tensor>& parameters) {
  root_optim::Root optimizer(parameters, root_optim::RootOptions(1e-3));
}
#elif defined(CASE_options_of_another_optimizer)
void construct(const std::vector<at::Tensor>& parameters) {
  root_optim::Root optimizer(parameters, root_optim::MuonOptions(1e-3));
}
#endif

#if defined(CASE_an_error)
#error noticed
#endif
