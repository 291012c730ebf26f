// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What a step does on a GPU, against the CPU and against SVDs in float64: a table a part, and a verdict.
// scripts/gpu.sh runs it on a machine with a GPU, a test runs it with --device cpu. What needs CUDA's own
// interfaces (synchronization, memory, streams, graphs) is in gpu_check.py.
#include <torch/torch.h>
#include <root_optim/root_optim.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <functional>
#include <limits>
#include <sstream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "../../benchmarks/matrices.hpp"
#include "../support/singular_values.hpp"

using namespace root_optim;

namespace {

using Tensors = std::vector<at::Tensor>;

struct Run {
  at::Device device;
  bool quick;
  int64_t failures = 0;

  /// Prints a line of a part with its verdict.
  void expect(bool holds, const std::string& what) {
    std::printf("  %s  %s\n", holds ? "ok  " : "FAIL", what.c_str());
    if (!holds) ++failures;
  }
};

template <class... Args>
std::string text(const char* format, Args... args) {
  char line[256];
  std::snprintf(line, sizeof line, format, args...);
  return line;
}

// ---- Orthogonalization against the exact polar factor ----------------------------------------------

struct Way {
  std::string name;
  at::ScalarType dtype;
  std::function<at::Tensor(const at::Tensor&)> apply;  ///< on [1, m, n]
};

std::vector<Way> ways() {
  std::vector<Way> all;
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    // Iteration::Auto would take inverses on the CPU and products on a GPU: two things, not one twice.
    const AdaNewton products = AdaNewton().iteration(Iteration::NewtonSchulz).compute_dtype(dtype);
    for (const Form form : {Form::Auto, Form::Direct, Form::Gram}) {
      const char* const name = form == Form::Auto     ? "ada_newton"
                               : form == Form::Direct ? "ada_newton direct"
                                                      : "ada_newton gram";
      all.push_back({name, dtype, AdaNewton(products).form(form)});
    }
    all.push_back({"jordan", dtype, NewtonSchulz().compute_dtype(dtype)});
    all.push_back({"you schatten8", dtype,
                   NewtonSchulz()
                       .coefficients(CoefficientSet::you())
                       .normalization(Normalization::Schatten8)
                       .compute_dtype(dtype)});
    const double safety = dtype == at::kBFloat16 ? 1.03 : 1.01;
    all.push_back({"polar_express", dtype,
                   NewtonSchulz()
                       .coefficients(CoefficientSet::polar_express(safety))
                       .steps(8)
                       .compute_dtype(dtype)});
    if (dtype != at::kBFloat16) {
      all.push_back({"ada_newton inverses", dtype,
                     AdaNewton().iteration(Iteration::Rational).compute_dtype(dtype)});
      all.push_back(
          {"rational", dtype, [dtype](const at::Tensor& x) {
             RationalOptions options;
             options.compute_dtype = dtype;
             return orthogonalize_rational(x, zolotarev_stages({{1, 1e-3}, {2, 0.1}}), options).x;
           }});
    }
  }
  return all;
}

/// Whether cuBLAS may add bfloat16 in bfloat16. LibTorch 1.13 leaves no choice.
#if TORCH_VERSION_MAJOR >= 2
constexpr bool chooses_reduction = true;
void allow_bfloat16_reduction(bool allowed) {
  at::globalContext().setAllowBF16ReductionCuBLAS(allowed);
}
#else
constexpr bool chooses_reduction = false;
void allow_bfloat16_reduction(bool) {}
#endif

void orthogonalize(Run& run) {
  const std::vector<std::pair<int64_t, int64_t>> shapes =
      run.quick ? std::vector<std::pair<int64_t, int64_t>>{{48, 96}, {64, 64}}
                : std::vector<std::pair<int64_t, int64_t>>{{256, 1024}, {512, 512}, {384, 1536}};
  std::printf("  %-18s %-9s %-10s %-16s %10s %10s %9s %9s\n", "way", "dtype", "shape", "spectrum",
              "error", "on the CPU", "sigma max", "bf16 red.");
  for (const auto& [rows, cols] : shapes) {
    for (const auto family : {benchmarks::Family::Gaussian, benchmarks::Family::HeavyTail,
                              benchmarks::Family::LowRankNoise}) {
      const benchmarks::Sample sample = benchmarks::sample(family, rows, cols, 0);
      for (const Way& way : ways()) {
        const at::Tensor x =
            sample.matrix.to(way.dtype == at::kDouble ? at::kDouble : at::kFloat).unsqueeze(0);
        const double on_cpu = relative_error(way.apply(x)[0], sample.polar);
        const bool both = chooses_reduction && way.dtype == at::kBFloat16 && run.device.is_cuda();
        for (const bool reduced : {true, false}) {
          if (!reduced && !both) continue;
          if (run.device.is_cuda()) allow_bfloat16_reduction(reduced);
          const at::Tensor result = way.apply(x.to(run.device))[0].cpu();
          const double error = relative_error(result, sample.polar);
          const double largest = test::largest_singular_value(result);
          std::printf("  %-18s %-9s %4lldx%-5lld %-16s %10.2e %10.2e %9.4f %9s\n", way.name.c_str(),
                      c10::toString(way.dtype), static_cast<long long>(rows),
                      static_cast<long long>(cols), benchmarks::name_of(family).c_str(), error,
                      on_cpu, largest, way.dtype == at::kBFloat16 ? (reduced ? "yes" : "no") : "");
          // The bound of the validator, 1.35, with 3 % for what bfloat16 rounds at the end.
          if (!(largest <= 1.39) || !(error <= 1.5 * on_cpu + 0.05)) {
            run.expect(false, "sigma max <= 1.39 and an error near the CPU's");
          }
        }
        if (run.device.is_cuda()) allow_bfloat16_reduction(true);
      }
    }
  }
  run.expect(run.failures == 0, "every result within its bounds");
}

// ---- A small model ----------------------------------------------------------------------------------

at::Tensor gaussian(at::IntArrayRef sizes, int64_t seed) {
  torch::manual_seed(static_cast<uint64_t>(seed));
  return at::randn(sizes, at::kDouble);
}

struct Setting {
  at::ScalarType dtype = at::kFloat;
  bool small = false;
};

/// Two matrices of a shape, a tall one, a convolution (channels last), a transposed one, a row, a vector, a
/// number and an empty one.
Tensors parameters_on(at::Device device, const Setting& setting) {
  const int64_t s = setting.small ? 1 : 8;
  Tensors all;
  int64_t seed = 0;
  const auto add = [&](const std::vector<int64_t>& shape) {
    all.push_back(gaussian(shape, ++seed).mul(0.1));
  };
  add({16 * s, 32 * s});
  add({16 * s, 32 * s});
  add({32 * s, 16 * s});
  add({16 * s, 8, 3, 3});
  all.back() = all.back().contiguous(at::MemoryFormat::ChannelsLast);
  add({32 * s, 16 * s});
  all.back() = all.back().t();
  add({1, 64});
  add({32 * s});
  add({});
  add({0, 16});
  for (at::Tensor& p : all) {
    at::Tensor leaf = at::empty_strided(p.sizes(), p.strides(), p.options().dtype(setting.dtype));
    p = leaf.copy_(p).to(device).detach().requires_grad_(true);
  }
  return all;
}

/// Gradients of step t: the same on every device.
void set_gradients(const Tensors& parameters, int64_t t, double factor = 1) {
  for (size_t i = 0; i < parameters.size(); ++i) {
    const auto seed = static_cast<int64_t>(i) * 1000;
    const at::Tensor gradient =
        gaussian(parameters[i].sizes(), seed) + 0.5 * gaussian(parameters[i].sizes(), seed + 1 + t);
    parameters[i].mutable_grad() =
        gradient.mul(factor).to(parameters[i].device(), parameters[i].scalar_type());
  }
}

void train(torch::optim::Optimizer& optimizer, const Tensors& parameters, int64_t first,
           int64_t last) {
  for (int64_t t = first; t < last; ++t) {
    set_gradients(parameters, t);
    optimizer.step();
  }
}

/// The iteration that runs on GPUs, on the CPU, too.
RootOptions options_in(at::ScalarType compute) {
  return RootOptions(0.02).orthogonalizer(
      AdaNewton().iteration(Iteration::NewtonSchulz).compute_dtype(compute));
}

/// max over parameters of ‖a − b‖ ÷ ‖b − start‖: as a share of the way they went.
double difference(const Tensors& a, const Tensors& b, const Tensors& start) {
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].numel() == 0) continue;
    const auto exact = [](const at::Tensor& x) { return x.detach().cpu().to(at::kDouble); };
    const double way = (exact(b[i]) - exact(start[i])).norm().item<double>();
    const double off = (exact(a[i]) - exact(b[i])).norm().item<double>();
    worst = (std::max)(worst, off / (std::max)(way, 1e-30));
    if (!(off <= 1e30)) return std::numeric_limits<double>::infinity();
  }
  return worst;
}

bool same_bits(const Tensors& a, const Tensors& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (!a[i].detach().cpu().equal(b[i].detach().cpu())) return false;
  }
  return true;
}

int64_t steps_of(const Run& run) { return run.quick ? 4 : 20; }

// ---- Parts ------------------------------------------------------------------------------------------

void trajectory(Run& run) {
  // Newton–Schulz lifts what is small by up to 500, so that rounding of 6e-8 may come out as 3e-5 in a step.
  const std::vector<std::tuple<at::ScalarType, at::ScalarType, double>> cases = {
      {at::kDouble, at::kDouble, 1e-9},
      {at::kFloat, at::kDouble, 1e-3},
      {at::kFloat, at::kFloat, 1e-2},
      {at::kFloat, at::kBFloat16, 0.5},
      {at::kBFloat16, at::kFloat, 0.5}};
  for (const auto& [dtype, compute, bound] : cases) {
    const Setting setting{dtype, run.quick};
    const Tensors here = parameters_on(at::kCPU, setting), start = parameters_on(at::kCPU, setting),
                  there = parameters_on(run.device, setting);
    Root a(here, options_in(compute)), b(there, options_in(compute));
    train(a, here, 0, steps_of(run));
    train(b, there, 0, steps_of(run));
    const double off = difference(there, here, start);
    run.expect(off <= bound, text("%s, products in %s: %.2e of the way, at most %.0e",
                                  c10::toString(dtype), c10::toString(compute), off, bound));
  }
  const Setting setting{at::kFloat, run.quick};
  const Tensors here = parameters_on(at::kCPU, setting), start = parameters_on(at::kCPU, setting),
                there = parameters_on(run.device, setting);
  const auto options = MuonOptions(0.02).orthogonalizer(NewtonSchulz().compute_dtype(at::kFloat));
  Muon a(here, options), b(there, options);
  train(a, here, 0, steps_of(run));
  train(b, there, 0, steps_of(run));
  const double off = difference(there, here, start);
  run.expect(off <= 1e-2, text("Muon in float32: %.2e of the way, at most 1e-02", off));
}

void repeat(Run& run) {
  for (const at::ScalarType compute : {at::kFloat, at::kBFloat16}) {
    const Setting setting{at::kFloat, run.quick};
    const Tensors first = parameters_on(run.device, setting),
                  second = parameters_on(run.device, setting);
    Root a(first, options_in(compute)), b(second, options_in(compute));
    train(a, first, 0, steps_of(run));
    train(b, second, 0, steps_of(run));
    run.expect(same_bits(first, second),
               text("two runs are equal bit by bit, %s", c10::toString(compute)));
  }
}

void checkpoint(Run& run) {
  const Setting setting{at::kFloat, run.quick};
  const Tensors there = parameters_on(run.device, setting),
                back = parameters_on(run.device, setting), here = parameters_on(at::kCPU, setting);
  const auto options = options_in(at::kFloat);
  Root saved(there, options), on_cpu(here, options), again(back, options);
  train(saved, there, 0, 3);
  std::stringstream first, second, third;
  save(saved, first);
  load(on_cpu, first);
  save(on_cpu, second);
  run.expect(first.str() == second.str(), "device to CPU: the same file from there");
  load(again, second);
  save(again, third);
  run.expect(first.str() == third.str(), "and back: the same file");
  for (size_t i = 0; i < there.size(); ++i) back[i].data().copy_(there[i]);
  train(saved, there, 3, 6);
  train(again, back, 3, 6);
  run.expect(same_bits(there, back), "both go on to the same bits");
}

void mixed(Run& run) {
  for (const at::ScalarType dtype : {at::kHalf, at::kBFloat16}) {
    const Setting setting{dtype, run.quick};
    const Tensors parameters = parameters_on(run.device, setting),
                  scaled = parameters_on(run.device, setting),
                  start = parameters_on(run.device, setting);
    const auto options = options_in(at::kFloat);
    Root plain(parameters, options), by_scale(scaled, options);
    for (int64_t t = 0; t < steps_of(run); ++t) {
      set_gradients(parameters, t);
      plain.step();
      // A loss scale: gradients in the parameter's dtype, divided after they were computed.
      set_gradients(scaled, t, 1024);
      for (const at::Tensor& p : scaled) p.mutable_grad().div_(1024);
      by_scale.step();
    }
    const double off = difference(scaled, parameters, start);
    run.expect(off <= 0.05,
               text("%s with a loss scale of 1024: %.2e of the way", c10::toString(dtype), off));
    // A scale that was too large: the step is skipped, nothing has changed.
    const Tensors before = [&] {
      Tensors copies;
      for (const at::Tensor& p : scaled) copies.push_back(p.detach().clone());
      return copies;
    }();
    set_gradients(scaled, 99, 1e30);
    for (const at::Tensor& p : scaled) {
      if (p.numel() > 0) p.mutable_grad().fill_(std::numeric_limits<double>::infinity());
    }
    by_scale.step();
    run.expect(same_bits(before, scaled), "and one that overflows: the step is skipped");
  }
}

void non_finite(Run& run) {
  for (const NonFinite policy :
       {NonFinite::Skip, NonFinite::SkipGroup, NonFinite::Zero, NonFinite::Raise}) {
    const Setting setting{at::kFloat, true};
    const Tensors parameters = parameters_on(run.device, setting);
    Root root(parameters, options_in(at::kFloat).non_finite(policy));
    train(root, parameters, 0, 2);
    Tensors before;
    for (const at::Tensor& p : parameters) before.push_back(p.detach().clone());
    set_gradients(parameters, 2);
    parameters[0].mutable_grad().view(-1)[3].fill_(std::numeric_limits<double>::quiet_NaN());
    parameters[6].mutable_grad().view(-1)[3].fill_(std::numeric_limits<double>::infinity());
    bool threw = false;
    try {
      root.step();
    } catch (const c10::Error&) {
      threw = true;
    }
    bool finite = true;
    for (const at::Tensor& p : parameters) finite = finite && p.isfinite().all().item<bool>();
    const bool stays = parameters[0].equal(before[0]), moves = !parameters[1].equal(before[1]);
    const auto faults = gradient_faults(root);
    const bool skips = finite && stays && moves && !threw && parameters[6].equal(before[6]);
    const bool number_stays = parameters[7].equal(before[7]);
    if (policy == NonFinite::Skip) {
      run.expect(skips && !number_stays && faults.size() == 2,
                 "Skip: what has NaN stays, others move, and it is counted");
    } else if (policy == NonFinite::SkipGroup) {
      run.expect(skips && number_stays && faults.size() >= 2,
                 "SkipGroup: the AdamW parameters stop together");
    } else if (policy == NonFinite::Zero) {
      run.expect(finite && !stays && moves && !threw, "Zero: all move and stay finite");
    } else {
      run.expect(threw && same_bits(before, parameters), "Raise: throws, nothing has changed");
    }
  }
}

void moved(Run& run) {
  const Setting setting{at::kFloat, run.quick};
  const Tensors model = parameters_on(at::kCPU, setting), here = parameters_on(at::kCPU, setting),
                start = parameters_on(at::kCPU, setting);
  Root root(model, options_in(at::kFloat)), cpu(here, options_in(at::kFloat));
  train(root, model, 0, 2);
  train(cpu, here, 0, 2);
  const auto move = [&](at::Device device) {
    for (const at::Tensor& p : model) {
      const at::NoGradGuard no_grad;
      p.mutable_grad() = at::Tensor();
      p.set_data(p.detach().to(device));  // as Module::to does
    }
  };
  move(run.device);
  train(root, model, 2, 4);
  train(cpu, here, 2, 4);
  const double there = difference(model, here, start);
  move(at::kCPU);
  train(root, model, 4, 6);
  train(cpu, here, 4, 6);
  const double back = difference(model, here, start);
  run.expect(there <= 1e-2, text("state follows to the device: %.2e of the way", there));
  run.expect(back <= 1e-2, text("and back: %.2e of the way", back));
}

void devices(Run& run) {
  if (!run.device.is_cuda() || torch::cuda::device_count() < 2) {
    std::printf("  left out: one device\n");
    return;
  }
  const Setting setting{at::kFloat, run.quick};
  const Tensors a = parameters_on(at::Device(at::kCUDA, 0), setting),
                b = parameters_on(at::Device(at::kCUDA, 1), setting),
                alone = parameters_on(at::Device(at::kCUDA, 1), setting);
  Tensors both = a;
  both.insert(both.end(), b.begin(), b.end());
  Root root(both, options_in(at::kFloat)), single(alone, options_in(at::kFloat));
  for (int64_t t = 0; t < steps_of(run); ++t) {
    set_gradients(a, t);
    set_gradients(b, t);
    set_gradients(alone, t);
    root.step();
    single.step();
  }
  run.expect(same_bits(b, alone), "a group over two devices steps as one over each");
}

/// For compute-sanitizer: every kind of parameter and policy once.
void sanitizer(Run& run) {
  const Setting setting{at::kFloat, true};
  for (const at::ScalarType compute : {at::kFloat, at::kBFloat16}) {
    const Tensors parameters = parameters_on(run.device, setting);
    Root root(parameters,
              options_in(compute).update_beta(0.9).filter_place(FilterPlace::AllGradients));
    train(root, parameters, 0, 2);
    run.expect(parameters[0].isfinite().all().item<bool>(),
               text("two steps, %s", c10::toString(compute)));
  }
}

const std::vector<std::pair<const char*, void (*)(Run&)>>& parts() {
  static const std::vector<std::pair<const char*, void (*)(Run&)>> all = {
      {"orthogonalize", orthogonalize},
      {"trajectory", trajectory},
      {"repeat", repeat},
      {"checkpoint", checkpoint},
      {"mixed", mixed},
      {"non_finite", non_finite},
      {"moved", moved},
      {"devices", devices},
      {"sanitizer", sanitizer}};
  return all;
}

int usage() {
  std::fprintf(stderr, "usage: gpu_check [--device cpu|cuda] [--quick] [PART...]\nparts:");
  for (const auto& part : parts()) std::fprintf(stderr, " %s", part.first);
  std::fprintf(stderr, "\n");
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  Run run{at::kCUDA, false};
  std::vector<std::string> chosen;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--quick") {
      run.quick = true;
    } else if (argument == "--device" && i + 1 < argc) {
      const std::string name = argv[++i];
      if (name != "cpu" && name != "cuda") return usage();
      run.device = name == "cpu" ? at::Device(at::kCPU) : at::Device(at::kCUDA, 0);
    } else {
      const auto named = [&](const auto& part) { return argument == part.first; };
      if (std::none_of(parts().begin(), parts().end(), named)) return usage();
      chosen.push_back(argument);
    }
  }
  if (run.device.is_cuda() && !torch::cuda::is_available()) {
    std::fprintf(stderr, "gpu_check: expected a CUDA device, got none from LibTorch %s\n",
                 TORCH_VERSION);
    return 2;
  }
  std::printf("LibTorch %s, %s\n", TORCH_VERSION, run.device.str().c_str());
  int64_t failures = 0;
  for (const auto& [name, part] : parts()) {
    if (!chosen.empty() && std::find(chosen.begin(), chosen.end(), name) == chosen.end()) continue;
    std::printf("%s\n", name);
    run.failures = 0;
    try {
      part(run);
    } catch (const std::exception& error) {
      run.expect(false, std::string(error.what()).substr(0, 2000));
    }
    failures += run.failures;
    std::fflush(stdout);
  }
  std::printf(failures == 0 ? "all as expected\n" : "%lld failures\n",
              static_cast<long long>(failures));
  return failures == 0 ? 0 : 1;
}
