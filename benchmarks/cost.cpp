// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What the forms of the iteration cost on this machine, and what iteration_plan.hpp says they do: processor time
// on one thread over that of five plain quintic steps in float32, medians of turns.
#include <ATen/ATen.h>

#include <ctime>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include <root_optim/root_optim.hpp>

namespace {

double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Candidate {
  std::string name;
  double model;  ///< what the library says
  std::function<void()> run;
  std::vector<double> seconds;
};

void measure(int64_t k, int64_t m, int64_t n, int rounds) {
  const at::Tensor x = at::randn({k, m, n});
  root_optim::Workspace workspace;
  const root_optim::Scratch scratch{&workspace, false};
  const double unit = root_optim::direct_flops(m, n, 5);
  std::vector<Candidate> candidates;
  const auto quintics = [&](int64_t steps, root_optim::Form form, at::ScalarType dtype) {
    root_optim::OrthogonalizeOptions options;
    options.form = form;
    options.compute_dtype = dtype;
    const auto precision =
        dtype == at::kFloat ? root_optim::Precision::Float32 : root_optim::Precision::BFloat16;
    const auto schedule = root_optim::shipped_quintics(steps, precision);
    const double cost = root_optim::plan_iteration(m, n, schedule, precision, form).cost / unit;
    candidates.push_back({(dtype == at::kFloat ? "quintics " : "bfloat16 ") + std::to_string(steps),
                          cost, [=] { root_optim::orthogonalize(x, schedule, options, scratch); }, {}});
  };
  quintics(5, root_optim::Form::Direct, at::kFloat);
  quintics(8, root_optim::Form::Auto, at::kFloat);
  quintics(5, root_optim::Form::Direct, at::kBFloat16);
  for (const std::vector<int64_t>& poles : std::vector<std::vector<int64_t>>{
           {2}, {3}, {1, 1}, {1, 2}, {2, 2}, {2, 3}}) {
    std::vector<root_optim::ZolotarevStage> stages;
    std::string name;
    for (const int64_t r : poles) {
      stages.push_back({r, stages.empty() ? 1e-3 : 0.1});
      name += (name.empty() ? "poles " : " + ") + std::to_string(r);
    }
    auto schedule = root_optim::zolotarev_stages(stages);
    candidates.push_back({name, 0, [=] {
      root_optim::orthogonalize_rational(x, schedule, {}, scratch);
    }, {}});
  }
  for (int round = -1; round < rounds; ++round) {
    for (Candidate& each : candidates) {
      const double start = processor_seconds();
      int times = 0;
      do {
        each.run();
        ++times;
      } while (processor_seconds() - start < 0.02);
      if (round >= 0) each.seconds.push_back((processor_seconds() - start) / times);
    }
  }
  const double plain = median(candidates.front().seconds);
  for (const Candidate& each : candidates) {
    std::printf("%ld,%ld,%ld,%s,%.4f,%.4f,%.4f\n", static_cast<long>(k), static_cast<long>(m),
                static_cast<long>(n), each.name.c_str(), 1e3 * median(each.seconds),
                median(each.seconds) / plain, each.model);
  }
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 5;
  at::NoGradGuard no_grad;
  at::set_num_threads(1);
  std::printf("k,m,n,form,ms,measured,model\n");
  for (const auto& [k, m, n] : std::vector<std::tuple<int64_t, int64_t, int64_t>>{
           {16, 16, 16}, {16, 32, 32}, {12, 64, 64}, {1, 64, 64}, {8, 64, 256}, {12, 128, 128}, {4, 128, 512},
           {4, 256, 256}, {4, 256, 1024}, {1, 384, 384}, {2, 768, 768}, {1, 768, 3072}, {1, 1024, 1024}, {1, 2048, 2048}}) {
    measure(k, m, n, rounds);
  }
}
