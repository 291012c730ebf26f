// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Ranks that are killed while they save one file each, at every call by which files change, and at random. The
// visible tests start this program anew for the hidden ones, whose ranks are forks: that needs a process without
// threads.
#include "model.hpp"
#include "ranks.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <random>
#include <root_optim/distributed.hpp>
#include <string>
#include <thread>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <vector>

#if defined(__linux__) && defined(__GLIBC__)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <cstring>

using namespace root_optim;
using test::Model;
using test::take_steps;
namespace fs = std::filesystem;

namespace {

/// What a process that is killed leaves for the one that started it.
struct Watched {
  int calls_left = -1;          ///< before this call the process dies; -1: never
  char at[512] = "";            ///< the call before which it died
  bool manifest_there = false;  ///< the new manifest had been renamed by then
};
Watched* watched = nullptr;

void before(const char* call, const char* path) {
  if (watched == nullptr || watched->calls_left < 0 || watched->calls_left-- > 0) return;
  std::snprintf(watched->at, sizeof(watched->at), "%s %s", call, path);
  raise(SIGKILL);
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

}  // namespace

// In place of the C library's, for this program and for the standard library.
extern "C" int rename(const char* from, const char* to) noexcept {
  before("rename", to);
  const int result = renameat(AT_FDCWD, from, AT_FDCWD, to);
  if (watched != nullptr && ends_with(to, "/manifest.pt")) watched->manifest_there = result == 0;
  return result;
}
extern "C" int fsync(int file) {
  before("fsync", "");
  return static_cast<int>(syscall(SYS_fsync, file));
}
extern "C" int remove(const char* path) noexcept {
  before("remove", path);
  const int result = unlink(path);
  return result != 0 && errno == EISDIR ? rmdir(path) : result;
}

namespace {

/// f(rank, group) in a process of its own for each rank.
template <class F>
std::vector<pid_t> start_ranks(int size, const std::string& store, const F& f) {
  fs::remove(store);
  std::vector<pid_t> ranks;
  for (int rank = 0; rank < size; ++rank) {
    const pid_t child = fork();
    if (child == 0) {
      try {
        auto shared = c10::make_intrusive<c10d::FileStore>(store, size);
        f(rank, test::make_group(shared, rank, size, std::chrono::seconds(20)));
        std::_Exit(0);  // not by destructors that would wait for the others
      } catch (const c10::Error& error) {
        if (std::getenv("SHOW") != nullptr) std::puts(error.what_without_backtrace());
      } catch (const std::exception& error) {
        std::puts(error.what());
      }
      std::_Exit(1);
    }
    ranks.push_back(child);
  }
  return ranks;
}

/// 0 if it ended well, -SIGKILL if it was killed.
int wait_for(pid_t child) {
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/// Runs a hidden test as a program.
int run_alone(const char* name) {
  const pid_t child = fork();
  if (child == 0) {
    setenv("OMP_NUM_THREADS", "1", 1);
    execl("/proc/self/exe", "distributed_tests", name, nullptr);
    _exit(99);
  }
  return wait_for(child);
}

std::string saved_after(int64_t steps, const Model& model) {
  Root optimizer(model.groups(RootOptions()));
  take_steps(model, optimizer, 0, steps);
  return test::saved(optimizer);
}

/// What is in a folder, as one process loads it.
std::string loaded(const std::string& folder, int64_t* step) {
  Model model;
  Root optimizer(model.groups(RootOptions()));
  *step = load_sharded(optimizer, folder);
  return test::saved(optimizer);
}

}  // namespace

TEST_CASE("kills at every point of a save", "[.]") {
  at::set_num_threads(1);
  constexpr int size = 2;
  const fs::path place = "root_optim_test_kills";
  fs::remove_all(place);
  fs::create_directories(place);
  const std::string old = (place / "old").string(), folder = (place / "folder").string(),
                    store = (place / "store").string();
  const std::string at_three = saved_after(3, Model()), at_five = saved_after(5, Model());
  const auto save_after = [&](int64_t steps, const std::string& to, int victim, int call) {
    return start_ranks(size, store, [=](int rank, const test::Group& group) {
      Model model;
      Root optimizer(model.groups(RootOptions()));
      distribute(optimizer, group);
      take_steps(model, optimizer, 0, steps);
      if (rank == victim) {
        watched->calls_left = call;
      } else {
        watched = nullptr;
      }
      save_sharded(optimizer, to, steps);
    });
  };
  for (const pid_t rank : save_after(3, old, -1, 0)) REQUIRE(wait_for(rank) == 0);

  watched = static_cast<Watched*>(
      mmap(nullptr, sizeof(Watched), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  REQUIRE(watched != MAP_FAILED);
  std::map<std::string, int> kills;  // by call and outcome
  for (int victim = 0; victim < size; ++victim) {
    for (int call = 0;; ++call) {
      fs::remove_all(folder);
      fs::copy(old, folder);
      *watched = Watched();
      std::vector<pid_t> ranks = save_after(5, folder, victim, call);
      const int ended = wait_for(ranks[static_cast<size_t>(victim)]);
      watched->calls_left = -1;
      const std::string at = watched->at;
      const int64_t expected = watched->manifest_there ? 5 : 3;
      const int other = wait_for(ranks[static_cast<size_t>(1 - victim)]);
      INFO("rank " << victim << " killed before " << at);
      if (ended == 0) {  // there is no such call any more
        CHECK(call > 2);
        CHECK(other == 0);
        break;
      }
      REQUIRE(ended == -SIGKILL);
      int64_t step = 0;
      const std::string content = loaded(folder, &step);
      if (victim == 0) CHECK(step == expected);
      CHECK((step == 3 || step == 5));
      CHECK((content == (step == 3 ? at_three : at_five)));
      std::string name = at.substr(0, at.find(' '));
      if (name != "fsync") {
        name = at.find("/manifest.pt") != std::string::npos ? name + " of the manifest"
                                                            : name + " of a rank's file";
      }
      ++kills[name + (step == 3 ? ": the old checkpoint" : ": the new one")];

      // The next save clears up.
      for (const pid_t rank : save_after(5, folder, -1, 0)) CHECK(wait_for(rank) == 0);
      CHECK((loaded(folder, &step) == at_five));
      CHECK(step == 5);
      CHECK(std::distance(fs::directory_iterator(folder), fs::directory_iterator()) == size + 1);
    }
  }
  CHECK(kills["rename of a rank's file: the old checkpoint"] == 2);
  CHECK(kills["rename of the manifest: the old checkpoint"] == 1);
  CHECK(kills["remove of a rank's file: the new one"] == 2);
  std::string text;
  for (const auto& [what, count] : kills) {
    text += "\n  " + std::to_string(count) + " before the " + what;
  }
  WARN("kills by what was about to be called, and what was there afterwards:" << text);
  watched = nullptr;
  fs::remove_all(place);
}

// As many steps as STEPS in the environment says, else 40.
TEST_CASE("kills at random moments", "[.]") {
  at::set_num_threads(1);
  const char* given = std::getenv("STEPS");
  const int64_t steps = given == nullptr ? 40 : std::atoll(given);
  const int most_kills = static_cast<int>(8 + steps / 10);
  const fs::path place = "root_optim_test_random_kills";
  fs::remove_all(place);
  fs::create_directories(place);
  const std::string folder = (place / "optimizer").string(), store = (place / "store").string();
  const auto model_file = [&](int64_t step) {
    return (place / ("model-" + std::to_string(step) + ".pt")).string();
  };
  const auto load_model = [&](const Model& model, int64_t step) {
    std::vector<at::Tensor> values;
    torch::load(values, model_file(step));
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < values.size(); ++i) model.all()[i].copy_(values[i]);
  };
  int starts = 0;
  const auto train = [&](int rank, const test::Group& group) {
    Model model;
    Root optimizer(model.groups(RootOptions()));
    distribute(optimizer, group);
    int64_t step = 0;
    if (fs::exists(fs::path(folder) / "manifest.pt")) {
      step = load_sharded(optimizer, folder);
      load_model(model, step);
    }
    while (step < steps) {
      take_steps(model, optimizer, step, step + 1);
      // Steps may be too fast for the parent: the first kill does not depend on time.
      if (rank == 0 && starts == 0 && step == steps / 2) raise(SIGKILL);
      if (++step % 5 > 0 && step < steps) continue;
      if (rank == 0) {
        std::vector<at::Tensor> values;
        for (const at::Tensor& value : model.all()) values.push_back(value.detach());
        torch::save(values, model_file(step));
      }
      save_sharded(optimizer, folder, step);
      if (rank > 0) continue;
      for (const auto& entry : fs::directory_iterator(place)) {
        const std::string name = entry.path().filename().string();
        if (name.rfind("model-", 0) == 0 && entry.path() != model_file(step)) {
          fs::remove(entry.path());
        }
      }
    }
  };

  Model whole;
  const std::string expected = saved_after(steps, whole);
  std::mt19937 random(7);
  const auto below = [&random](size_t count) { return random() % count; };
  int kills = 0, of_all = 0;
  for (bool done = false; !done; ++starts) {
    REQUIRE(starts < 10 * most_kills);
    std::vector<pid_t> ranks = start_ranks(1 + static_cast<int>(below(4)), store, train);
    const auto begin = std::chrono::steady_clock::now();
    const auto wait_until = [&](std::chrono::milliseconds after) {  // until all have ended, or then
      done = true;
      while (!ranks.empty() && std::chrono::steady_clock::now() - begin < after) {
        for (size_t i = ranks.size(); i-- > 0;) {
          int status = 0;
          if (waitpid(ranks[i], &status, WNOHANG) == 0) continue;
          done = done && WIFEXITED(status) && WEXITSTATUS(status) == 0;
          ranks.erase(ranks.begin() + static_cast<std::ptrdiff_t>(i));
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      done = done && ranks.empty();
    };
    const auto delay = starts > 0 && kills < most_kills ? std::chrono::milliseconds(below(700))
                                                        : std::chrono::milliseconds(600000);
    wait_until(delay);
    if (ranks.empty()) {
      CHECK(done == (starts > 0));  // after the first start nobody was killed
      if (starts == 0) ++kills;
      continue;
    }
    ++kills;
    if (below(2) == 0) {
      ++of_all;
    } else {  // one, and the others notice it, or are killed as by a launcher
      kill(ranks[below(ranks.size())], SIGKILL);
      wait_until(delay + std::chrono::seconds(2));
    }
    for (const pid_t rank : ranks) {
      kill(rank, SIGKILL);
      wait_for(rank);
    }
    done = false;
  }
  int64_t step = 0;
  CHECK((loaded(folder, &step) == expected));
  CHECK(step == steps);
  Model model;
  load_model(model, steps);
  CHECK((test::bits_of(model.all()) == test::bits_of(whole.all())));
  CHECK(kills > 0);
  WARN(steps << " steps with " << kills << " kills, " << of_all
             << " of them of all ranks, on 1 to 4 ranks: the bits of a run without");
  fs::remove_all(place);
}

TEST_CASE("a save of one file a rank that is killed at any call leaves the old files or the new") {
  CHECK(run_alone("kills at every point of a save") == 0);
}

TEST_CASE("a run with random kills and resumes ends as one without, bit by bit") {
  CHECK(run_alone("kills at random moments") == 0);
}
#endif
