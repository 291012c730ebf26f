// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The mathematics without the optimizer: approximate polar factors of one matrix, held against the
// exact one. Prints:
//
//   coefficients    steps  relative error  singular values
//   cubic               5         0.00…  0.98… to 1.00…
//   jordan              5         0.1…  0.6… to 1.1…
//   you                 5         0.01…  0.9… to 1.0…
//   polar_express       5         0.08…  0.8… to 1.1…
//   ada_newton          5         0.01…  0.9… to 1.0…
//   ada_newton          8         0.00…  0.9… to 1.0…
//   exact               0         0.00000  1.0000 to 1.0000
//   largest singular value within the promised bound: yes
#include <fmt/format.h>
#include <torch/torch.h>
#include <root_optim/root_optim.hpp>

#include <iostream>

int main() {
  torch::manual_seed(0);
  const auto x = torch::randn({128, 512});
  const auto exact = root_optim::exact_polar(x);

  std::cout << "coefficients    steps  relative error  singular values\n";
  double largest = 0;
  const auto report = [&](const char* name, int64_t steps, const at::Tensor& y) {
    const auto sigma = root_optim::singular_values(y);
    largest = std::max(largest, sigma.max().item<double>());
    std::cout << fmt::format("{:<15} {:>5}  {:>14.5f}  {:.4f} to {:.4f}\n", name, steps,
                             root_optim::relative_error(y, exact), sigma.min().item<double>(),
                             sigma.max().item<double>());
  };
  for (const char* name : {"cubic", "jordan", "you", "polar_express"}) {
    const auto schedule = root_optim::CoefficientSet::named(name).quintics(128, 512, 5);
    report(name, 5, root_optim::orthogonalize(x, schedule));
  }
  const auto batch = x.unsqueeze(0);  // policies take batches [k, m, n]
  report("ada_newton", 5, root_optim::AdaNewton().steps(5)(batch)[0]);
  report("ada_newton", 8, root_optim::AdaNewton().steps(8)(batch)[0]);
  report("exact", 0, root_optim::ExactPolar()(batch)[0]);
  std::cout << "largest singular value within the promised bound: "
            << (largest < 1.35 ? "yes" : "no") << '\n';
}
