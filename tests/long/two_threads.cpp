// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Two optimizers, each in a thread of its own, that share what copies of a policy share: designed
// coefficients (a cache that both fill, for the same shapes) and a table. Built with
// -fsanitize=thread by the preset tsan; LibTorch itself is not instrumented, so that one OpenMP
// thread is asked for. Both must get the bits that one thread alone gets.
//   two_threads [--race]         --race: a data race on purpose, which the sanitizer must find
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <cstdint>
#include <cstdio>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "support/training.hpp"

namespace {

using namespace root_optim;

constexpr int64_t kSteps = 20;

/// The parameters after training with `policy`; saved, loaded and reported on in between.
std::vector<at::Tensor> trained(const AdaNewton& policy) {
  const std::vector<at::Tensor> parameters = {
      test::parameter({16, 24}, 1, at::kFloat),     test::parameter({16, 24}, 2, at::kFloat),
      test::parameter({24, 24}, 3, at::kFloat),     test::parameter({48, 12}, 4, at::kDouble),
      test::parameter({8, 4, 3, 3}, 5, at::kFloat), test::parameter({24}, 6, at::kFloat)};
  const RootOptions options = RootOptions(1e-2).orthogonalizer(policy);
  Root optimizer(parameters, options);
  CalibratorOptions often;
  often.every = 5;
  Calibrator<SoftThreshold> calibrator(optimizer, often);
  for (int64_t t = 0; t < kSteps; ++t) {
    for (const at::Tensor& p : parameters) test::set_gradient(p, test::gradient_of(p.sizes(), t));
    calibrator.step();
    optimizer.step();
    if (t % 5 == 4) {
      std::stringstream file;
      save(optimizer, file);
      load(optimizer, file);  // a policy of its own, from the file: designs anew
      for (auto& group : optimizer.param_groups()) {
        auto& stored = static_cast<RootOptions&>(group.options());
        stored.orthogonalizer(AdaNewton(policy).table(stored.orthogonalizer().table()));
      }
    }
  }
  return parameters;
}

AdaNewton shared_policy() {
  CoefficientTable table;
  table.set(24, 24, shipped_quintics(4));
  return AdaNewton().table(table);
}

int race() {
  int64_t counter = 0;
  const auto count = [&counter] {
    for (int i = 0; i < 100000; ++i) ++counter;
  };
  std::thread first(count), second(count);
  first.join();
  second.join();
  std::printf("counted to %lld\n", static_cast<long long>(counter));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::string(argv[1]) == "--race") return race();
  at::set_num_threads(1);

  // Alone first: LibTorch makes its static objects at the first archive, behind guards that the
  // sanitizer cannot see, and would be reported for it.
  const std::vector<at::Tensor> expected = trained(shared_policy());
  constexpr int rounds = 3;
  int different = 0;
  for (int round = 0; round < rounds; ++round) {
    const AdaNewton shared = shared_policy();  // both threads meet an empty cache of designs
    std::vector<at::Tensor> results[2];
    std::thread first([&] { results[0] = trained(shared); });
    std::thread second([&] { results[1] = trained(shared); });
    first.join();
    second.join();
    for (const auto& result : results) {
      for (size_t i = 0; i < expected.size(); ++i) {
        if (!at::equal(result[i], expected[i])) ++different;
      }
    }
  }
  std::printf("%s: %d rounds of two threads x %lld steps, %d parameters differ from one thread's\n",
              different == 0 ? "passed" : "FAILED", rounds, static_cast<long long>(kSteps),
              different);
  return different == 0 ? 0 : 1;
}
