// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// More ranks than one optimizer is shared by: gradients of all of them, an optimizer a subgroup.
#include "model.hpp"
#include "ranks.hpp"

#include <root_optim/distributed.hpp>

#include <cstddef>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace {

TEST_CASE(
    "distribute: subgroups that share all ranks' gradients stay equal, without a word between "
    "them") {
  auto store = c10::make_intrusive<c10d::HashStore>();
  std::mutex mutex;
  std::set<std::string> seen;
  const int size = 4;
  test::on_all_ranks(size, [&](int rank, const test::Group& world) {
    auto own =
        c10::make_intrusive<c10d::PrefixStore>("subgroup " + std::to_string(rank / 2), store);
    const test::Group half = test::make_group(own, rank % 2, 2, std::chrono::seconds(20));
    const auto options = root_optim::RootOptions(1e-2).weight_decay(.1);

    const test::Model model, reference;
    root_optim::Root shared(model.groups(options));
    root_optim::Root alone(reference.groups(options));
    root_optim::distribute(shared, half);
    root_optim::GradientReducer reducer(model.all(), world);
    for (int step = 0; step < 3; ++step) {
      model.set_gradients(step * size + rank);
      reducer.reduce();
      const std::vector<at::Tensor> from = model.all(), to = reference.all();
      for (size_t i = 0; i < to.size(); ++i) {
        at::Tensor parameter = to[i];
        parameter.mutable_grad() = from[i].grad().clone();
      }
      shared.step();
      alone.step();
    }
    const std::lock_guard<std::mutex> lock(mutex);
    seen.insert(test::bits_of(model.all()));
    seen.insert(test::bits_of(reference.all()));
  });
  CHECK(seen.size() == 1);
}

}  // namespace
