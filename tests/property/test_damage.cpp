// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Damaged checkpoints: flipped bits, truncated files, writers that are killed. Nothing may be taken
// over in part, and no damage may pass for content.
#include "support/catch_torch.hpp"

#include <root_optim/root_optim.hpp>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iterator>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "support/spectra.hpp"
#include "support/training.hpp"

#if defined(__unix__)
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

using namespace root_optim;
using test::contains;
using test::parameter;

namespace {

/// Matrices in two dtypes, a convolution, a bias; a table in the options.
struct Model {
  std::vector<at::Tensor> parameters{
      parameter({24, 40}, 1, at::kFloat), parameter({16, 24}, 2, at::kDouble),
      parameter({12, 3, 3, 3}, 3, at::kFloat), parameter({24}, 4, at::kFloat)};
  Root optimizer{parameters, options()};

  static RootOptions options() {
    CoefficientTable table;
    table.set(24, 40, shipped_quintics(4));
    return RootOptions(1e-2).orthogonalizer(AdaNewton().table(table));
  }
};

std::unique_ptr<Model> trained() {
  auto model = std::make_unique<Model>();
  test::train(model->optimizer, model->parameters, 0, 3);
  return model;
}

std::string torch_saved(const Root& optimizer) {
  std::ostringstream out;
  torch::save(optimizer, out);
  return out.str();
}

#if defined(__unix__)
/// Lets this program take no more than `bytes` of memory while it lives: LibTorch's reader asks for
/// what a damaged archive says.
class MemoryLimit {
 public:
  explicit MemoryLimit(rlim_t bytes) {
    getrlimit(RLIMIT_DATA, &before_);
    rlimit limited = before_;
    limited.rlim_cur = std::min(bytes, before_.rlim_max);
    setrlimit(RLIMIT_DATA, &limited);
  }
  ~MemoryLimit() { setrlimit(RLIMIT_DATA, &before_); }
  MemoryLimit(const MemoryLimit&) = delete;
  MemoryLimit& operator=(const MemoryLimit&) = delete;

 private:
  rlimit before_{};
};
#endif

enum class Outcome { Refused, Same, Different };

/// Loads into a fresh optimizer. After a refusal it must be as it was; else its content, which
/// `checkpoint_bytes` tells, is compared with `content`.
template <class Load>
Outcome outcome_of(Model& fresh, const std::string& empty, const std::string& content, Load load) {
  try {
    load(fresh.optimizer);
  } catch (const std::exception&) {
    return checkpoint_bytes(fresh.optimizer) == empty ? Outcome::Refused : Outcome::Different;
  }
  return checkpoint_bytes(fresh.optimizer) == content ? Outcome::Same : Outcome::Different;
}

}  // namespace

TEST_CASE("a checkpoint with a digest is an archive that torch::load reads", "[damage]") {
  const auto model = trained();
  Model fresh;
  const std::string bytes = checkpoint_bytes(model->optimizer);
  CHECK_THAT(bytes.substr(bytes.size() - root_optim::detail::digest_size),
             contains("root_optim crc64 "));
  std::istringstream in(bytes);
  torch::load(fresh.optimizer, in);
  CHECK(checkpoint_bytes(fresh.optimizer) == bytes);
  std::istringstream without(torch_saved(model->optimizer));
  Model other;
  root_optim::load(other.optimizer, without);
  CHECK(checkpoint_bytes(other.optimizer) == bytes);
}

TEST_CASE("one flipped bit: no silent difference", "[damage]") {
  const auto model = trained();
  auto fresh = std::make_unique<Model>();
  const std::string bytes = checkpoint_bytes(model->optimizer);
  const std::string empty = checkpoint_bytes(fresh->optimizer);
#if defined(__unix__)
  const MemoryLimit limit(rlim_t{4} << 30);
#endif
  constexpr size_t positions = 5000;
  REQUIRE(bytes.size() > positions);
  size_t refused = 0, refused_by_torch = 0;
  std::string damaged = bytes;
  for (size_t i = 0; i < positions; ++i) {
    const size_t at = bytes.size() * i / positions;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << (i % 8)));
    INFO("bit " << i % 8 << " of byte " << at << " of " << bytes.size());
    const Outcome own = outcome_of(*fresh, empty, bytes, [&](Root& root) {
      std::istringstream in(damaged);
      root_optim::load(root, in);
    });
    CHECK(own == Outcome::Refused);
    if (own == Outcome::Refused) {
      ++refused;
    } else {
      fresh = std::make_unique<Model>();
    }
    // LibTorch 1's reader may end the program on a damaged archive.
    if (TORCH_VERSION_MAJOR >= 2) {
      const Outcome other = outcome_of(*fresh, empty, bytes, [&](Root& root) {
        std::istringstream in(damaged);
        torch::load(root, in);
      });
      CHECK(other != Outcome::Different);
      if (other == Outcome::Refused) {
        ++refused_by_torch;
      } else {
        fresh = std::make_unique<
            Model>();  // what was flipped is not content: names, padding, time stamps
      }
    }
    damaged[at] = bytes[at];
  }
  WARN(positions << " flips in " << bytes.size() << " bytes: " << refused
                 << " refused by root_optim::load, " << refused_by_torch << " by torch::load");
}

TEST_CASE("a truncated checkpoint is refused", "[damage]") {
  const auto model = trained();
  Model fresh;
  const std::string empty = checkpoint_bytes(fresh.optimizer);
  int lengths = 0;
  for (const std::string& bytes :
       {checkpoint_bytes(model->optimizer), torch_saved(model->optimizer)}) {
    for (size_t i = 0; i < 600; ++i) {
      // Every length near the end, where the directory of the archive is, and 300 before.
      const size_t size = i < 300 ? bytes.size() * i / 300 : bytes.size() - 1 - (i - 300);
      INFO(size << " of " << bytes.size() << " bytes");
      std::istringstream in(bytes.substr(0, size));
      CHECK_THROWS_AS(root_optim::load(fresh.optimizer, in), c10::Error);
      ++lengths;
    }
  }
  CHECK(checkpoint_bytes(fresh.optimizer) == empty);
  WARN("truncated to " << lengths << " lengths: all refused");
}

TEST_CASE("what is no checkpoint gets a message that says so", "[damage][errors]") {
  Model fresh;
  const auto refused = [&](const std::string& bytes, const std::string& message) {
    std::istringstream in(bytes);
    CHECK_THROWS_WITH(root_optim::load(fresh.optimizer, in), contains(message));
  };
  refused("", "got an empty file");
  refused("not an archive", "got 14 bytes that do not end as one");
  std::string bytes = checkpoint_bytes(trained()->optimizer);
  refused(bytes.substr(0, bytes.size() - 1), "do not end as one");
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  refused(bytes, "the file is damaged");
  CHECK_THROWS_WITH(root_optim::load(fresh.optimizer, std::string("no such file.pt")),
                    contains("expected a file that can be read, got 'no such file.pt'"));
  CHECK_THROWS_WITH(root_optim::load(fresh.optimizer, "."), contains("a file that can be read"));
  std::ostringstream module;
  torch::save(torch::nn::Linear(2, 2), module);
  refused(module.str(), "a checkpoint written by root_optim");
}

#if defined(__unix__)
TEST_CASE("a program that is killed while it saves leaves one checkpoint or the other",
          "[damage]") {
  namespace fs = std::filesystem;
  const fs::path folder = "root_optim_test_kill";
  fs::remove_all(folder);
  fs::create_directories(folder);
  const std::string path = (folder / "checkpoint.pt").string();
  const std::unique_ptr<Model> models[2] = {trained(), std::make_unique<Model>()};
  const std::string contents[2] = {checkpoint_bytes(models[0]->optimizer),
                                   checkpoint_bytes(models[1]->optimizer)};
  root_optim::save(models[0]->optimizer, path);
  int first = 0;
  for (int kill_after = 0; kill_after < 100; ++kill_after) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      for (size_t i = 1;; ++i) root_optim::save(models[i % 2]->optimizer, path);
    }
    usleep(static_cast<useconds_t>(500 + 97 * kill_after));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    const std::string found = root_optim::detail::read_all(path, "test");
    CHECK((found == contents[0] || found == contents[1]));
    Model fresh;
    CHECK_NOTHROW(root_optim::load(fresh.optimizer, path));
    first += found == contents[0] ? 1 : 0;
  }
  CHECK(first < 100);  // else nothing was saved
  const auto left = std::distance(fs::directory_iterator(folder), fs::directory_iterator()) - 1;
  WARN("after 100 kills: 0 checkpoints lost, " << first << " times the one, " << 100 - first
                                               << " times the other; " << left
                                               << " partial files were left");
  fs::remove_all(folder);
}

TEST_CASE("two programs that save to one path leave the checkpoint of one", "[damage]") {
  const std::string path = "root_optim_test_shared.bin";
  const std::string contents[2] = {std::string(1 << 20, 'a'), std::string(3 << 19, 'b')};
  root_optim::detail::replace_file(path, contents[0], "test");
  pid_t children[2];
  for (size_t which = 0; which < 2; ++which) {
    children[which] = fork();
    REQUIRE(children[which] >= 0);
    if (children[which] == 0) {
      try {
        for (int i = 0; i < 50; ++i)
          root_optim::detail::replace_file(path, contents[which], "test");
      } catch (...) {
        _exit(1);
      }
      _exit(0);
    }
  }
  for (int i = 0; i < 50; ++i) {
    const std::string found = root_optim::detail::read_all(path, "test");
    CHECK((found == contents[0] || found == contents[1]));
  }
  for (const pid_t child : children) {
    int status = -1;
    waitpid(child, &status, 0);
    CHECK(status == 0);
  }
  std::remove(path.c_str());
}

TEST_CASE("replacing a file keeps links and permissions, and does not replace devices",
          "[damage]") {
  namespace fs = std::filesystem;
  const fs::path folder = "root_optim_test_files";
  fs::remove_all(folder);
  fs::create_directories(folder);
  const std::string target = (folder / "target").string(), link = (folder / "link").string();
  root_optim::detail::replace_file(target, "old", "test");
  fs::permissions(target, fs::perms::owner_read | fs::perms::owner_write);
  fs::create_symlink("target", link);
  root_optim::detail::replace_file(link, "new", "test");
  CHECK(fs::is_symlink(link));
  CHECK(root_optim::detail::read_all(target, "test") == "new");
  CHECK(fs::status(target).permissions() == (fs::perms::owner_read | fs::perms::owner_write));
  root_optim::detail::replace_file("/dev/null", "gone", "test");
  CHECK(fs::is_character_file("/dev/null"));
  CHECK_THROWS_WITH(root_optim::detail::replace_file("/dev/full", "lost", "test"),
                    contains("expected '/dev/full' to take 4 bytes"));
  CHECK_THROWS_WITH(
      root_optim::detail::replace_file((folder / "none" / "file").string(), "", "test"),
      contains("expected a path that can be written"));
  CHECK(std::distance(fs::directory_iterator(folder), fs::directory_iterator()) == 2);
  fs::remove_all(folder);
}
#endif
