// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// The definitions of core/fields.hpp.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstdint>
#include <string>
#include <utility>

#include <root_optim/core/fields.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void Fields::insert(const std::string& prefix,
                                                      const Fields& fields) {
  for (const auto& [key, value] : fields.values_) {
    std::string name = prefix + ".";
    name += key;
    values_.insert_or_assign(std::move(name), value);
  }
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE Fields Fields::nested(const std::string& prefix) const {
  Fields fields;
  const std::string start = prefix + ".";
  for (const auto& [key, value] : values_) {
    if (key.compare(0, start.size(), start) == 0) {
      fields.values_.insert_or_assign(key.substr(start.size()), value);
    }
  }
  return fields;
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void Fields::check_key(const std::string& key) {
  for (const char c : key) {
    TORCH_CHECK(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f && c != '"' && c != '\\',
                "root_optim::Fields::set: expected a key without double quotes, backslashes and "
                "control characters, got '",
                key, "'");
  }
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE const Fields::Value& Fields::at(const std::string& key) const {
  const auto found = values_.find(key);
  TORCH_CHECK(found != values_.end(), "root_optim::Fields::get: expected a field named '", key,
              "', got none");
  return found->second;
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE void Fields::refuse_type(const std::string& key) const {
  TORCH_CHECK(false, "root_optim::Fields::get: expected field '", key,
              "' to be of the requested type, got alternative ", at(key).index(),
              " of Fields::Value");
}

ROOT_OPTIM_COLD ROOT_OPTIM_INLINE int64_t Fields::enumerator(const std::string& key,
                                                             int64_t last) const {
  const int64_t value = get<int64_t>(key);
  TORCH_CHECK(value >= 0 && value <= last, "root_optim::Fields::get_enum: expected field '", key,
              "' in [0, ", last, "], got ", value);
  return value;
}

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
