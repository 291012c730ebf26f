// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of core/archive.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/util/Exception.h>  // TORCH_CHECK
#include <torch/serialize/archive.h>

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <root_optim/core/archive.hpp>
#include <root_optim/core/fields.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void write_fields(torch::serialize::OutputArchive& archive,
                                                    const Fields& fields) {
  for (const auto& [key, value] : fields.values()) {
    std::visit([&, &name = key](const auto& held) { archive.write(name, c10::IValue(held)); },
               value);
  }
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE Fields read_fields(torch::serialize::InputArchive& archive) {
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

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE bool lies_in_storage(const at::Tensor& tensor) {
  if (!tensor.has_storage() || tensor.storage_offset() < 0) return false;
  // In double: nothing overflows, and every index into a storage is exact.
  double last = static_cast<double>(tensor.storage_offset());
  bool empty = false;
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    const int64_t size = tensor.size(d), stride = tensor.stride(d);
    if (size < 0 || stride < 0) return false;
    empty = empty || size == 0;
    last += static_cast<double>(size - 1) * static_cast<double>(stride);
  }
  return empty || (last + 1) * static_cast<double>(tensor.element_size()) <=
                      static_cast<double>(tensor.storage().nbytes());
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void read_tensor(torch::serialize::InputArchive& archive,
                                                   const std::string& key, at::Tensor& into) {
  at::Tensor read;
  if (!archive.try_read(key, read)) return;
  TORCH_CHECK(lies_in_storage(read), "root_optim::load: expected '", key,
              "' to lie in its storage, got entries beyond it: the checkpoint is damaged");
  into = read.detach();
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
