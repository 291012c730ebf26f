// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// What is asked of c10d. No other header includes it.
#pragma once

#include <root_optim/version.hpp>

#if !__has_include(<torch/csrc/distributed/c10d/ProcessGroup.hpp>)
#error "root_optim/distributed.hpp needs a LibTorch with c10d: one built with USE_DISTRIBUTED=ON"
#endif

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>  // TORCH_CHECK
#include <c10/util/intrusive_ptr.h>
#include <torch/version.h>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <string>
#include <utility>
#include <vector>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

using GroupPtr = c10::intrusive_ptr<c10d::ProcessGroup>;
/// LibTorch 1 has the class within ProcessGroup.
using WorkPtr = decltype(std::declval<c10d::ProcessGroup&>().broadcast(
    std::declval<std::vector<at::Tensor>&>()));

/// A collective that has been started. It keeps its tensors.
struct Started {
  WorkPtr work;
  std::vector<at::Tensor> tensors;
  std::string what;  ///< for messages
};

/// The group of an optimizer. A collective that fails makes it lost: what the others have done by then
/// cannot be known.
class Collectives {
 public:
  /// @throws c10::Error for no group, or for one that has no backend for CPU tensors.
  Collectives(GroupPtr group, std::chrono::milliseconds timeout)
      : group_(std::move(group)), timeout_(timeout) {
    TORCH_CHECK(group_ != nullptr,
                "root_optim::distribute: expected a process group, got a null pointer");
#if TORCH_VERSION_MAJOR >= 2
    bool has_cpu = true;
    try {
      group_->getBackend(c10::DeviceType::CPU);
    } catch (const c10::Error&) {
      has_cpu = false;
    }
    TORCH_CHECK(has_cpu,
                "root_optim::distribute: expected a process group with a backend for the CPU, over "
                "which ranks tell each other of errors, got one without: make it for "
                "\"cpu:gloo,cuda:nccl\"");
#endif
  }

  const GroupPtr& group() const { return group_; }
  int64_t rank() const { return group_->getRank(); }
  int64_t size() const { return group_->getSize(); }

  /// Why the group is lost; empty while it is not.
  const std::string& lost() const { return lost_; }
  void lose(const std::string& why) {
    if (lost_.empty()) lost_ = c10::str(place_, ", as rank ", rank(), " of ", size(), ": ", why);
  }
  /// @param since what a failure leaves behind, and a colon; or nothing
  /// @throws c10::Error if it is lost.
  void check_not_lost(const char* who, const char* since = "") const {
    TORCH_CHECK(lost_.empty(), "root_optim::", who, ": expected ranks in step, got a failure in ",
                lost_, "; ", since, "load a checkpoint in new processes");
  }
  /// What messages say about where an operation stands.
  void at(std::string place) { place_ = std::move(place); }

  /// `own` of every rank, equal shapes everywhere. `tensors` are those of the ranks, and behind them our own.
  Started all_gather(const at::Tensor& own) {
    std::vector<std::vector<at::Tensor>> outputs(1);
    for (int64_t r = 0; r < size(); ++r) outputs[0].push_back(at::empty_like(own));
    std::vector<at::Tensor> inputs{own};
    c10d::AllgatherOptions options;
    if (timeout_.count() > 0) options.timeout = timeout_;
    Started started{{}, outputs[0], "gathering from all ranks"};
    started.tensors.push_back(own);
    start(started, [&] { return group_->allgather(outputs, inputs, options); });
    return started;
  }

  /// `tensor` of rank `root` to all.
  Started broadcast(const at::Tensor& tensor, int64_t root) {
    c10d::BroadcastOptions options;
    options.rootRank = static_cast<decltype(options.rootRank)>(root);
    if (timeout_.count() > 0) options.timeout = timeout_;
    Started started{{}, {tensor}, "receiving from rank " + std::to_string(root)};
    start(started, [&] { return group_->broadcast(started.tensors, options); });
    return started;
  }

  /// The elementwise sum, minimum or maximum of all ranks, in place.
  Started all_reduce(const at::Tensor& tensor, c10d::ReduceOp::RedOpType operation) {
    c10d::AllreduceOptions options;
    options.reduceOp = operation;
    if (timeout_.count() > 0) options.timeout = timeout_;
    Started started{{}, {tensor}, "reducing over all ranks"};
    start(started, [&] { return group_->allreduce(started.tensors, options); });
    return started;
  }

  Started send(const at::Tensor& tensor, int64_t to, int tag) {
    Started started{{}, {tensor}, "sending to rank " + std::to_string(to)};
    start(started, [&] { return group_->send(started.tensors, static_cast<int>(to), tag); });
    return started;
  }

  Started receive(const at::Tensor& tensor, int64_t from, int tag) {
    Started started{{}, {tensor}, "receiving from rank " + std::to_string(from)};
    start(started, [&] { return group_->recv(started.tensors, static_cast<int>(from), tag); });
    return started;
  }

  /// Waits for the other ranks, or, where a device does the work, lets its stream wait. NCCL would block the host
  /// for a timeout given here; it keeps the one that the operation was started with.
  void wait(Started& started) {
    guarded(started.what, [&] {
      const bool on_host = started.tensors.empty() || started.tensors.front().is_cpu();
      const bool done =
          on_host && timeout_.count() > 0 ? started.work->wait(timeout_) : started.work->wait();
      TORCH_CHECK(done, "it failed, and gives no reason");
      return 0;
    });
  }

  /// `all_gather`, waited for: `own` of every rank.
  std::vector<at::Tensor> gathered(const at::Tensor& own) {
    Started started = all_gather(own);
    wait(started);
    started.tensors.pop_back();
    return std::move(started.tensors);
  }

  /// The texts of all ranks.
  std::vector<std::string> gather_texts(const std::string& own) {
    const auto length = static_cast<int64_t>(own.size());
    const std::vector<std::vector<int64_t>> lengths = gather_numbers({length});
    int64_t longest = 1;
    for (const std::vector<int64_t>& one : lengths) longest = (std::max)(longest, one[0]);
    const at::Tensor text = at::zeros({longest}, at::kByte);
    std::memcpy(text.data_ptr(), own.data(), own.size());
    const std::vector<at::Tensor> all = gathered(text);
    std::vector<std::string> texts;
    for (size_t r = 0; r < all.size(); ++r) {
      texts.emplace_back(static_cast<const char*>(all[r].data_ptr()),
                         static_cast<size_t>(lengths[r][0]));
    }
    return texts;
  }

  /// The numbers of all ranks, as many of each.
  std::vector<std::vector<int64_t>> gather_numbers(const std::vector<int64_t>& own) {
    Started started = start_numbers(own);
    return numbers(started);
  }
  Started start_numbers(const std::vector<int64_t>& own) {
    const auto count = static_cast<int64_t>(own.size());
    const at::Tensor mine = at::empty({count}, at::kLong);
    std::memcpy(mine.data_ptr(), own.data(), own.size() * sizeof(int64_t));
    return all_gather(mine);
  }
  std::vector<std::vector<int64_t>> numbers(Started& started) {
    wait(started);
    std::vector<std::vector<int64_t>> result;
    for (size_t r = 0; r + 1 < started.tensors.size(); ++r) {  // the last one is our own
      const auto* values = started.tensors[r].data_ptr<int64_t>();
      result.emplace_back(values, values + started.tensors[r].numel());
    }
    return result;
  }

 private:
  template <class F>
  void start(Started& started, const F& f) {
    started.work = guarded(started.what, f);
  }

  template <class F>
  auto guarded(const std::string& what, const F& f) -> decltype(f()) {
    std::string why;
    try {
      return f();
    } catch (const c10::Error& error) {
      why = error.what_without_backtrace();
    } catch (const std::exception& error) {
      why = error.what();
    }
    lost_ = c10::str(place_, ", ", what, " as rank ", rank(), " of ", size(), ": ", why);
    TORCH_CHECK(false, "root_optim::distributed: expected every rank to take part, got, in ",
                lost_);
  }

  GroupPtr group_;
  std::chrono::milliseconds timeout_;
  std::string place_ = "distribute", lost_;
};

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
