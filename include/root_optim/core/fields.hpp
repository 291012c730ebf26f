// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// `Fields`, the plain form in which policies and options are compared and written to checkpoints.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {

/// Named values: the plain form of a policy or of options.
///
/// Two objects are equal when their fields are. Values are stored under their exact type: write an
/// int64_t, read an int64_t.
class Fields {
 public:
  /// The types that a value may have.
  using Value = std::variant<bool, int64_t, double, std::string, std::vector<double>,
                             std::vector<int64_t>, std::vector<std::string>>;

  /// Stores `value` under `key`, replacing what was there.
  /// @throws c10::Error for a key with double quotes, backslashes or control characters: LibTorch
  /// would write it into an archive that it cannot read.
  template <class T>
  void set(const std::string& key, T value) {
    static_assert(std::is_constructible_v<Value, std::in_place_type_t<T>, T>,
                  "Fields::set: the value must be bool, int64_t, double, std::string, or a "
                  "std::vector of double, int64_t or std::string; convert it explicitly");
    check_key(key);
    values_.insert_or_assign(key, Value(std::in_place_type<T>, std::move(value)));
  }

  /// The value stored under `key`.
  /// @throws c10::Error if there is none, or if it is of another type than T.
  template <class T>
  const T& get(const std::string& key) const {
    const T* value = std::get_if<T>(&at(key));
    if (value == nullptr) refuse_type(key);
    return *value;
  }

  /// The enumerator stored as an integer under `key`; enumerators count from 0 to `last`.
  /// @throws c10::Error as `get`, and if the integer is out of that range.
  template <class Enum>
  Enum get_enum(const std::string& key, Enum last) const {
    return static_cast<Enum>(enumerator(key, static_cast<int64_t>(last)));
  }

  /// Stores all of `fields` under `prefix` and a dot.
  void insert(const std::string& prefix, const Fields& fields);
  /// What `insert(prefix, …)` stored.
  Fields nested(const std::string& prefix) const;

  /// Whether `key` has a value.
  bool contains(const std::string& key) const { return values_.count(key) != 0; }
  /// All fields, by name.
  const std::map<std::string, Value>& values() const& { return values_; }
  /// By value from a temporary, so that `for (auto& [key, value] : options.fields().values())` is safe.
  std::map<std::string, Value> values() && { return std::move(values_); }

  friend bool operator==(const Fields& a, const Fields& b) { return a.values_ == b.values_; }
  friend bool operator!=(const Fields& a, const Fields& b) { return !(a == b); }

 private:
  static void check_key(const std::string& key);
  const Value& at(const std::string& key) const;
  [[noreturn]] void refuse_type(const std::string& key) const;
  int64_t enumerator(const std::string& key, int64_t last) const;

  std::map<std::string, Value> values_;
};

}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/core/detail/fields_impl.hpp>
#endif
