// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Training with float16 activations and a dynamic loss scale: what torch.amp.GradScaler does in
// Python and LibTorch's C++ does not have. Prints:
//
//   dynamic loss scale:  error 0.01…, 7 steps skipped
//   loss scale 1:        error 0.4…, 0 steps skipped
//
// Without the scale every gradient is too small for float16 and nothing is learned. With it, the
// first steps overflow and halve the scale until it fits; later it tries twice as much now and then.
#include <torch/torch.h>
#include <root_optim/root_optim.hpp>

#include <cmath>
#include <iostream>
#include <vector>

namespace {

// A factor on the loss, which keeps small gradients above float16's smallest number. It halves after
// a step whose gradients overflowed and doubles after `growth_interval` good ones in a row.
class LossScale {
 public:
  LossScale(double start, int growth_interval) : value_(start), growth_interval_(growth_interval) {}

  double value() const { return value_; }

  void update(bool finite) {
    good_steps_ = finite ? good_steps_ + 1 : 0;
    if (!finite) value_ /= 2;
    if (good_steps_ == growth_interval_) {
      value_ *= 2;
      good_steps_ = 0;
    }
  }

 private:
  double value_;
  int growth_interval_;
  int good_steps_ = 0;
};

// Divides the gradients by the scale, in place, before anything else (clipping, step) sees them, and
// says whether all are finite, as the sum of their squares in float64 is then. The host reads one
// number, which a loss scale cannot do without.
bool unscale(const std::vector<torch::Tensor>& parameters, double scale) {
  torch::NoGradGuard no_grad;
  auto sum = torch::zeros({}, parameters[0].options().dtype(torch::kDouble));
  for (const auto& p : parameters) {
    if (!p.grad().defined()) continue;
    p.mutable_grad().div_(scale);
    sum += p.grad().to(torch::kDouble).square().sum();
  }
  return std::isfinite(sum.item<double>());
}

// Rounds to float16 what goes forward and the gradient that comes back, as autocast does on a GPU.
// Weights and products stay in float32, so that this runs on every CPU.
torch::Tensor half(const torch::Tensor& x) { return x.to(torch::kHalf).to(torch::kFloat); }

// Trains a student network on a teacher's function; the loss is as small as that of an auxiliary
// task.
void train(const char* title, LossScale scale) {
  torch::manual_seed(0);
  using torch::nn::Linear;
  Linear teacher(32, 16), first(32, 64), second(64, 16);
  torch::nn::Sequential student(first, second);
  const auto parameters = student->parameters();
  root_optim::Root optimizer(root_optim::param_groups(*student, root_optim::RootOptions(3e-3)));

  constexpr int steps = 300;
  int skipped = 0;
  double error = 0;
  for (int step = 0; step < steps; ++step) {
    for (auto& group : optimizer.param_groups()) {
      group.options().set_lr(3e-3 * (1 - static_cast<double>(step) / steps));
    }
    const auto x = torch::randn({2048, 32});
    const auto hidden = half(torch::tanh(half(first(half(x)))));
    const auto loss = torch::mse_loss(half(second(hidden)), teacher(x).detach());
    optimizer.zero_grad();
    (loss * 1e-4 * scale.value()).backward();
    const bool finite = unscale(parameters, scale.value());
    if (finite) optimizer.step();
    scale.update(finite);
    if (!finite) ++skipped;
    error = loss.item<double>();
  }
  std::cout << title << "error " << error << ", " << skipped << " steps skipped\n";
}

}  // namespace

int main() {
  // A step with an overflow is skipped as a whole here, as GradScaler does. What gets past such a
  // check meets the optimizer's own policy: NonFinite::Skip, the default, leaves alone the matrices
  // concerned, without a read by the host, and root_optim::gradient_faults counts.
  train("dynamic loss scale:  ", LossScale(std::ldexp(1.0, 48), 100));
  train("loss scale 1:        ", LossScale(1.0, 1000));
}
