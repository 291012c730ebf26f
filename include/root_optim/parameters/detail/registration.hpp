// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The names under which parameters are registered: those of a module and of a list.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>  // TORCH_CHECK
#include <torch/nn/module.h>

#include <cstddef>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// One name under which a parameter is registered.
struct Registration {
  const torch::nn::Module* module;  // nullptr: nothing but the name is known
  std::string path;                 // of the module; empty for the root
  std::string key;                  // in the module
  at::Tensor parameter;

  ROOT_OPTIM_COLD std::string name() const { return path.empty() ? key : path + "." + key; }

  ROOT_OPTIM_COLD std::string module_name() const {
    return path.substr(path.rfind('.') + 1);
  }  // npos + 1 == 0

  /// What the user called it: "weight" says nothing, the module's name does.
  ROOT_OPTIM_COLD std::string given_name() const {
    return key == "weight" && !path.empty() ? module_name() : key;
  }
};

/// Adds a registration, but for those of undefined tensors and of dtypes that cannot be trained.
void add_registration(Registration at, std::vector<Registration>& out);

/// Lists the parameters in the order of `module.named_parameters()`, tied ones under each of their
/// names. (Not `named_modules()`: that demands a module held by a shared_ptr.)
void collect_registrations(const torch::nn::Module& module, const std::string& path,
                           std::vector<Registration>& out);

using NamedTensor = std::pair<std::string, at::Tensor>;

/// An element of a list of names and tensors: of `torch::OrderedDict`, or whatever has two parts, as
/// `std::pair`, the elements of maps and of `torch::jit::Module::named_parameters()`.
template <class Item>
auto named_tensor(const Item& item, int) -> decltype(NamedTensor(item.key(), item.value())) {
  return {item.key(), item.value()};
}
template <class Item>
NamedTensor named_tensor(const Item& item, long) {
  const auto& [name, tensor] = item;
  return {name, tensor};
}

/// The same for a list of names and tensors: a name is a path of modules and a key.
template <class Range>
std::vector<Registration> list_registrations(const Range& parameters) {
  std::vector<Registration> out;
  std::unordered_set<std::string> names;
  for (const auto& item : parameters) {
    NamedTensor named = named_tensor(item, 0);
    TORCH_CHECK(names.insert(named.first).second,
                "root_optim::route: expected every name once, got '", named.first, "' twice");
    const size_t dot = named.first.rfind('.');
    const bool is_root = dot == std::string::npos;
    add_registration({nullptr, named.first.substr(0, is_root ? 0 : dot),
                      named.first.substr(is_root ? 0 : dot + 1), std::move(named.second)},
                     out);
  }
  return out;
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/parameters/detail/registration_impl.hpp>
#endif
