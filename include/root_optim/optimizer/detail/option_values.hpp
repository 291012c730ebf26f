// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// How the value of an option is checked, stored among Fields, and read from them, by its type.
#pragma once

#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include <root_optim/core/fields.hpp>
#include <root_optim/core/finite.hpp>
#include <root_optim/core/policy.hpp>
#include <root_optim/core/tensor_checks.hpp>  // check_enum
#include <root_optim/parameters/layout.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

// ---- Ranges: called as range(name, value), throw -------------------------------------------------------

/// Whatever the type can hold.
struct AnyValue {
  template <class T>
  void operator()(const char*, const T&) const {}
};

struct NonNegative {
  void operator()(const char* option, double value) const {
    TORCH_CHECK(fits_float32(value) && value >= 0, "root_optim::options: expected ", option,
                " to be finite in float32 and >= 0, got ", value);
  }
  void operator()(const char* option, int64_t value) const {
    TORCH_CHECK(value >= 0, "root_optim::options: expected ", option, " >= 0, got ", value);
  }
  template <class T>
  void operator()(const char* option, const std::optional<T>& value) const {
    if (value) (*this)(option, *value);
  }
};

struct Positive {
  void operator()(const char* option, int64_t value) const {
    TORCH_CHECK(value > 0, "root_optim::options: expected ", option, " > 0, got ", value);
  }
};

/// 0, which switches off, or at least 1.
struct ZeroOrFromOne {
  void operator()(const char* option, double value) const {
    TORCH_CHECK(fits_float32(value) && (value == 0 || value >= 1), "root_optim::options: expected ",
                option, " to be 0 or >= 1, got ", value);
  }
};

struct BelowOne {
  void operator()(const std::string& option, double value) const {
    TORCH_CHECK(is_finite(value) && value >= 0 && value < 1,
                "root_optim::options: expected 0 <= ", option, " < 1, got ", value);
  }
  void operator()(const char* option, const std::tuple<double, double>& pair) const {
    (*this)(option + std::string("[0]"), std::get<0>(pair));
    (*this)(option + std::string("[1]"), std::get<1>(pair));
  }
};

/// The enumerators from 0 to `last`.
template <class Enum>
struct UpTo {
  Enum last;
  void operator()(const char* option, Enum value) const {
    check_enum("options", option, value, last);
  }
};
template <class Enum>
UpTo(Enum) -> UpTo<Enum>;

struct ValidPolicy {
  template <class Policy>
  void operator()(const char*, const Policy& policy) const {
    validate_policy(policy);
  }
};

// ---- To and from Fields --------------------------------------------------------------------------------

template <class T>
struct is_optional : std::false_type {};
template <class T>
struct is_optional<std::optional<T>> : std::true_type {};

template <class T>
ROOT_OPTIM_COLD void store(Fields& out, const char* name, const T& value) {
  if constexpr (std::is_enum_v<T>) {
    out.set(name, static_cast<int64_t>(value));
  } else if constexpr (std::is_same_v<T, std::tuple<double, double>>) {
    out.set(name, std::vector<double>{std::get<0>(value), std::get<1>(value)});
  } else if constexpr (is_optional<T>::value) {
    using List = std::vector<typename T::value_type>;
    out.set(name, value ? List{*value} : List{});
  } else if constexpr (std::is_same_v<T, MatrixLayout>) {
    Fields nested;
    value.serialize(nested);
    out.insert(name, nested);
  } else if constexpr (has_name<T>::value) {  // a policy
    out.set(name, std::string(T::name));
    out.insert(name, policy_fields(value));
  } else {
    out.set(name, value);
  }
}

/// The inverse of `store`; ranges are checked afterwards, but for enumerators.
template <class T, class Range>
ROOT_OPTIM_COLD void read(const Fields& in, const char* name, T& value, const Range& range) {
  if constexpr (std::is_enum_v<T>) {
    value = in.get_enum(name, range.last);
  } else if constexpr (std::is_same_v<T, std::tuple<double, double>>) {
    const auto& pair = in.get<std::vector<double>>(name);
    TORCH_CHECK(pair.size() == 2, "root_optim::options: expected two ", name, ", got ",
                pair.size());
    value = {pair[0], pair[1]};
  } else if constexpr (is_optional<T>::value) {
    const auto& stored = in.get<std::vector<typename T::value_type>>(name);
    value = stored.empty() ? std::nullopt : T(stored.front());
  } else if constexpr (std::is_same_v<T, MatrixLayout>) {
    value.deserialize(in.nested(name));
  } else if constexpr (has_name<T>::value) {
    const auto& stored = in.get<std::string>(name);
    TORCH_CHECK(stored == T::name, "root_optim::options: expected ", name, " '", T::name,
                "', got '", stored, "'");
    value = policy_from_fields<T>(in.nested(name));
  } else {
    value = in.get<T>(name);
  }
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
