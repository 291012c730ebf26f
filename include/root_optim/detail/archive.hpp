// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Fields to and from LibTorch's archives. What a checkpoint contains is decided in checkpoint.hpp.
#pragma once

#include <ATen/core/ivalue.h>
#include <c10/util/Exception.h>  // TORCH_CHECK
#include <torch/serialize/archive.h>

#include <string>
#include <variant>
#include <vector>

#include <root_optim/policy.hpp>  // Fields

namespace root_optim {
inline namespace v0 {
namespace detail {

inline void write_fields(torch::serialize::OutputArchive& archive, const Fields& fields) {
  for (const auto& [key, value] : fields.values()) {
    std::visit([&, &name = key](const auto& held) { archive.write(name, c10::IValue(held)); },
               value);
  }
}

/// Reads every entry of the archive, which must hold nothing but fields.
inline Fields read_fields(torch::serialize::InputArchive& archive) {
  Fields fields;
  for (const std::string& key : archive.keys()) {
    c10::IValue value;
    archive.read(key, value);
    if (value.isBool()) {
      fields.set(key, value.toBool());
    } else if (value.isInt()) {
      fields.set(key, value.toInt());
    } else if (value.isDouble()) {
      fields.set(key, value.toDouble());
    } else if (value.isString()) {
      fields.set(key, value.toStringRef());
    } else if (value.isDoubleList()) {
      fields.set(key, value.toDoubleVector());
    } else if (value.isIntList()) {
      fields.set(key, value.toIntVector());
    } else if (value.isList()) {
      std::vector<std::string> strings;
      for (const c10::IValue& item : value.toListRef()) strings.push_back(item.toStringRef());
      fields.set(key, std::move(strings));
    } else {
      TORCH_CHECK(false, "root_optim::load: expected field '", key,
                  "' to be a number, a string or a list of these, got ", value.tagKind());
    }
  }
  return fields;
}

}  // namespace detail
}  // namespace v0
}  // namespace root_optim
