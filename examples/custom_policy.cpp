// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A filter and an orthogonalizer of one's own, combined with the library's without touching it.
// Prints:
//
//   row_clip + ada_newton:           loss fell
//   soft_threshold + row_normalize:  loss fell
#include <torch/torch.h>
#include <root_optim/root_optim.hpp>

#include <iostream>

// A filter: shortens every row that is longer than `limit` times the mean row.
struct RowClip {
  static constexpr const char* name = "row_clip";
  double limit = 2.0;

  void validate() const { TORCH_CHECK(limit > 0, "RowClip: expected limit > 0, got ", limit); }
  void serialize(root_optim::Fields& out) const { out.set("limit", limit); }
  void deserialize(const root_optim::Fields& in) { limit = in.get<double>("limit"); }

  at::Tensor operator()(const at::Tensor& u) const {  // [k, m, n] -> [k, m, n]
    const auto length = u.norm(2, {2}, /*keepdim=*/true);
    const auto longest = length.mean(1, /*keepdim=*/true) * limit;
    return u * (longest / length).clamp_max(1.0).nan_to_num(1.0);
  }
};

// An orthogonalizer without settings: every row to unit length, a cheap relative of the polar
// factor.
struct RowNormalize {
  static constexpr const char* name = "row_normalize";

  at::Tensor operator()(const at::Tensor& x) const {
    return x / x.norm(2, {2}, /*keepdim=*/true).clamp_min(1e-12);
  }
};

template <class Optimizer>
void fit(const char* title, typename Optimizer::Options options) {
  torch::manual_seed(0);
  torch::nn::Linear model(24, 12);
  const auto weight = torch::randn({24, 12});
  Optimizer optimizer(model->parameters(), options.weight_decay(0.0));
  double first = 0, last = 0;
  for (int step = 0; step < 100; ++step) {
    const auto x = torch::randn({64, 24});
    optimizer.zero_grad();
    const auto loss = torch::mse_loss(model->forward(x), x.matmul(weight));
    loss.backward();
    optimizer.step();
    last = loss.template item<double>();
    if (step == 0) first = last;
  }
  std::cout << title << (last < first / 2 ? "loss fell" : "loss did not fall") << '\n';
}

int main() {
  using root_optim::OrthogonalizedOptimizer;
  using RowClipped = OrthogonalizedOptimizer<RowClip, root_optim::AdaNewton>;
  using RowNormalized = OrthogonalizedOptimizer<root_optim::SoftThreshold, RowNormalize>;
  fit<RowClipped>("row_clip + ada_newton:           ", RowClipped::Options(2e-2).filter({1.5}));
  fit<RowNormalized>("soft_threshold + row_normalize:  ", RowNormalized::Options(2e-2));
}
