// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Prints a digest of all parameters and all state after some steps, for one configuration of the
// optimizer after the other. Two revisions of the library that print the same lines on one machine
// compute the same bits; scripts/digest.sh compares them. Tests with tolerances cannot tell that.
#include <torch/torch.h>

#include <root_optim/root_optim.hpp>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <sstream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace {

using namespace root_optim;
using Group = torch::optim::OptimizerParamGroup;
using Tensors = std::vector<at::Tensor>;

// ---- Values and digests ---------------------------------------------------------------------------------

/// A stream of numbers that every C++ library draws alike.
class Numbers {
 public:
  explicit Numbers(std::uint64_t seed) : state_(seed * 2654435761u + 88172645463325252u) {}

  /// Heavy-tailed, about 1 in size: a few entries of a matrix stand out.
  double next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    const double uniform = static_cast<double>(state_ >> 11) * 0x1p-53 - 0.5;
    return uniform / (0.51 - std::fabs(uniform));
  }

 private:
  std::uint64_t state_;
};

/// Rows and columns of unequal size, as gradients have.
at::Tensor values(at::IntArrayRef shape, std::uint64_t seed) {
  Numbers numbers(seed);
  at::Tensor t = at::empty(shape, at::kDouble);
  for (int64_t i = 0; i < t.numel(); ++i) {
    t.data_ptr<double>()[i] = numbers.next() / static_cast<double>(1 + i % 7);
  }
  return t;
}

class Digest {
 public:
  void add(const void* data, size_t size) {
    const auto* bytes = static_cast<const unsigned char*>(data);
    for (size_t i = 0; i < size; ++i) value_ = (value_ ^ bytes[i]) * 1099511628211u;
  }
  void add(const at::Tensor& tensor) {
    const bool defined = tensor.defined();
    add(&defined, sizeof defined);
    if (!defined) return;
    const at::Tensor plain = tensor.detach().contiguous();
    add(plain.data_ptr(), plain.nbytes());
  }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 14695981039346656037u;
};

const ParamState* state_of(const torch::optim::Optimizer& optimizer, const at::Tensor& parameter) {
#if TORCH_VERSION_MAJOR >= 2
  const auto found = optimizer.state().find(parameter.unsafeGetTensorImpl());
#else
  const auto found = optimizer.state().find(c10::guts::to_string(parameter.unsafeGetTensorImpl()));
#endif
  return found == optimizer.state().end() ? nullptr
                                          : static_cast<const ParamState*>(found->second.get());
}

std::uint64_t digest(const torch::optim::Optimizer& optimizer, const Tensors& parameters) {
  Digest sum;
  for (const at::Tensor& parameter : parameters) {
    sum.add(parameter);
    const ParamState* state = state_of(optimizer, parameter);
    if (state == nullptr) continue;
    const int64_t step = state->step();
    sum.add(&step, sizeof step);
    for (const at::Tensor& tensor : {state->momentum_buffer(), state->exp_avg(),
                                     state->exp_avg_sq(), state->skipped(), state->non_finite()}) {
      sum.add(tensor);
    }
  }
  return sum.value();
}

void print(const std::string& name, std::uint64_t digest) {
  std::printf("%016llx  %s\n", static_cast<unsigned long long>(digest), name.c_str());
  std::fflush(stdout);
}

// ---- Parameters -------------------------------------------------------------------------------------------

struct Shape {
  std::vector<int64_t> sizes;
  at::ScalarType dtype = at::kFloat;
  enum class Strides { Contiguous, Transposed, ChannelsLast, Gaps } strides = Strides::Contiguous;
};
using Strides = Shape::Strides;

at::Tensor parameter(const Shape& shape, std::uint64_t seed) {
  at::Tensor t = values(shape.sizes, seed).to(shape.dtype);
  switch (shape.strides) {
    case Strides::Contiguous:
      t = t.clone();
      break;
    case Strides::Transposed:
      t = t.transpose(0, 1).contiguous().transpose(0, 1);
      break;
    case Strides::ChannelsLast:
      t = t.contiguous(at::MemoryFormat::ChannelsLast);
      break;
    case Strides::Gaps: {
      std::vector<int64_t> wide = shape.sizes;
      wide.back() *= 2;
      const at::Tensor all = at::zeros(wide, t.options());
      at::Tensor part = all.narrow(-1, 0, shape.sizes.back());
      part.copy_(t);
      t = part;
      break;
    }
  }
  return t.detach().requires_grad_(true);
}

/// One parameter of every kind that a step treats in a way of its own.
const std::vector<Shape>& mixture() {
  static const std::vector<Shape> shapes = {
      {{48, 64}},
      {{64, 48}},
      {{48, 64}},
      {{48, 64}},
      {{64}},
      {{}},
      {{5, 9}},
      {{64, 64}},
      {{33, 130}},
      {{16, 8, 3, 3}},
      {{48, 64}, at::kBFloat16},
      {{64}, at::kBFloat16},
      {{40, 72}, at::kHalf},
      {{48, 64}, at::kDouble},
      {{24}, at::kDouble},
      {{64, 48}, at::kFloat, Strides::Transposed},
      {{16, 8, 3, 3}, at::kFloat, Strides::ChannelsLast},
      {{48, 64}, at::kFloat, Strides::Gaps},
      {{24, 3}, at::kFloat, Strides::Transposed},
      {{0, 16}},
      {{1, 80}},
      {{80, 1}},
  };
  return shapes;
}

Tensors parameters_of(const std::vector<Shape>& shapes) {
  Tensors parameters;
  for (const Shape& shape : shapes) parameters.push_back(parameter(shape, parameters.size() + 1));
  return parameters;
}

/// What is special about a gradient in a step; the default is nothing.
using Change = std::function<void(int64_t step, size_t index, at::Tensor& gradient)>;

void set_gradients(const Tensors& parameters, int64_t step, const Change& change) {
  for (size_t i = 0; i < parameters.size(); ++i) {
    at::Tensor gradient = values(parameters[i].sizes(), 1000 * static_cast<std::uint64_t>(step) + i)
                              .to(parameters[i].scalar_type());
    if (change) change(step, i, gradient);
    parameters[i].mutable_grad() = gradient;
  }
}

template <class Optimizer>
void train(Optimizer& optimizer, const Tensors& parameters, int64_t first, int64_t last,
           const Change& change = {}) {
  for (int64_t step = first; step <= last; ++step) {
    set_gradients(parameters, step, change);
    optimizer.step();
  }
}

constexpr int64_t steps = 4;

template <class Optimizer>
void run(const std::string& name, const typename Optimizer::Options& options,
         const std::vector<Shape>& shapes = mixture(), const Change& change = {}) {
  const Tensors parameters = parameters_of(shapes);
  Optimizer optimizer(parameters, options);
  train(optimizer, parameters, 1, steps, change);
  print(name, digest(optimizer, parameters));
}

// ---- A policy of one's own ----------------------------------------------------------------------------------

struct RowNorm {
  static constexpr const char* name = "row_norm";
  at::Tensor operator()(const at::Tensor& x) const {
    return x.div(x.norm(2, {2}, /*keepdim=*/true).add(1e-3));
  }
};

struct Halve {
  static constexpr const char* name = "halve";
  at::Tensor operator()(const at::Tensor& x) const { return x.clamp(-0.5, 0.5); }
};

// ---- Configurations -------------------------------------------------------------------------------------------

template <class Options>
void common_options(const std::string& name,
                    const std::function<void(const std::string&, const Options&)>& go) {
  go(name, Options(0.02));
  go(name + ", momentum sum", Options(0.02).momentum_form(MomentumForm::Sum));
  go(name + ", momentum ema", Options(0.02).momentum_form(MomentumForm::Ema));
  go(name + ", without nesterov", Options(0.02).nesterov(false));
  go(name + ", no momentum", Options(0.02).momentum(0));
  go(name + ", no weight decay", Options(0.02).weight_decay(0));
  go(name + ", scale original", Options(0.02).scale(LrScale::Original));
  go(name + ", scale spectral", Options(0.02).scale(LrScale::Spectral));
  go(name + ", one by one", Options(0.02).batch_bytes(0));
  go(name + ", two by two", Options(0.02).batch_bytes(200000));
  go(name + ", betas and eps", Options(0.02).betas(std::make_tuple(0.5, 0.999)).eps(1e-4));
}

const Change& faults() {
  static const Change change = [](int64_t step, size_t index, at::Tensor& gradient) {
    if (gradient.numel() == 0) return;
    constexpr float infinity = std::numeric_limits<float>::infinity();
    if (step == 2 && index == 0) gradient.flatten()[0] = std::nan("");
    if (step == 3 && index == 4) gradient.flatten()[1] = infinity;
    if (step == 3 && index == 7) gradient.flatten()[5] = -infinity;
    if (step == 3 && index == 3) gradient.fill_(2e38);
    if (step == 2 && index == 11) gradient.fill_(3e38);
  };
  return change;
}

const Change& missing() {
  static const Change change = [](int64_t step, size_t index, at::Tensor& gradient) {
    if ((static_cast<size_t>(step) + index) % 3 == 0) gradient = at::Tensor();
  };
  return change;
}

const Change& transposed() {
  static const Change change = [](int64_t, size_t, at::Tensor& gradient) {
    if (gradient.dim() == 2) gradient = gradient.t().contiguous().t();
  };
  return change;
}

void roots() {
  using Options = RootOptions;
  const auto go = [](const std::string& name, const Options& options) { run<Root>(name, options); };
  common_options<Options>("root", go);
  go("root, filter of the momentum", Options(0.02).filter_place(FilterPlace::Momentum));
  go("root, filter of all gradients", Options(0.02).filter_place(FilterPlace::AllGradients));
  go("root, quantile", Options(0.02).filter(SoftThreshold().quantile(0.9)));
  go("root, quantile 1", Options(0.02).filter(SoftThreshold().quantile(1)));
  go("root, absolute", Options(0.02).filter(SoftThreshold().absolute(0.3)));
  go("root, relative to RMS", Options(0.02).filter(SoftThreshold().relative_to_rms(1.5)));
  go("root, scaled once", Options(0.02).filter(SoftThreshold().scaled(2, 1)));
  go("root, published split of the momentum",
     Options(0.02).filter(SoftThreshold::published()).filter_place(FilterPlace::Momentum));
  for (const int64_t count : {3, 5, 8, 11}) {
    go("root, steps " + std::to_string(count),
       Options(0.02).orthogonalizer(AdaNewton().steps(count)));
  }
  go("root, budget .5", Options(0.02).orthogonalizer(AdaNewton().budget(0.5)));
  go("root, direct", Options(0.02).orthogonalizer(AdaNewton().form(Form::Direct)));
  go("root, gram", Options(0.02).orthogonalizer(AdaNewton().form(Form::Gram)));
  go("root, in float64", Options(0.02).orthogonalizer(AdaNewton().compute_dtype(at::kDouble)));
#if TORCH_VERSION_MAJOR >= 2
  go("root, in bfloat16", Options(0.02).orthogonalizer(AdaNewton().compute_dtype(at::kBFloat16)));
#endif
  CoefficientTable table;
  table.set(48, 64, {{1.875, -1.25, 0.375}, {1.875, -1.25, 0.375}, {1.5, -0.5, 0}});
  go("root, table", Options(0.02).orthogonalizer(AdaNewton().table(table)));
  go("root, all as adamw", Options(0.02).rule(Rule::AdamW));
  for (const auto& [policy, word] :
       std::vector<std::pair<NonFinite, std::string>>{{NonFinite::Skip, "skip"},
                                                      {NonFinite::Zero, "zero"},
                                                      {NonFinite::Propagate, "propagate"}}) {
    for (const auto& [place, where] : std::vector<std::pair<FilterPlace, std::string>>{
             {FilterPlace::Gradient, "gradient"},
             {FilterPlace::Momentum, "momentum"},
             {FilterPlace::AllGradients, "all gradients"}}) {
      run<Root>("root, faults: " + word + ", filter: " + where,
                Options(0.02).non_finite(policy).filter_place(place), mixture(), faults());
    }
  }
  run<Root>("root, gradients missing", Options(0.02), mixture(), missing());
  run<Root>("root, gradients transposed", Options(0.02), mixture(), transposed());
  run<Root>("root, raise", Options(0.02).non_finite(NonFinite::Raise));
}

void layouts() {
  using Options = RootOptions;
  const auto base = [] { return Options(0.02).rule(Rule::Orthogonalized); };
  const auto with = [&](const std::string& name, const MatrixLayout& layout,
                        std::vector<Shape> shapes) {
    run<Root>("layout " + name, base().layout(layout), shapes);
    run<Root>("layout " + name + ", filter of the momentum",
              base().layout(layout).filter_place(FilterPlace::Momentum), shapes);
    run<Root>("layout " + name + ", skip",
              base().layout(layout).orthogonalizer(AdaNewton().form(Form::Gram)), shapes,
              [](int64_t step, size_t index, at::Tensor& gradient) {
                if (step == 2 && index == 0) gradient.flatten()[0] = std::nan("");
              });
  };
  with("matrix", MatrixLayout(), {{{24, 40}}, {{24, 40}}, {{24, 5, 8}}});
  with("3 row blocks", MatrixLayout().split_rows(3), {{{96, 40}}, {{96, 40}}, {{96, 5, 8}}});
  with("row blocks of unequal sizes", MatrixLayout().split_rows({64, 16, 16}),
       {{{96, 40}}, {{96, 40}}});
  with("out dim 1", MatrixLayout().out_dim(1), {{{16, 24, 3, 3}}, {{16, 24, 3, 3}}});
  with("blocks and out dim", MatrixLayout().split_rows(2).out_dim(1), {{{32, 24, 3, 3}}});
  with("batch", MatrixLayout().batch(true), {{{4, 32, 24}}, {{4, 32, 24}}, {{2, 2, 16, 24}}});
  with("channels last", MatrixLayout(), {{{32, 16, 3, 3}, at::kFloat, Strides::ChannelsLast}});
  with("transposed", MatrixLayout().split_rows(2), {{{32, 48}, at::kFloat, Strides::Transposed}});
}

void muons() {
  using Options = MuonOptions;
  const auto go = [](const std::string& name, const Options& options) { run<Muon>(name, options); };
  common_options<Options>("muon", go);
  for (const char* set : {"jordan", "you", "polar_express", "cubic"}) {
    go(std::string("muon, ") + set,
       Options(0.02).orthogonalizer(NewtonSchulz().coefficients(CoefficientSet::named(set))));
  }
  for (const auto& [kind, word] : std::vector<std::pair<Normalization, std::string>>{
           {Normalization::FrobeniusFloor, "floor"},
           {Normalization::FrobeniusPlus, "plus"},
           {Normalization::Schatten8, "schatten8"}}) {
    for (const Form form : {Form::Direct, Form::Gram}) {
      go("muon, " + word + (form == Form::Gram ? ", gram" : ", direct"),
         Options(0.02).orthogonalizer(NewtonSchulz().normalization(kind).form(form)));
    }
  }
#if TORCH_VERSION_MAJOR >= 2
  go("muon, in bfloat16",
     Options(0.02).orthogonalizer(NewtonSchulz().compute_dtype(at::kBFloat16)));
#endif
  for (const auto& [policy, word] :
       std::vector<std::pair<NonFinite, std::string>>{{NonFinite::Skip, "skip"},
                                                      {NonFinite::Zero, "zero"},
                                                      {NonFinite::Propagate, "propagate"}}) {
    run<Muon>("muon, faults: " + word, Options(0.02).non_finite(policy), mixture(), faults());
  }
  run<Muon>("muon, gradients missing", Options(0.02), mixture(), missing());
}

void others() {
  run<RootPaper>("root as published", root_paper(0.02));
  run<RootPaper>("root as published, faults", root_paper(0.02), mixture(), faults());
  using Exact = OrthogonalizedOptimizer<NoFilter, ExactPolar>;
  run<Exact>("exact polar factor", Exact::Options(0.02));
  using Own = OrthogonalizedOptimizer<Halve, RowNorm>;
  run<Own>("policies of one's own", Own::Options(0.02));
  run<Own>("policies of one's own, filter of all gradients",
           Own::Options(0.02).filter_place(FilterPlace::AllGradients), mixture(), faults());
}

void histories() {
  {  // groups with options of their own
    const Tensors parameters = parameters_of(mixture());
    const size_t half = parameters.size() / 2;
    std::vector<Group> groups;
    groups.emplace_back(
        Tensors(parameters.begin(), parameters.begin() + static_cast<int64_t>(half)),
        std::make_unique<RootOptions>(RootOptions(0.01).momentum(0.5)));
    groups.emplace_back(Tensors(parameters.begin() + static_cast<int64_t>(half), parameters.end()));
    Root optimizer(groups, RootOptions(0.03));
    train(optimizer, parameters, 1, steps);
    print("history: two groups", digest(optimizer, parameters));
  }
  {  // a checkpoint on the way
    const Tensors parameters = parameters_of(mixture());
    std::stringstream file;
    {
      Root optimizer(parameters, RootOptions(0.02));
      train(optimizer, parameters, 1, 2, faults());
      save(optimizer, file);
    }
    Root optimizer(parameters, RootOptions(0.02));
    load(optimizer, file);
    train(optimizer, parameters, 3, steps, faults());
    print("history: saved and loaded", digest(optimizer, parameters));
  }
  {  // a rule and a rate that change
    const Tensors parameters = parameters_of(mixture());
    Root optimizer(parameters, RootOptions(0.02));
    train(optimizer, parameters, 1, 2);
    auto& options = static_cast<RootOptions&>(optimizer.param_groups()[0].options());
    options.rule(Rule::AdamW).lr(0.01);
    train(optimizer, parameters, 3, 4);
    options.rule(Rule::Auto);
    train(optimizer, parameters, 5, 6);
    print("history: a changed rule", digest(optimizer, parameters));
  }
  {  // larger matrices, where symmetric products and several pieces of a copy come in
    const std::vector<Shape> large = {{{600, 600}}, {{600, 600}}, {{520, 1300}}, {{1300, 520}}};
    run<Root>("large", RootOptions(0.02), large);
    run<Muon>("large, muon", MuonOptions(0.02), large);
    run<Root>("large, gram, 9 steps",
              RootOptions(0.02).orthogonalizer(AdaNewton().steps(9).form(Form::Gram)), large);
    run<Root>("large, quantile", RootOptions(0.02).filter(SoftThreshold().quantile(0.95)), large);
  }
  {  // a module, by the table
    torch::nn::Sequential model(
        torch::nn::Conv2d(torch::nn::Conv2dOptions(8, 16, 3).groups(2)),
        torch::nn::ConvTranspose2d(16, 8, 3), torch::nn::LayerNorm(std::vector<int64_t>{8}),
        torch::nn::Linear(32, 16), torch::nn::LSTM(16, 16), torch::nn::Embedding(32, 16));
    const Tensors parameters = model->parameters();
    {
      const at::NoGradGuard no_grad;
      for (size_t i = 0; i < parameters.size(); ++i) {
        parameters[i].copy_(values(parameters[i].sizes(), i + 1));
      }
    }
    Root optimizer(param_groups(*model, RootOptions(0.02)));
    train(optimizer, parameters, 1, steps);
    print("history: a module", digest(optimizer, parameters));
  }
}

}  // namespace

int main() {
  for (const int threads : {1, 2}) {
    at::set_num_threads(threads);
    std::printf("# %d threads\n", threads);
    roots();
    layouts();
    muons();
    others();
    histories();
  }
}
