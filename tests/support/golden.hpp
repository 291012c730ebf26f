// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Reads the files that tests/golden/generate.py writes; the format is described there.
#pragma once

#include "catch_torch.hpp"

#include <cstdint>
#include <fstream>
#include <map>
#include <string>
#include <vector>

namespace test {

/// A start parameter and one gradient a step.
struct GoldenInputs {
  at::Tensor parameter;
  std::vector<at::Tensor> gradients;
};

/// What another program made of some inputs. Tensors are float64 on the CPU.
struct Trajectory {
  std::string name;
  std::string inputs;
  std::map<std::string, std::string> options;
  std::map<int64_t, at::Tensor> samples;  // after step ... -> parameter
  at::Tensor momentum;                    // after the last step

  double number(const std::string& option) const { return std::stod(options.at(option)); }
};

/// The path of a file of tests/golden, found relative to this header.
inline std::string golden_path(const std::string& name) {
  const std::string here = __FILE__;
  return here.substr(0, here.find_last_of('/')) + "/../golden/" + name;
}

class GoldenFile {
 public:
  /// @param name a file of tests/golden.
  explicit GoldenFile(const std::string& name) {
    const std::string path = golden_path(name);
    std::ifstream in(path);
    if (!in) throw std::runtime_error("cannot read " + path);
    for (std::string word; in >> word;) {
      if (word == "generator") {
        std::getline(in, generator);
      } else if (word == "inputs") {
        read_inputs(in);
      } else if (word == "trajectory") {
        read_trajectory(in);
      } else {
        throw std::runtime_error(path + ": unexpected word " + word);
      }
    }
  }

  std::string generator;
  std::map<std::string, GoldenInputs> inputs;
  std::vector<Trajectory> trajectories;

 private:
  template <class T>
  static T read(std::istream& in) {
    T value{};
    if (!(in >> value)) throw std::runtime_error("golden file: unexpected end or word");
    return value;
  }

  static void expect(std::istream& in, const std::string& word) {
    const auto got = read<std::string>(in);
    if (got != word) throw std::runtime_error("golden file: expected " + word + ", got " + got);
  }

  template <class T>
  static T labeled(std::istream& in, const std::string& label) {
    expect(in, label);
    return read<T>(in);
  }

  static at::Tensor matrix(std::istream& in, int64_t rows, int64_t cols) {
    at::Tensor t = at::empty({rows, cols}, at::kDouble);
    for (int64_t i = 0; i < t.numel(); ++i) t.data_ptr<double>()[i] = read<double>(in);
    return t;
  }

  void read_inputs(std::istream& in) {
    const auto name = read<std::string>(in);
    const auto rows = labeled<int64_t>(in, "rows");
    const auto cols = labeled<int64_t>(in, "cols");
    const auto steps = labeled<int64_t>(in, "steps");
    const auto denominator = labeled<double>(in, "denominator");
    GoldenInputs& read_into = inputs[name];
    read_into.parameter = matrix(in, rows, cols) / denominator;
    for (int64_t t = 0; t < steps; ++t) {
      read_into.gradients.push_back(matrix(in, rows, cols) / denominator);
    }
  }

  void read_trajectory(std::istream& in) {
    Trajectory t;
    t.name = read<std::string>(in);
    t.inputs = labeled<std::string>(in, "inputs");
    expect(in, "{");
    for (auto key = read<std::string>(in); key != "}"; key = read<std::string>(in)) {
      t.options[key] = read<std::string>(in);
    }
    const auto sizes = inputs.at(t.inputs).parameter.sizes();
    const auto samples = labeled<int64_t>(in, "samples");
    for (int64_t i = 0; i < samples; ++i) {
      const auto step = labeled<int64_t>(in, "step");
      expect(in, "parameter");
      t.samples[step] = matrix(in, sizes[0], sizes[1]);
    }
    expect(in, "momentum");
    t.momentum = matrix(in, sizes[0], sizes[1]);
    trajectories.push_back(std::move(t));
  }
};

}  // namespace test
