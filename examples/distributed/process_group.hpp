// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// A Gloo group of the processes that a launcher has started. Gloo's headers are Debian's libgloo-dev;
// LibTorch has the code, and libgloo is not linked.
#pragma once

#ifndef USE_C10D_GLOO
#define USE_C10D_GLOO
#endif
#include <c10/util/Exception.h>
#include <torch/version.h>
#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>  // getenv
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>

namespace examples {

/// What a launcher tells a process, by the names that torch.distributed uses.
struct LaunchedRank {
  int rank = 0;
  int size = 1;
  std::string address = "127.0.0.1";  ///< of rank 0
  int port = 29500;                   ///< where rank 0, or the launcher, holds the store
  bool launcher_has_store = false;    ///< torchrun's
  std::string attempt = "0";          ///< torchrun restarts with the same store
};

/// RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as a shell loop, torchrun or Open MPI's mpirun set them.
/// Without any: one process.
inline LaunchedRank launched_rank() {
  const auto text = [](std::initializer_list<const char*> names, const std::string& otherwise) {
    for (const char* name : names) {
      const char* value = std::getenv(name);
      if (value != nullptr && *value != '\0') return std::string(value);
    }
    return otherwise;
  };
  const auto number = [&](std::initializer_list<const char*> names, int otherwise) {
    const std::string value = text(names, std::to_string(otherwise));
    const bool digits = value.find_first_not_of("0123456789") == std::string::npos;
    TORCH_CHECK(digits && value.size() < 9, *names.begin(), ": expected a number, got ", value);
    return std::stoi(value);
  };
  LaunchedRank launched;
  launched.rank = number({"RANK", "OMPI_COMM_WORLD_RANK"}, launched.rank);
  launched.size = number({"WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"}, launched.size);
  launched.address = text({"MASTER_ADDR"}, launched.address);
  launched.port = number({"MASTER_PORT"}, launched.port);
  launched.launcher_has_store = text({"TORCHELASTIC_USE_AGENT_STORE"}, "") == "True";
  launched.attempt = text({"TORCHELASTIC_RESTART_COUNT"}, launched.attempt);
  TORCH_CHECK(launched.rank < launched.size, "expected a RANK below WORLD_SIZE = ", launched.size,
              ", got ", launched.rank);
  return launched;
}

/// A Gloo group whose messages take `device`. From then on the process ignores SIGPIPE: Gloo writes to ranks that have
/// left, which is to throw.
inline c10::intrusive_ptr<c10d::ProcessGroup> make_gloo_group(
    const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
    std::shared_ptr<gloo::transport::Device> device, std::chrono::milliseconds timeout) {
#ifdef SIGPIPE
  std::signal(SIGPIPE, SIG_IGN);
#endif
  auto options = c10d::ProcessGroupGloo::Options::create();
  options->timeout = timeout;
  options->devices.push_back(std::move(device));
  auto gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size, options);
#if TORCH_VERSION_MAJOR < 2
  return gloo;
#else
#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 4
  auto group = c10::make_intrusive<c10d::ProcessGroup>(
      store, rank, size, c10::make_intrusive<c10d::ProcessGroup::Options>("gloo"));
#else
  auto group = c10::make_intrusive<c10d::ProcessGroup>(store, rank, size);
  group->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
#endif
  group->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::GLOO, gloo);
  return group;
#endif
}

/// Waits for all ranks. GLOO_SOCKET_IFNAME names the network interface, if it is not that of this machine's
/// name.
inline c10::intrusive_ptr<c10d::ProcessGroup> make_process_group(
    const LaunchedRank& launched, std::chrono::milliseconds timeout) {
  c10::intrusive_ptr<c10d::Store> store;
  if (launched.size == 1) {
    store = c10::make_intrusive<c10d::HashStore>();
  } else {
    c10d::TCPStoreOptions options;
    options.port = static_cast<uint16_t>(launched.port);
    options.isServer = launched.rank == 0 && !launched.launcher_has_store;
    options.numWorkers = launched.size;
    options.timeout = timeout;
    store = c10::make_intrusive<c10d::TCPStore>(launched.address, options);
  }
  store = c10::make_intrusive<c10d::PrefixStore>("attempt " + launched.attempt, store);

  using Gloo = c10d::ProcessGroupGloo;
  const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
  const bool one_machine = launched.address == "127.0.0.1" || launched.address == "localhost";
  return make_gloo_group(store, launched.rank, launched.size,
                         interface != nullptr ? Gloo::createDeviceForInterface(interface)
                         : one_machine        ? Gloo::createDeviceForHostname("127.0.0.1")
                                              : Gloo::createDefaultDevice(),
                         timeout);
}

}  // namespace examples
