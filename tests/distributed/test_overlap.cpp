// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Gradients that travel while `backward()` runs.
#include "model.hpp"
#include "ranks.hpp"

#include <cstdint>
#include <functional>
#include <root_optim/distributed.hpp>
#include <string>
#include <vector>

using namespace root_optim;
using test::bits_of;
using test::Model;
using test::on_all_ranks;

namespace {

ReducerOptions overlapped(int64_t bucket_bytes = 5000) {
  return ReducerOptions().overlap(true).bucket_bytes(bucket_bytes);
}

/// A loss whose gradients are random, those of `seed`. Parameters in `without` have none.
at::Tensor loss_of(const Model& model, int64_t seed, const std::vector<at::Tensor>& without = {}) {
  auto generator = at::detail::createCPUGenerator(static_cast<uint64_t>(seed));
  at::Tensor loss = at::zeros({}, at::kDouble);
  for (const at::Tensor& parameter : model.all()) {
    const at::Tensor gradient = at::randn(parameter.sizes(), generator).to(parameter.scalar_type());
    bool has = true;
    for (const at::Tensor& one : without) has = has && !parameter.is_same(one);
    if (has) loss = loss + (parameter * gradient).sum().to(at::kDouble);
  }
  return loss;
}

void zero_grad(const Model& model) {
  for (at::Tensor parameter : model.all()) parameter.mutable_grad().reset();
}

std::string gradient_bits(const std::vector<at::Tensor>& parameters) {
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& parameter : parameters) {
    gradients.push_back(parameter.grad().defined() ? parameter.grad() : at::empty({0}));
  }
  return bits_of(gradients);
}

/// The bits that `body` leaves in gradients, which must be those of rank 0 on all ranks.
std::string same_on_all(int size, const std::function<std::string(int, const test::Group&)>& body) {
  std::vector<std::string> bits(static_cast<size_t>(size));
  on_all_ranks(size, [&](int rank, const test::Group& group) {
    bits[static_cast<size_t>(rank)] = body(rank, group);
  });
  for (const std::string& one : bits) CHECK((one == bits[0]));
  return bits[0];
}

/// x·w, whose gradient for w is brought by a backward() within backward(), as where activations are computed again.
struct Recomputed : torch::autograd::Function<Recomputed> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& w) {
    context->saved_data["x"] = x;
    context->saved_data["w"] = w;
    return (x * w).detach();
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradient) {
    const at::Tensor w = context->saved_data["w"].toTensor();
    const at::AutoGradMode with_graph(true);
    const at::Tensor x = context->saved_data["x"].toTensor().detach().requires_grad_();
    (x * w).backward(gradient[0]);
    return {x.grad(), at::Tensor()};
  }
};

/// Counts what starts.
struct Counting : c10d::ProcessGroup {
  explicit Counting(const test::Group& group)
      : c10d::ProcessGroup(group->getRank(), group->getSize()), group_(group) {
#if TORCH_VERSION_MAJOR >= 2
    setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::GLOO,
               group->getBackend(c10::DeviceType::CPU));
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 4
    setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
#endif
  }
#else
  }
  const std::string getBackendName() const override { return group_->getBackendName(); }
  c10::intrusive_ptr<c10d::Work> allgather(std::vector<std::vector<at::Tensor>>& to,
                                           std::vector<at::Tensor>& from,
                                           const c10d::AllgatherOptions& options) override {
    return group_->allgather(to, from, options);
  }
#endif
  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>& tensors,
                                           const c10d::AllreduceOptions& options) override {
    ++started;
    return group_->allreduce(tensors, options);
  }
  int64_t started = 0;

 private:
  test::Group group_;
};

}  // namespace

TEST_CASE("gradients that travel during backward have the bits of those that travel behind it") {
  const int64_t bucket_bytes = GENERATE(1, 5000, 1 << 20);
  for (const int size : {1, 2, 3, 4}) {
    INFO(size << " ranks, " << bucket_bytes << " bytes");
    const auto averaged = [&](bool overlap, bool late) {
      return same_on_all(size, [&](int rank, const test::Group& group) {
        const Model model;
        GradientReducer reducer(model.all(), group, overlapped(bucket_bytes).overlap(overlap));
        for (int64_t step = 0; step < 2; ++step) {
          zero_grad(model);
          const auto backward = [&] { loss_of(model, 10 * step + rank).backward(); };
          if (late) {
            const auto only_add = reducer.no_sync();
            backward();
          } else {
            backward();
          }
          reducer.reduce();
        }
        return gradient_bits(model.all());
      });
    };
    const std::string plain = averaged(false, false);
    CHECK((averaged(true, false) == plain));
    CHECK((averaged(true, true) == plain));
  }
}

TEST_CASE("sums start while backward runs, in one order") {
  on_all_ranks(2, [](int rank, const test::Group& group) {
    const Model model;
    const auto counting = c10::make_intrusive<Counting>(group);
    GradientReducer reducer(model.all(), counting, overlapped());
    const auto buckets =
        static_cast<int64_t>(root_optim::detail::gradient_buckets(model.all(), 5000).size());
    TORCH_CHECK(buckets > 10);
    int64_t before_last = -1;
    model.matrices[0].register_hook([&](at::Tensor) { before_last = counting->started; });
    loss_of(model, rank).backward();
    TORCH_CHECK(before_last > buckets / 2, "expected most of ", buckets, ", got ", before_last);
    TORCH_CHECK(counting->started == buckets);
    reducer.reduce();
    TORCH_CHECK(counting->started == buckets);
    {  // what is missing holds back its bucket, and those behind it
      zero_grad(model);
      loss_of(model, rank, rank == 1 ? model.others : std::vector<at::Tensor>()).backward();
      TORCH_CHECK(counting->started == (rank == 1 ? 1 : 2) * buckets);
      reducer.reduce();
      TORCH_CHECK(counting->started == 2 * buckets);
    }
    {
      const auto only_add = reducer.no_sync();
      { const auto nested = reducer.no_sync(); }
      loss_of(model, rank).backward();
      TORCH_CHECK(counting->started == 2 * buckets);
    }
    loss_of(model, rank).backward();
    TORCH_CHECK(counting->started == 3 * buckets);
    reducer.reduce();
  });
}

TEST_CASE("buckets hold the last parameters first, and those without a gradient last") {
  const at::Tensor a = at::ones({10}).requires_grad_(), b = at::ones({10}).requires_grad_(),
                   c = at::ones({10}, at::kDouble).requires_grad_(),
                   d = at::ones({10}, at::kBFloat16).requires_grad_(), frozen = at::ones({10}),
                   empty = at::ones({0}).requires_grad_();
  using Buckets = std::vector<std::vector<size_t>>;
  const std::vector<at::Tensor> all{a, frozen, c, empty, b, d};
  CHECK((root_optim::detail::gradient_buckets(all, 80) == Buckets{{5, 4}, {2}, {0}, {1}}));
  CHECK((root_optim::detail::gradient_buckets(all, 79) == Buckets{{5}, {4}, {2}, {0}, {1}}));
  CHECK((root_optim::detail::gradient_buckets(all, 1000) == Buckets{{2}, {5, 4, 0}, {1}}));
  CHECK(root_optim::detail::gradient_buckets({}, 1).empty());
}

TEST_CASE("micro-batches in scopes of no_sync add up to the large batch") {
  // Whole numbers: every sum is exact.
  auto generator = at::detail::createCPUGenerator(7);
  const at::Tensor x = at::randint(-3, 4, {24, 5}, generator, at::kFloat),
                   y = at::randint(-3, 4, {24, 4}, generator, at::kFloat);
  const auto weights = [] {
    auto seeded = at::detail::createCPUGenerator(8);
    return std::vector<at::Tensor>{at::randint(-2, 3, {5, 6}, seeded, at::kFloat).requires_grad_(),
                                   at::randint(-2, 3, {6, 4}, seeded, at::kFloat).requires_grad_()};
  };
  const auto loss = [&](const std::vector<at::Tensor>& w, int64_t first, int64_t rows) {
    const at::Tensor out = x.narrow(0, first, rows).matmul(w[0]).relu().matmul(w[1]);
    return (out - y.narrow(0, first, rows)).square().sum();
  };
  for (const int size : {1, 2, 4}) {
    const std::vector<at::Tensor> whole = weights();
    (loss(whole, 0, 24) / size).backward();
    const std::string bits = same_on_all(size, [&](int rank, const test::Group& group) {
      const std::vector<at::Tensor> w = weights();
      GradientReducer reducer(w, group, overlapped(1));
      const int64_t own = 24 / size, micro = own / 3;
      for (int64_t m = 0; m < 3; ++m) {
        if (m < 2) {
          const auto only_add = reducer.no_sync();
          loss(w, own * rank + m * micro, micro).backward();
        } else {
          loss(w, own * rank + m * micro, micro).backward();
        }
      }
      reducer.reduce();
      return gradient_bits(w);
    });
    CHECK((bits == gradient_bits(whole)));
  }
}

TEST_CASE("overlapped steps have the bits of steps behind a reduction") {
  const int size = GENERATE(2, 3);
  const auto train = [&](bool overlap) {
    return same_on_all(size, [&](int rank, const test::Group& group) {
      const Model model;
      Root optimizer(model.groups(RootOptions()));
      distribute(optimizer, group);
      GradientReducer reducer(model.all(), group, overlapped().overlap(overlap));
      for (int64_t step = 0; step < 5; ++step) {
        optimizer.zero_grad();
        loss_of(model, 10 * step + rank).backward();
        reducer.reduce();
        reducer.clip_norm(5);
        optimizer.step();
      }
      return bits_of(model.all());
    });
  };
  CHECK((train(true) == train(false)));
}

TEST_CASE("with overlap, a gradient that some ranks lack counts as 0 or is an error") {
  const auto lacks = [](const Model& model, int rank) {
    std::vector<at::Tensor> without{model.others[3]};  // on all ranks
    if (rank != 1) {
      without.push_back(model.matrices[1]);
      without.push_back(model.others.back());
    }
    return without;
  };
  const auto averaged = [&](bool overlap) {
    return same_on_all(2, [&](int rank, const test::Group& group) {
      const Model model;
      GradientReducer reducer(model.all(), group, overlapped().overlap(overlap));
      loss_of(model, rank).backward();  // what lacks a gradient next must not keep this one's sum
      reducer.reduce();
      zero_grad(model);
      loss_of(model, 2 + rank, lacks(model, rank)).backward();
      reducer.reduce();
      TORCH_CHECK(!model.others[3].grad().defined());
      return gradient_bits(model.all());
    });
  };
  CHECK((averaged(true) == averaged(false)));  // of 2 ranks: sums of two do not depend on the order

  on_all_ranks(3, [&](int rank, const test::Group& group) {
    const Model model;
    GradientReducer reducer(model.all(), group, overlapped().missing(MissingGradient::Error));
    loss_of(model, rank, lacks(model, rank)).backward();
    const std::string before = gradient_bits(model.all());
    const std::string message = test::message_of([&] { reducer.reduce(); });
    TORCH_CHECK(message.find("expected a gradient on all ranks or on none, got one on rank 1") !=
                    std::string::npos,
                message);
    TORCH_CHECK(gradient_bits(model.all()) == before, "changed");
    zero_grad(model);  // and the next step may follow
    loss_of(model, rank).backward();
    reducer.reduce();
  });
}

TEST_CASE("with overlap, an error of one rank is thrown on all, and no gradient changes") {
  using Do = std::function<void(const Model&, GradientReducer&)>;
  const std::string changed =
      "rank 1: root_optim::GradientReducer: expected that no gradient "
      "changes between backward(), which sends it, and reduce()";
  const auto again = [](const Model& model, GradientReducer&) { loss_of(model, 9).backward(); };
  const std::vector<std::pair<Do, std::string>> cases{
      {again, changed},
      {[&](const Model& model, GradientReducer& reducer) {
         const auto too_late = reducer.no_sync();
         again(model, reducer);
       },
       changed},
      {[](const Model& model, GradientReducer&) { model.matrices[2].grad().mul_(2); }, changed},
      {[&](const Model& model, GradientReducer& reducer) {  // a step that left out reduce()
         zero_grad(model);
         again(model, reducer);
       },
       changed},
      {[](const Model& model, GradientReducer&) { zero_grad(model); }, changed},
      {[](const Model& model, GradientReducer&) { model.others[0].mutable_grad() = at::ones({3}); },
       "rank 1: root_optim::GradientReducer: expected that no gradient changes"},
  };
  for (const auto& [spoil, expected] : cases) {
    on_all_ranks(3, [&, &spoil = spoil, &expected = expected](int rank, const test::Group& group) {
      const Model model, plain;
      GradientReducer reducer(model.all(), group, overlapped());
      GradientReducer behind(plain.all(), group, overlapped().overlap(false));
      loss_of(model, rank).backward();
      if (rank == 1) spoil(model, reducer);
      const std::string before = gradient_bits(model.all());
      const std::string message = test::message_of([&] { reducer.reduce(); });
      TORCH_CHECK(message.find(expected) != std::string::npos, message);
      TORCH_CHECK(gradient_bits(model.all()) == before, "changed");
      zero_grad(model);
      loss_of(model, 5 + rank).backward();
      reducer.reduce();
      loss_of(plain, 5 + rank).backward();
      behind.reduce();
      TORCH_CHECK(gradient_bits(model.all()) == gradient_bits(plain.all()));
    });
  }
}

TEST_CASE("two backward passes over different parameters are one to the reducer") {
  const auto averaged = [](bool overlap) {
    return same_on_all(3, [&](int rank, const test::Group& group) {
      const Model model;
      GradientReducer reducer(model.all(), group, overlapped().overlap(overlap));
      loss_of(model, rank, rank == 1 ? model.matrices : model.others).backward();
      loss_of(model, rank, rank == 1 ? model.others : model.matrices).backward();
      reducer.reduce();
      return gradient_bits(model.all());
    });
  };
  CHECK((averaged(true) == averaged(false)));
}

TEST_CASE("a sparse gradient of one rank is refused on all, also in backward") {
  on_all_ranks(2, [](int rank, const test::Group& group) {
    const std::vector<at::Tensor> w{at::ones({5, 3}).requires_grad_(),
                                    at::ones({4, 3}).requires_grad_()};
    GradientReducer reducer(w, group, overlapped(1));
    for (const bool sparse : {true, false}) {
      for (at::Tensor one : w) one.mutable_grad().reset();
      const at::Tensor rows = at::embedding(w[0], at::arange(2), -1, false, sparse && rank == 1);
      (rows.sum() + (rank + 1) * w[1].sum()).backward();
      const std::string message = test::message_of([&] { reducer.reduce(); });
      TORCH_CHECK((message.find("rank 1: ") == 0) == sparse, message);
      TORCH_CHECK(w[1].grad()[0][0].item<double>() == (sparse ? rank + 1 : 1.5));
    }
  });
}

TEST_CASE("tied weights and gradients with a graph travel once, whole") {
  const auto averaged = [](bool overlap, bool graph) {
    return same_on_all(3, [&](int rank, const test::Group& group) {
      auto generator = at::detail::createCPUGenerator(3);
      const std::vector<at::Tensor> w{at::randn({6, 6}, generator).requires_grad_(),
                                      at::randn({6}, generator).requires_grad_()};
      GradientReducer reducer(w, group, overlapped(1).overlap(overlap));
      const at::Tensor x = at::randn({4, 6}, generator) * (rank + 1);
      const at::Tensor loss = (x.matmul(w[0]) + w[1]).tanh().matmul(w[0].t()).square().sum();
      loss.backward({}, graph, graph);
      reducer.reduce();
      const std::string bits = gradient_bits(w);
      for (at::Tensor one : w) one.mutable_grad().reset();  // a graph holds its own leaf
      return bits;
    });
  };
  for (const bool graph : {false, true}) CHECK((averaged(true, graph) == averaged(false, graph)));
}

TEST_CASE("a backward within backward brings a gradient once, or it is refused") {
  const bool used_twice = GENERATE(false, true);
  on_all_ranks(2, [&](int rank, const test::Group& group) {
    const at::Tensor w = at::full({4}, 2.f).requires_grad_(), v = at::ones({4}).requires_grad_();
    GradientReducer reducer({v, w}, group, overlapped(1));
    at::Tensor x = Recomputed::apply(v * (rank + 1.), w);
    if (used_twice) x = Recomputed::apply(x, w);
    x.sum().backward();
    TORCH_CHECK(w.grad()[0].item<double>() == (used_twice ? 4 : 1) * (rank + 1.));
    const std::string message = test::message_of([&] { reducer.reduce(); });
    TORCH_CHECK(
        (message.find("expected that no gradient changes") != std::string::npos) == used_twice,
        message);
    if (!used_twice) TORCH_CHECK(w.grad()[0].item<double>() == 1.5);
  });
}

TEST_CASE("a reducer that is gone no longer listens") {
  on_all_ranks(2, [](int rank, const test::Group& group) {
    const Model model;
    const auto counting = c10::make_intrusive<Counting>(group);
    at::Tensor loss;
    {
      GradientReducer reducer(model.all(), counting, overlapped());
      loss = loss_of(model, rank);
    }
    loss.backward();
    TORCH_CHECK(counting->started == 0);
    TORCH_CHECK(model.matrices[0].grad().defined());
  });
}

TEST_CASE("a rank that leaves between backward and reduce is noticed, and no gradient changes") {
  const std::vector<std::string> thrown = test::on_ranks(
      3,
      [](int rank, const test::Group& group) {
        const Model model;
        GradientReducer reducer(model.all(), group, overlapped());
        loss_of(model, rank, rank == 1 ? model.matrices : std::vector<at::Tensor>()).backward();
        const std::string before = gradient_bits(model.all());
        TORCH_CHECK(rank != 1, "leaves");
        try {
          reducer.reduce();
        } catch (...) {
          TORCH_CHECK(gradient_bits(model.all()) == before, "changed");
          loss_of(model, rank).backward();  // goes on alone
          TORCH_CHECK(test::message_of([&] {
                        reducer.reduce();
                      }).find("expected ranks in step, got a failure in GradientReducer::reduce") !=
                      std::string::npos);
          throw;
        }
      },
      std::chrono::seconds(2));
  CHECK_THAT(thrown[1], test::contains("leaves"));
  for (const size_t rank : {size_t{0}, size_t{2}}) {
    CHECK_THAT(thrown[rank], test::contains("expected every rank to take part, got, in "
                                            "GradientReducer::reduce"));
  }
}

TEST_CASE("what cannot be overlapped is refused on all ranks") {
  const auto all_throw = [](const auto& f, const std::string& message) {
    for (const std::string& one : test::on_ranks(2, f)) CHECK_THAT(one, test::contains(message));
  };
  all_throw(
      [](int, const test::Group& group) {
        GradientReducer(Model().all(), group, overlapped().limit_ranks(2));
      },
      "rank 0: root_optim::GradientReducer: expected limit_ranks = 0 with overlap, got 2");
  all_throw(
      [](int rank, const test::Group& group) {
        GradientReducer(Model().all(), group, overlapped().overlap(rank == 0));
      },
      "expected equal shapes, dtypes and requires_grad of parameters, and options, on all ranks");
  all_throw(
      [](int rank, const test::Group& group) {
        const Model model;
        { GradientReducer before(model.all(), group, overlapped()); }
        GradientReducer one(model.all(), group, overlapped());
        const test::Group other = c10::make_intrusive<Counting>(group);
        GradientReducer two(model.all(), rank == 0 ? group : other, overlapped());
      },
      "rank 0: root_optim::GradientReducer: with overlap, expected a group that no other");
  all_throw(
      [](int rank, const test::Group& group) {
        Model model;
        Root optimizer(model.groups(RootOptions()));
        distribute(optimizer, group);
        OwnerReducer(optimizer, ReducerOptions().overlap(rank == 1));
      },
      "rank 1: root_optim::OwnerReducer: expected no overlap");
}
