// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What scripts/test-long.sh needs to know that ThreadSanitizer sees ranks.
#include "model.hpp"
#include "ranks.hpp"

#include <root_optim/root_optim.hpp>

// Two ranks write into the options of one optimizer: it must be reported.
TEST_CASE("a race on purpose", "[.][race]") {
  const test::Model model;
  root_optim::Root shared(model.groups(root_optim::RootOptions()));
  test::on_all_ranks(2, [&](int rank, const test::Group&) {
    for (int i = 0; i < 1000; ++i) shared.options(0).lr(1e-3 * rank);
  });
}
