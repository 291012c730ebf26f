// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The program of projects that link root_optim::compiled: a named optimizer, with what its templates are
// compiled to, and one with policies of its own, whose templates this file compiles.
#include <torch/nn/modules/linear.h>
#include <root_optim/root_optim.hpp>

#include <cstdio>
#include <sstream>

#ifndef ROOT_OPTIM_COMPILED
#error "root_optim::compiled does not define ROOT_OPTIM_COMPILED"
#endif

namespace {

struct Halve {
  static constexpr const char* name = "halve";
  at::Tensor operator()(const at::Tensor& u) const { return u.mul(0.5); }
};

struct Sign {
  static constexpr const char* name = "sign";
  at::Tensor operator()(const at::Tensor& u) const { return u.sign(); }
};

using Own = root_optim::OrthogonalizedOptimizer<Halve, Sign>;

template <class Optimizer>
bool trains(const char* name) {
  torch::nn::Linear model(32, 16);
  const typename Optimizer::Options options(1e-2);
  Optimizer optimizer(root_optim::param_groups(*model, options));
  const at::Tensor x = at::ones({4, 32});
  double first = 0, last = 0;
  for (int step = 0; step < 20; ++step) {
    optimizer.zero_grad();
    const at::Tensor loss = model->forward(x).pow(2).mean();
    loss.backward();
    optimizer.step();
    last = loss.item<double>();
    if (step == 0) first = last;
  }
  std::stringstream file;
  root_optim::save(optimizer, file);
  Optimizer other(root_optim::param_groups(*model, options));
  root_optim::load(other, file);
  const std::string table = root_optim::route(*model, options).to_string();
  const bool same = root_optim::checkpoint_bytes(other) == root_optim::checkpoint_bytes(optimizer);
  std::printf("root_optim %d: loss %.4f -> %.4f, %s\n%s", root_optim::version, first, last, name,
              table.c_str());
  return last < first && same && !root_optim::step_report(optimizer).empty();
}

}  // namespace

int main() {
  return trains<root_optim::Root>("Root") && trains<root_optim::Muon>("Muon") &&
                 trains<root_optim::RootPaper>("RootPaper") && trains<Own>("policies of one's own")
             ? 0
             : 1;
}
