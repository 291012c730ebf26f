// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// One rank of distributed.py: steps of parameters that ranks share, and what they take. Prints one line of
// JSON. scripts/bench.sh distributed runs it.
#include <fmt/format.h>
#include <fmt/ranges.h>  // join
#include <torch/torch.h>
#include <root_optim/distributed.hpp>
#include <root_optim/root.hpp>

#include <dirent.h>
#include <linux/tcp.h>  // tcp_info, with the bytes sent
#include <netinet/in.h>
#include <sys/socket.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../examples/distributed/process_group.hpp"
#include "state_bytes.hpp"
#include "timing.hpp"

namespace {

using benchmarks::milliseconds;

/// CPU time so far, of this thread, which computes, and of all others, which are Gloo's.
struct Clock {
  double own = milliseconds(CLOCK_THREAD_CPUTIME_ID);
  double others = milliseconds(CLOCK_PROCESS_CPUTIME_ID) - own;
};

/// The bytes that this process has sent by TCP, as the kernel counts them.
double bytes_sent() {
  double sum = 0;
  DIR* folder = opendir("/proc/self/fd");
  if (folder == nullptr) return 0;
  while (const dirent* entry = readdir(folder)) {
    tcp_info info{};
    socklen_t size = sizeof(info);
    const int file = std::atoi(entry->d_name);
    if (getsockopt(file, IPPROTO_TCP, TCP_INFO, &info, &size) == 0) {
      sum += static_cast<double>(info.tcpi_bytes_sent);
    }
  }
  closedir(folder);
  return sum;
}

using Shapes = std::vector<std::vector<int64_t>>;

/// What a rank has: everything whole, or of tensors with columns a part of the rows.
struct Parts {
  int64_t rank = 0, ranks = 1;
  at::Tensor of(const at::Tensor& x) const {
    if (ranks == 1 || x.dim() < 2) return x;
    const int64_t first = x.size(0) * rank / ranks, end = x.size(0) * (rank + 1) / ranks;
    return x.narrow(0, first, end - first).clone();
  }
};

std::vector<at::Tensor> tensors(const Shapes& shapes, const Parts& parts,
                                at::Generator& generator) {
  std::vector<at::Tensor> result;
  for (const auto& shape : shapes) {
    result.push_back(parts.of(at::randn(shape, generator).mul_(.02)).requires_grad_());
    result.back().mutable_grad() = parts.of(at::randn(shape, generator).mul_(1e-3));
  }
  return result;
}

Shapes parse(const std::vector<std::string>& texts) {
  Shapes shapes;
  for (const std::string& text : texts) {
    shapes.emplace_back();
    for (const std::string& side : CLI::detail::split(text, 'x')) {
      shapes.back().push_back(std::stoll(side));
    }
  }
  return shapes;
}

std::string list(std::vector<double> values) {
  return fmt::format("[{}]", fmt::join(values, ", "));
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> matrices, others;
  int64_t steps = 3;
  bool alone = false, owners = false, shards = false;
  CLI::App app{"One rank of the benchmark \"distributed\""};
  app.add_option("--matrices", matrices, "Shapes, as 768x768")->required();
  app.add_option("--others", others, "Shapes of what follows AdamW");
  app.add_option("--steps", steps, "That are measured, behind one that is not");
  app.add_flag("--alone", alone, "One process, without a group");
  app.add_flag("--owners", owners, "Owners alone get the mean of gradients");
  app.add_flag("--shards", shards, "A rank has a part of the rows of everything that has columns");
  CLI11_PARSE(app, argc, argv);

  at::set_num_threads(1);
  at::Generator generator = at::detail::createCPUGenerator(1);
  const examples::LaunchedRank launched = examples::launched_rank();
  Parts parts;
  if (shards) parts = {launched.rank, launched.size};
  const Shapes matrix_shapes = parse(matrices), other_shapes = parse(others);
  const auto of_root = tensors(matrix_shapes, parts, generator);
  const auto of_adamw = tensors(other_shapes, parts, generator);
  std::vector<at::Tensor> all = of_root;
  all.insert(all.end(), of_adamw.begin(), of_adamw.end());
  double parameter_bytes = 0;
  for (const at::Tensor& tensor : all) parameter_bytes += static_cast<double>(tensor.nbytes());

  using root_optim::RootOptions;
  std::vector<torch::optim::OptimizerParamGroup> groups;
  groups.emplace_back(of_root, std::make_unique<RootOptions>());
  groups.emplace_back(of_adamw,
                      std::make_unique<RootOptions>(RootOptions().rule(root_optim::Rule::AdamW)));
  root_optim::Root optimizer(groups);
  std::optional<root_optim::GradientReducer> to_all;
  std::optional<root_optim::OwnerReducer> to_owners;
  const auto reduce = [&] {
    if (to_all) to_all->reduce();
    if (to_owners) to_owners->reduce();
  };
  int rank = 0;
  if (!alone) {
    rank = launched.rank;
    const auto group = examples::make_process_group(launched, std::chrono::minutes(10));
    root_optim::DistributedOptions distributed;
    Shapes shapes = matrix_shapes;
    shapes.insert(shapes.end(), other_shapes.begin(), other_shapes.end());
    std::vector<at::Tensor> whole;
    for (size_t i = 0; i < all.size(); ++i) {
      if (shards && shapes[i].size() > 1) {
        distributed.sharded(all[i], root_optim::ShardedLayout::rows(shapes[i][0]));
      } else {
        whole.push_back(all[i]);
      }
    }
    root_optim::distribute(optimizer, group, distributed);
    if (owners) to_owners.emplace(optimizer);
    if (!owners) to_all.emplace(whole, group);
  }

  std::vector<double> compute, transport, reduction, step_sent, reduction_sent;
  for (int64_t step = 0; step <= steps; ++step) {
    const double sent = bytes_sent();
    const Clock start;
    reduce();
    const Clock reduced;
    const double sent_by_reduction = bytes_sent();
    const Clock before;
    optimizer.step();
    const Clock after;
    if (step == 0) continue;  // brings state into being
    compute.push_back(after.own - before.own);
    transport.push_back(after.others - before.others);
    reduction.push_back(reduced.own + reduced.others - start.own - start.others);
    reduction_sent.push_back(sent_by_reduction - sent);
    step_sent.push_back(bytes_sent() - sent_by_reduction);
  }
  reduce();  // nobody hangs up before all have counted
  fmt::print(
      "{{\"rank\": {}, \"parameter_bytes\": {}, \"state_bytes\": {}, \"compute\": {}, "
      "\"transport\": {}, "
      "\"reduction\": {}, \"step_sent\": {}, \"reduction_sent\": {}}}\n",
      rank, parameter_bytes, benchmarks::state_bytes(optimizer), list(compute), list(transport),
      list(reduction), list(step_sent), list(reduction_sent));
}
