// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// ParamState: a clone has memory of its own.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <memory>
#include <vector>

#include "support/training.hpp"

using namespace root_optim;

TEST_CASE("a clone of a parameter's state shares no tensor with it", "[param_state]") {
  const std::vector<at::Tensor> parameters{test::parameter({16, 24}, 1), test::parameter({24}, 2),
                                           test::parameter({24}, 3, at::kBFloat16)};
  Root root(parameters, RootOptions(0.05).update_beta(0.5).master_weights(true));
  test::train(root, parameters, 0, 2);
  for (const at::Tensor& parameter : parameters) {
    torch::optim::OptimizerParamState& base =
        *root.state().at(root_optim::detail::state_key(parameter));
    auto& state = static_cast<ParamState&>(base);
    const std::unique_ptr<torch::optim::OptimizerParamState> copy = base.clone();
    auto& clone = static_cast<ParamState&>(*copy);
    CHECK(clone == state);
    CHECK(clone.step() == 2);
    int defined = 0;
    for (const ParamState::Slot& slot : ParamState::slot_list()) {
      const at::Tensor &theirs = state.*slot.tensor, &own = clone.*slot.tensor;
      REQUIRE(theirs.defined() == own.defined());
      if (!own.defined()) continue;
      ++defined;
      INFO(slot.name);
      CHECK(own.data_ptr() != theirs.data_ptr());
      own.add_(1);
      CHECK_FALSE(own.equal(theirs));
    }
    CHECK(defined >= 4);
    CHECK_FALSE(clone == state);
  }
  CHECK(static_cast<ParamState&>(*ParamState().clone()) == ParamState());
}
