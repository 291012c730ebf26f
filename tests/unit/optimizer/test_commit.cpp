// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The copies at the end of a step: any dtype, strides and size, and on the CPU no memory for them.
#include "support/catch_torch.hpp"

#include <root_optim/optimizer/detail/commit.hpp>

#include <cstdint>
#include <vector>

#include "support/devices.hpp"
#include "support/failing_allocator.hpp"
#include "support/failing_heap.hpp"
#include "support/spectra.hpp"
#include "support/tolerances.hpp"

using root_optim::detail::Commit;
using root_optim::detail::ready_for;

namespace {

/// Tensors of every kind that parameters and state can be; the fourth has gaps in its memory.
std::vector<at::Tensor> targets(at::TensorOptions where) {
  const auto filled = [&](at::IntArrayRef shape, uint64_t seed) {
    return test::gaussian(shape, seed).to(where);
  };
  return {
      filled({3, 5}, 1),     filled({7, 4}, 2).t(),
      filled({}, 3),         filled({6, 8}, 4).narrow(1, 2, 3),
      filled({600, 700}, 5), filled({500, 300}, 6).t(),
      filled({0, 4}, 7),     filled({2, 3, 4, 5}, 8).contiguous(at::MemoryFormat::ChannelsLast)};
}

}  // namespace

TEST_CASE("a commit copies tensors of any strides and sizes", "[commit]") {
  const at::Device device = GENERATE(from_range(test::devices()));
  const at::ScalarType dtype = GENERATE(at::kFloat, at::kDouble, at::kBFloat16);
  std::vector<at::Tensor> to = targets(test::on(device, dtype)), values, from;
  for (size_t i = 0; i < to.size(); ++i) {
    values.push_back(test::gaussian(to[i].sizes(), 100 + i).to(device));  // float64, contiguous
    from.push_back(ready_for(to[i], values[i]));
    CHECK(from[i].scalar_type() == dtype);
  }
  std::vector<int64_t> versions;
  for (const at::Tensor& tensor : to) versions.push_back(tensor._version());
  Commit commit;
  commit.add({to[0], to[1]}, {from[0], from[1]});
  commit.add({to.begin() + 2, to.end()}, {from.begin() + 2, from.end()});
  commit.run();
  for (size_t i = 0; i < to.size(); ++i) {
    INFO("tensor " << i);
    CHECK_THAT(to[i], test::same_as(values[i].to(dtype)));
    // What autograd has kept of it is known to be out of date.
    if (to[i].numel() > 0) CHECK(to[i]._version() > versions[i]);
  }
}

TEST_CASE("on the CPU a commit takes no memory at all", "[commit]") {
  std::vector<at::Tensor> to = targets(at::kFloat), from;
  to.erase(to.begin() + 3);  // gaps: by an operator
  for (const at::Tensor& tensor : to) from.push_back(at::empty_like(tensor).fill_(2));
  Commit commit;
  commit.add(to, from);
  {
    const test::FailingHeap heap(0);
    const test::FailingAllocator tensors(0);
    CHECK_NOTHROW(commit.run());
    CHECK(heap.count() == 0);
    CHECK(tensors.count() == 0);
  }
  for (const at::Tensor& tensor : to) CHECK(tensor.eq(2).all().item<bool>());
}
