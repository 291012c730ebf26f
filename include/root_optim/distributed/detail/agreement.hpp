// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// How ranks go on together or not at all: each tells whether it has failed, and what must be equal.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include <root_optim/distributed/detail/collectives.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// f(), unless something failed before.
/// @param error of this rank, empty while there is none
template <class F>
void attempt(std::string& error, const F& f) {
  if (!error.empty()) return;
  try {
    f();
    return;
  } catch (const c10::Error& thrown) {
    error = thrown.what_without_backtrace();
  } catch (const std::exception& thrown) {
    error = thrown.what();
  } catch (...) {
    error = "an exception of an unknown type";
  }
  if (error.empty()) error = "an exception without a message";
}

/// An error that every rank has heard of, and throws: the ranks are in step.
struct AgreedError : c10::Error {
  using c10::Error::Error;
};
[[noreturn]] inline void refuse_on_all(const std::string& message) {
  throw AgreedError({__func__, __FILE__, static_cast<uint32_t>(__LINE__)}, message);
}

/// `check_not_lost`, then f(), after whose errors the ranks are in step only if every one has thrown it.
template <class F>
void in_step(Collectives& ranks, const char* who, const char* since, const F& f) {
  ranks.check_not_lost(who, since);
  try {
    f();
  } catch (const AgreedError&) {
    throw;
  } catch (const std::exception& error) {
    ranks.lose(error.what());
    throw;
  }
}

/// A number that must be equal on all ranks.
struct Agreed {
  const char* name;  ///< for the message
  int64_t value;
};

/// An agreement that has been started.
struct Agreement {
  std::string error;  ///< this rank's
  std::vector<Agreed> agreed;
  Started started;
};

/// Tells the others. Local: it waits for nobody.
/// @param extra numbers that may differ, as many on every rank
inline Agreement start_agreement(Collectives& ranks, std::string error, std::vector<Agreed> agreed,
                                 const std::vector<int64_t>& extra = {}) {
  std::vector<int64_t> numbers{error.empty() ? 0 : 1};
  for (const Agreed& one : agreed) numbers.push_back(one.value);
  numbers.insert(numbers.end(), extra.begin(), extra.end());
  Started started = ranks.start_numbers(numbers);
  return {std::move(error), std::move(agreed), std::move(started)};
}

/// Hears the others.
/// @throws c10::Error on every rank, with one message, if any rank has failed or numbers differ.
/// @return the numbers of each rank: whether it has failed, those agreed, the others.
inline std::vector<std::vector<int64_t>> finish_agreement(Collectives& ranks,
                                                          Agreement& agreement) {
  const std::vector<std::vector<int64_t>> all = ranks.numbers(agreement.started);
  bool failed = false;
  for (const std::vector<int64_t>& one : all) failed = failed || one[0] != 0;
  if (failed) {
    const std::vector<std::string> errors = ranks.gather_texts(agreement.error);
    for (size_t r = 0; r < errors.size(); ++r) {
      if (!errors[r].empty()) refuse_on_all("rank " + std::to_string(r) + ": " + errors[r]);
    }
  }
  for (size_t i = 0; i < agreement.agreed.size(); ++i) {
    for (size_t r = 1; r < all.size(); ++r) {
      if (all[r][i + 1] != all[0][i + 1]) {
        refuse_on_all(c10::str("root_optim::distributed: expected equal ", agreement.agreed[i].name,
                               " on all ranks, got others on rank ", r, " than on rank 0"));
      }
    }
  }
  return all;
}

/// Both.
inline void agree(Collectives& ranks, std::string error, std::vector<Agreed> agreed = {}) {
  Agreement agreement = start_agreement(ranks, std::move(error), std::move(agreed));
  finish_agreement(ranks, agreement);
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
