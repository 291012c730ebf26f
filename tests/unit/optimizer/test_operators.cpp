// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// No host synchronization inside step(): the step runs on meta tensors, which have no values to
// wait for, and calls no operator that would wait for them on another device.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <algorithm>
#include <iterator>

#include "support/devices.hpp"
#include "support/meta_kernels.hpp"
#include "support/training.hpp"

using namespace root_optim;
using test::on;

namespace {

std::vector<std::string> forbidden(const test::OperatorRecorder& recorder) {
  std::vector<std::string> found;
  const auto& waiting = test::synchronizing_operators();
  std::set_intersection(recorder.names().begin(), recorder.names().end(), waiting.begin(),
                        waiting.end(), std::back_inserter(found));
  return found;
}

/// Steps an optimizer over parameters of many shapes twice (the first step also creates the state)
/// and returns what it called.
template <class Optimizer>
void check_step(typename Optimizer::Options options, at::TensorOptions where) {
  INFO(where.dtype() << " on " << where.device());
  std::vector<at::Tensor> parameters;
  // Two of one shape, a tall, a convolution, a transposed one; a vector and a tiny matrix for
  // AdamW.
  for (const std::vector<int64_t>& shape : std::vector<std::vector<int64_t>>{
           {16, 24}, {16, 24}, {24, 16}, {16, 8, 3, 3}, {24}, {2, 2}, {0, 16}}) {
    parameters.push_back(at::empty(shape, where).requires_grad_(true));
  }
  parameters.push_back(at::empty({24, 16}, where).t().requires_grad_(true));
  for (const at::Tensor& p : parameters) p.mutable_grad() = at::zeros_like(p);

  Optimizer optimizer(parameters, options);
  test::OperatorRecorder recorder;
  optimizer.step();
  optimizer.step();
  CHECK_FALSE(recorder.names().empty());
  CHECK(forbidden(recorder) == std::vector<std::string>{});
  if (where.device() == at::kMeta) {
    CHECK((recorder.on_cpu() == std::set<std::string>{}));
  }
  if (test::has_cuda_library()) {
    for (const c10::OperatorName& name : recorder.operators()) {
      INFO(name);
      CHECK(test::has_cuda_kernel(name));
    }
  }
}

std::vector<at::Device> devices_and_meta() {
  auto devices = test::devices();
  devices.emplace_back(at::kMeta);
  return devices;
}

}  // namespace

TEST_CASE("a step of Root calls nothing that synchronizes", "[operators]") {
  const at::Device device = GENERATE(from_range(devices_and_meta()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat, at::kHalf, at::kBFloat16);
  const auto where = on(device, dtype);
  check_step<Root>(RootOptions(), where);
  check_step<Root>(RootOptions().nesterov(false).momentum_form(MomentumForm::Ema), where);
  check_step<Root>(RootOptions().filter(SoftThreshold().absolute(0.5)), where);
  check_step<Root>(RootOptions().filter(SoftThreshold().relative_to_rms(3)), where);
  check_step<Root>(RootOptions().orthogonalizer(AdaNewton().compute_dtype(at::kBFloat16)), where);
  check_step<Root>(RootOptions().orthogonalizer(AdaNewton().iteration(Iteration::NewtonSchulz)),
                   where);
  check_step<Root>(RootOptions().orthogonalizer(AdaNewton().iteration(Iteration::Rational)), where);
  check_step<Root>(RootOptions().filter(SoftThreshold().scaled(3, 2)), where);
  check_step<Root>(RootOptions().filter_place(FilterPlace::Momentum), where);
  check_step<Root>(RootOptions().gate(1.4), where);
  check_step<Root>(RootOptions().gate(1.4).filter_place(FilterPlace::AllGradients), where);
  check_step<Root>(RootOptions().momentum_warmup(5), where);
  check_step<Root>(RootOptions().momentum_warmup(5).momentum_form(MomentumForm::Ema), where);
  check_step<Root>(RootOptions().rule(Rule::AdamW), where);
  check_step<Root>(RootOptions().rule(Rule::AdamW).filter_place(FilterPlace::AllGradients), where);
  check_step<Root>(RootOptions().master_weights(true), where);
  check_step<Root>(RootOptions().rule(Rule::AdamW).master_weights(true), where);
  check_step<Root>(RootOptions().non_finite(NonFinite::Zero), where);
  check_step<Root>(RootOptions().non_finite(NonFinite::Propagate), where);
}

TEST_CASE("a step of Muon and RootPaper calls nothing that synchronizes", "[operators]") {
  const at::Device device = GENERATE(from_range(devices_and_meta()));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat, at::kHalf, at::kBFloat16);
  const auto where = on(device, dtype);
  check_step<Muon>(MuonOptions(), where);
  check_step<Muon>(
      MuonOptions().orthogonalizer(NewtonSchulz().normalization(Normalization::Schatten8)), where);
  check_step<RootPaper>(root_paper(), where);
}

TEST_CASE("the tests above look for CUDA kernels where LibTorch has them", "[operators]") {
  if (test::has_cuda_library()) {
    CHECK(test::has_cuda_kernel({"aten::baddbmm", "out"}));
  } else {
    WARN("CUDA: skipped, LibTorch has no CUDA library here");
  }
  CHECK_FALSE(test::has_cuda_kernel({"aten::no_such_operator", ""}));
}

TEST_CASE("a step on meta tensors takes every layout", "[operators]") {
  const auto where = on(at::kMeta, at::kFloat);
  for (const MatrixLayout& layout :
       {MatrixLayout().split_rows(3), MatrixLayout().split_rows({32, 8, 8}),
        MatrixLayout().out_dim(1), MatrixLayout().batch(true),
        MatrixLayout().split_rows(2).out_dim(1)}) {
    const at::Tensor p = at::empty({48, 24, 8}, where).requires_grad_(true);
    p.mutable_grad() = at::zeros_like(p);
    Root root({p}, RootOptions().rule(Rule::Orthogonalized).layout(layout));
    test::OperatorRecorder recorder;
    root.step();
    INFO(to_string(layout));
    CHECK(forbidden(recorder) == std::vector<std::string>{});
    CHECK((recorder.on_cpu() == std::set<std::string>{}));
  }
}

TEST_CASE("the operators of a step grow with the shapes, not with the parameters", "[operators]") {
  const auto calls = [](int64_t count, const RootOptions& options) {
    std::vector<at::Tensor> parameters;
    for (int64_t i = 0; i < count; ++i) {
      for (const std::vector<int64_t>& shape :
           std::vector<std::vector<int64_t>>{{16, 24}, {24, 16}, {16, 4, 3, 3}, {24}}) {
        parameters.push_back(at::ones(shape).requires_grad_(true));
        parameters.back().mutable_grad() = at::ones(shape);
      }
    }
    Root root(parameters, options);
    root.step();
    test::OperatorRecorder recorder;
    root.step();
    return recorder.calls();
  };
  if (TORCH_VERSION_MAJOR < 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 6)) {
    WARN("lists: skipped, LibTorch before 2.6 takes them one by one");
    return;
  }
  const int64_t of_two = calls(2, RootOptions());
  INFO(of_two << " for two parameters of each shape");
  CHECK(calls(20, RootOptions()) == of_two);
  // One by one, as soon as the workspace says so.
  CHECK(calls(20, RootOptions().batch_bytes(0)) > 5 * of_two);
}

TEST_CASE("off the CPU more matrices are stepped together by default", "[operators]") {
  const auto calls = [](at::Device device, const RootOptions& options) {
    std::vector<at::Tensor> parameters;
    for (int64_t i = 0; i < 8; ++i) {
      parameters.push_back(at::empty({256, 2048}, on(device, at::kFloat)).requires_grad_(true));
      parameters.back().mutable_grad() = at::ones_like(parameters.back());
    }
    Root root(parameters, options);
    root.step();
    test::OperatorRecorder recorder;
    root.step();
    return recorder.calls();
  };
  // 9 MiB each, by step_bytes.
  CHECK(calls(at::kCPU, RootOptions()) == calls(at::kCPU, RootOptions().batch_bytes(16 << 20)));
  const int64_t together = calls(at::kMeta, RootOptions());
  CHECK(together == calls(at::kMeta, RootOptions().batch_bytes(512 << 20)));
  CHECK(calls(at::kMeta, RootOptions().batch_bytes(16 << 20)) > 4 * together);
}

TEST_CASE("the recorder sees what synchronizes", "[operators]") {
  // Else the tests above could not fail. ExactPolar is exempt, and documented to synchronize.
  using Exact = OrthogonalizedOptimizer<NoFilter, ExactPolar>;
  const at::Tensor p = test::parameter({12, 16}, 1);
  test::set_gradient(p, test::gaussian({12, 16}, 2));
  Exact exact({p}, Exact::Options());
  test::OperatorRecorder recorder;
  exact.step();
  CHECK(forbidden(recorder) == std::vector<std::string>{"aten::linalg_svd"});
  const double first = p.detach()[0][0].item<double>();
  CHECK(std::isfinite(first));
  CHECK(forbidden(recorder) == std::vector<std::string>{"aten::item", "aten::linalg_svd"});
  CHECK(recorder.on_cpu().count("aten::linalg_svd") == 1);
}
