// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Specifications of the command line such as "scaled:5:3": a name and numbers.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstddef>
#include <sstream>
#include <string>
#include <vector>

namespace experiments {

struct Spec {
  std::string text, name;
  std::vector<double> numbers;

  explicit Spec(const std::string& given) : text(given) {
    std::istringstream parts(given);
    std::getline(parts, name, ':');
    for (std::string part; std::getline(parts, part, ':');) {
      size_t used = 0;
      double number = 0;
      try {
        number = std::stod(part, &used);
      } catch (const std::exception&) {
        used = 0;
      }
      TORCH_CHECK(used > 0 && used == part.size(), "expected numbers behind '", name, ":', got '",
                  given, "'");
      numbers.push_back(number);
    }
  }

  /// @throws c10::Error unless there are `least` to `most` numbers.
  const Spec& require(size_t least, size_t most) const {
    TORCH_CHECK(numbers.size() >= least && numbers.size() <= most, "expected '", name, "' with ",
                least, " to ", most, " numbers, got '", text, "'");
    return *this;
  }
  const Spec& require(size_t count) const { return require(count, count); }
};

}  // namespace experiments
