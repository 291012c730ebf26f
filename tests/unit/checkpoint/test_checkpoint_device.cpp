// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A checkpoint is read on a machine that lacks the device of the optimizer that was saved. Only files of
// earlier versions, and of torch::save with tensors of its own, name another device than the CPU.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <sstream>
#include <string>

#include "support/training.hpp"

using namespace root_optim;

namespace {

size_t replace_all(std::string& text, const std::string& from, const std::string& to) {
  size_t count = 0;
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
    ++count;
  }
  return count;
}

}  // namespace

TEST_CASE("a checkpoint loads although the device of its tensors is not there", "[checkpoint]") {
  const auto parameters = [] {
    return std::vector<at::Tensor>{test::parameter({16, 24}, 1, at::kFloat),
                                   test::parameter({24}, 2, at::kFloat)};
  };
  const auto before = parameters(), after = parameters();
  Root saved(before, RootOptions(0.1)), loaded(after, RootOptions(0.1));
  test::train(saved, before, 0, 3);
  std::ostringstream to;
  torch::serialize::OutputArchive archive;
  saved.save(archive);
  archive.save_to(to);
  std::string bytes = to.str();
  // A pickled tensor names its device; a name of the same length leaves the archive as it was otherwise.
  const std::string text("X\x03\x00\x00\x00", 5);
  REQUIRE(replace_all(bytes, text + "cpu", text + "mps") > 0);

  torch::serialize::InputArchive plain;
  std::istringstream elsewhere(bytes);
  CHECK_THROWS(plain.load_from(elsewhere));  // as LibTorch reads it, there must be such a device
  root_optim::detail::load_bytes(bytes,
                                 [&](torch::serialize::InputArchive& read) { loaded.load(read); });
  for (size_t i = 0; i < before.size(); ++i) {
    after[i].data().copy_(before[i]);
  }
  test::train(saved, before, 3, 5);
  test::train(loaded, after, 3, 5);
  for (size_t i = 0; i < before.size(); ++i) CHECK(before[i].equal(after[i]));
}
