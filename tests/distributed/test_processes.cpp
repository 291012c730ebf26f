// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Ranks that are processes: this program, started again with RANK in its environment.
#include "model.hpp"
#include "ranks.hpp"

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <root_optim/distributed.hpp>
#include <string>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <vector>

#ifdef __linux__
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

using namespace root_optim;

namespace {

constexpr int size = 3;
constexpr auto timeout = std::chrono::seconds(5);

int number(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? -1 : std::atoi(text);
}

/// Starts the hidden test below as a rank.
pid_t start(int rank, const std::string& store) {
  const pid_t child = fork();
  if (child != 0) return child;
  setenv("RANK", std::to_string(rank).c_str(), 1);
  setenv("STORE", store.c_str(), 1);
  execl("/proc/self/exe", "distributed_tests", "a rank", nullptr);
  _exit(99);
}

int exit_code(pid_t child) {
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

}  // namespace

// Not a test: what `start` runs. Rank 1 is killed, or stops, in the third step.
TEST_CASE("a rank", "[.]") {
  const int rank = number("RANK");
  if (rank < 0) return;
  at::set_num_threads(1);
  auto store = c10::make_intrusive<c10d::FileStore>(std::getenv("STORE"), size);
  test::Model model;
  Root optimizer(model.groups(RootOptions()));
  distribute(optimizer, test::make_group(store, rank, size, timeout));
  std::string message;
  for (int step = 0; step < 4 && message.empty(); ++step) {
    model.set_gradients(step);
    if (step == 2 && rank == 1) raise(number("STOPS") == 1 ? SIGSTOP : SIGKILL);
    try {
      optimizer.step();
    } catch (const c10::Error& error) {
      message = error.what_without_backtrace();
    }
  }
  const bool as_expected = message.find("in step 3") != std::string::npos;
  if (!as_expected) std::fprintf(stderr, "rank %d: '%s'\n", rank, message.c_str());
  std::_Exit(as_expected ? 42 : 1);  // not by destructors that would wait for the others
}

TEST_CASE("a process that is killed, or stops, is noticed by the others within the timeout") {
  const bool stops = GENERATE(false, true);
  setenv("STOPS", stops ? "1" : "0", 1);
  std::string path = (std::filesystem::temp_directory_path() / "root_optim_ranks_XXXXXX").string();
  char* const store = path.data();
  const int file = mkstemp(store);
  REQUIRE(file >= 0);
  close(file);
  std::remove(store);
  std::vector<pid_t> ranks;
  const auto begin = std::chrono::steady_clock::now();
  for (int rank = 0; rank < size; ++rank) ranks.push_back(start(rank, store));
  CHECK(exit_code(ranks[0]) == 42);
  CHECK(exit_code(ranks[2]) == 42);
  // Starting takes seconds on a loaded machine.
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(120));
  kill(ranks[1], SIGKILL);
  CHECK(exit_code(ranks[1]) == -SIGKILL);
  std::remove(store);
}
#endif
