// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// root_optim for Python, as far as speed.py and memory.py need it to race it in one process against
// torch.optim: the optimizers and their orthogonalization, matrices of known polar factor, a counter
// of allocated memory and a recorder of operators. Loaded with torch.classes.load_library.
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <torch/custom_class.h>
#include <torch/torch.h>
#include <root_optim/root_optim.hpp>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "matrices.hpp"
#include "state_bytes.hpp"

namespace {

using Tensors = std::vector<at::Tensor>;
using root_optim::AdaNewton;
using root_optim::NewtonSchulz;
using root_optim::NoFilter;
using root_optim::OrthogonalizedOptimizer;
using root_optim::Rule;
using root_optim::SoftThreshold;

// ---- Optimizers ------------------------------------------------------------------------------------

/// An optimizer over `matrices`, which it orthogonalizes, and `others`, which follow AdamW. All
/// options are as constructed, but for those of the policies and what `set` sets.
template <class Filter, class Orthogonalizer, class Set>
auto make_optimizer(const Tensors& matrices, const Tensors& others, const Filter& filter,
                    const Orthogonalizer& orthogonalizer, const Set& set) {
  using Optimizer = OrthogonalizedOptimizer<Filter, Orthogonalizer>;
  auto optimizer = std::make_unique<Optimizer>(std::vector<typename Optimizer::Group>{});
  const auto add = [&](const Tensors& parameters, Rule rule) {
    if (parameters.empty()) return;
    auto options = std::make_unique<typename Optimizer::Options>();
    options->filter(filter).orthogonalizer(orthogonalizer).rule(rule);
    set(*options);
    optimizer->add_param_group({parameters, std::move(options)});
  };
  add(matrices, Rule::Orthogonalized);
  add(others, Rule::AdamW);
  return optimizer;
}

template <class Filter, class Orthogonalizer>
auto make_optimizer(const Tensors& matrices, const Tensors& others, const Filter& filter,
                    const Orthogonalizer& orthogonalizer) {
  return make_optimizer(matrices, others, filter, orthogonalizer, [](auto&) {});
}

/// Turns on the stages that are off by default: one by its option's name, or "all"; "update_beta(0)" turns off the
/// one that is on.
void turn_on(root_optim::RootOptions& options, const std::string& stage) {
  const auto is = [&](const char* name) { return stage == name || stage == "all"; };
  if (is("momentum_warmup")) options.momentum_warmup(1000);
  if (stage == "update_beta(0)") options.update_beta(0);
  if (is("gate")) options.gate(1.4);
  if (is("filter_place")) options.filter_place(root_optim::FilterPlace::AllGradients);
}

at::ScalarType dtype_named(const std::string& name) {
  TORCH_CHECK(name == "float32" || name == "bfloat16", "no such compute dtype: ", name);
  return name == "float32" ? at::kFloat : at::kBFloat16;
}

/// A LibTorch optimizer of this library, as Python sees it.
class Optimizer : public torch::CustomClassHolder {
 public:
  /// @param method "muon"; "root", "root_unsplit" for the same without the outlier split, and
  /// "root_quantile" with a split at the quantile .90, "root with STAGE" as `turn_on` has it
  /// @param dtype  the compute dtype, "float32" or "bfloat16"; empty: as constructed
  /// @param budget AdaNewton's; 0: as constructed
  /// @param steps  AdaNewton's, in place of a budget; 0: as constructed
  Optimizer(Tensors matrices, Tensors others, std::string method, std::string dtype, double budget,
            int64_t steps) {
    AdaNewton ada_newton;
    if (budget > 0) ada_newton.budget(budget);
    if (steps > 0) ada_newton.steps(steps);
    NewtonSchulz newton_schulz;
    if (!dtype.empty()) {
      ada_newton.compute_dtype(dtype_named(dtype));
      newton_schulz.compute_dtype(dtype_named(dtype));
    }
    if (method == "muon") {
      take(make_optimizer(matrices, others, NoFilter(), newton_schulz));
      orthogonalizer_ = newton_schulz;
    } else {
      if (method == "root") {
        take(make_optimizer(matrices, others, SoftThreshold(), ada_newton));
      } else if (const std::string with = "root with "; method.compare(0, with.size(), with) == 0) {
        take(make_optimizer(matrices, others, SoftThreshold(), ada_newton,
                            [&](auto& options) { turn_on(options, method.substr(with.size())); }));
      } else if (method == "root_quantile") {
        take(make_optimizer(matrices, others, SoftThreshold().quantile(0.90), ada_newton));
      } else {
        TORCH_CHECK(method == "root_unsplit", "no such method: ", method);
        take(make_optimizer(matrices, others, NoFilter(), ada_newton));
      }
      orthogonalizer_ = ada_newton;
    }
  }

  void step() { optimizer_->step(); }
  void release_workspace() { release_workspace_(); }
  void set_capturable(bool capturable) { set_capturable_(capturable); }
  void set_lr(double lr) {
    for (auto& group : optimizer_->param_groups()) group.options().set_lr(lr);
  }
  /// The number of steps, wherever it is counted.
  int64_t steps() const {
    return static_cast<const root_optim::ParamState&>(*optimizer_->state().begin()->second)
        .counted_steps();
  }

  /// What a step's orthogonalizer makes of a matrix.
  at::Tensor orthogonalize(const at::Tensor& matrix) const {
    return orthogonalizer_(matrix.unsqueeze(0)).squeeze(0);
  }

  int64_t state_bytes() const { return benchmarks::state_bytes(*optimizer_); }

 private:
  template <class T>
  void take(std::unique_ptr<T> optimizer) {
    release_workspace_ = [kept = optimizer.get()] { kept->release_workspace(); };
    set_capturable_ = [kept = optimizer.get()](bool capturable) {
      for (auto& group : kept->param_groups()) {
        static_cast<typename T::Options&>(group.options()).capturable(capturable);
      }
    };
    optimizer_ = std::move(optimizer);
  }

  std::unique_ptr<torch::optim::Optimizer> optimizer_;
  std::function<void()> release_workspace_;
  std::function<void(bool)> set_capturable_;
  std::function<at::Tensor(const at::Tensor&)> orthogonalizer_;
};

// ---- Matrices --------------------------------------------------------------------------------------

/// A rows × cols matrix with singular values of captured momentum, and its exact polar factor.
std::tuple<at::Tensor, at::Tensor> momentum_matrix(int64_t rows, int64_t cols, int64_t index) {
  const int64_t m = std::min(rows, cols), n = std::max(rows, cols);
  const auto family = benchmarks::Family::HeavyTail;
  const auto [matrix, polar] =
      benchmarks::sample(family, m, n, index % benchmarks::samples_of(family, m));
  const auto turned = [&](const at::Tensor& x) { return (rows > cols ? x.t() : x).contiguous(); };
  return {turned(matrix).to(at::kFloat), turned(polar)};
}

/// B, what is left of a matrix behind Root's outlier split.
at::Tensor without_outliers(const at::Tensor& matrix) {
  return SoftThreshold()(matrix.unsqueeze(0)).squeeze(0);
}

at::Tensor exact_polar(const at::Tensor& matrix) { return root_optim::exact_polar(matrix); }

// ---- Memory ----------------------------------------------------------------------------------------

/// LibTorch's CPU allocator with a count of the bytes that are allocated and the most there were.
/// Sees tensors, of whichever optimizer; not what kernels and MKL allocate for themselves.
class CountingAllocator final : public c10::Allocator {
 public:
  explicit CountingAllocator(c10::Allocator* inner) : inner_(inner) {}

  c10::DataPtr allocate(size_t bytes) override {
    const auto count = static_cast<int64_t>(bytes);
    c10::DataPtr memory = inner_->allocate(bytes);
    void* data = memory.get();
    if (data == nullptr) return memory;
    const c10::Device device = memory.device();
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      blocks_.emplace(data, Block{std::move(memory), count});
    }
    const int64_t now = held_ += count;
    int64_t peak = peak_;
    while (peak < now && !peak_.compare_exchange_weak(peak, now)) {
    }
    // LibTorch's raw allocations (oneDNN's, for bfloat16) want the context to be the data.
    return {data, data, &release, device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* target, const void* source, size_t bytes) const override {
    default_copy_data(target, source, bytes);
  }

  int64_t held() const { return held_; }
  int64_t peak() const { return peak_; }
  void reset_peak() { peak_ = held_.load(); }
  c10::Allocator* inner() const { return inner_; }

 private:
  struct Block {
    c10::DataPtr memory;
    int64_t bytes;
  };
  static void release(void* data);

  c10::Allocator* inner_;
  std::atomic<int64_t> held_{0}, peak_{0};
  std::mutex mutex_;
  std::unordered_map<void*, Block> blocks_;
};

/// Never destroyed: tensors that it allocated may outlive everything.
CountingAllocator& counting_allocator() {
  static auto* allocator = new CountingAllocator(c10::GetCPUAllocator());
  return *allocator;
}

void CountingAllocator::release(void* data) {
  CountingAllocator& self = counting_allocator();
  const std::lock_guard<std::mutex> lock(self.mutex_);
  const auto block = self.blocks_.find(data);
  self.held_ -= block->second.bytes;
  self.blocks_.erase(block);
}

/// From now on tensors are counted, or not. A counted one stays so until it is freed.
void count_memory(bool on) {
  CountingAllocator& counting = counting_allocator();
  c10::SetCPUAllocator(on ? &counting : counting.inner());
}
int64_t held_bytes() { return counting_allocator().held(); }
int64_t peak_bytes() { return counting_allocator().peak(); }
void reset_peak() { counting_allocator().reset_peak(); }

// ---- Operators -------------------------------------------------------------------------------------

/// The operators called since `record_operators(true)`, without those that operators call and
/// without what is here to measure: functions of this file, the mark of a Python optimizer's step.
std::vector<std::string> recorded;
int64_t depth = 0;
at::CallbackHandle recorder = at::INVALID_CALLBACK_HANDLE;

void record_operators(bool on) {
  if (recorder != at::INVALID_CALLBACK_HANDLE) at::removeCallback(recorder);
  recorder = at::INVALID_CALLBACK_HANDLE;
  if (!on) return;
  recorded.clear();
  depth = 0;
  recorder = at::addThreadLocalCallback(
      at::RecordFunctionCallback(
          [](const at::RecordFunction& function) -> std::unique_ptr<at::ObserverContext> {
            const std::string name = function.name();
            const bool measures =
                name.rfind("profiler::", 0) == 0 || name.rfind("root_optim_benchmarks::", 0) == 0;
            if (depth++ == 0 && !measures) recorded.push_back(name);
            return nullptr;
          },
          [](const at::RecordFunction&, at::ObserverContext*) { --depth; })
          .scopes({at::RecordScope::FUNCTION}));
}
std::vector<std::string> recorded_operators() { return recorded; }

}  // namespace

TORCH_LIBRARY(root_optim_benchmarks, m) {
  m.class_<Optimizer>("Optimizer")
      .def(torch::init<Tensors, Tensors, std::string, std::string, double, int64_t>())
      .def("step", &Optimizer::step)
      .def("release_workspace", &Optimizer::release_workspace)
      .def("set_capturable", &Optimizer::set_capturable)
      .def("set_lr", &Optimizer::set_lr)
      .def("steps", &Optimizer::steps)
      .def("orthogonalize", &Optimizer::orthogonalize)
      .def("state_bytes", &Optimizer::state_bytes);
  m.def("momentum_matrix", &momentum_matrix);
  m.def("without_outliers", &without_outliers);
  m.def("exact_polar", &exact_polar);
  m.def("count_memory", &count_memory);
  m.def("held_bytes", &held_bytes);
  m.def("peak_bytes", &peak_bytes);
  m.def("reset_peak", &reset_peak);
  m.def("record_operators", &record_operators);
  m.def("recorded_operators", &recorded_operators);
}
