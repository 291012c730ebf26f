// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Checksums: of the bytes of a file, which end the file, and of values, whatever archive holds them.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ConstexprCrc.h>
#include <c10/util/Exception.h>  // TORCH_CHECK

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include <root_optim/checkpoint/detail/hex_digits.hpp>
#include <root_optim/core/fields.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

/// CRC-64: any one flipped bit changes it, and any burst of up to 64.
inline uint64_t crc64(const char* data, size_t size) {
  return c10::util::crc64(data, size).checksum();
}

// ---- Of values -------------------------------------------------------------------------------------

/// The checksum of a sequence of values. Every value enters with its size, so that no two sequences
/// of different values look alike.
class Checksum {
 public:
  template <class T, std::enable_if_t<std::is_arithmetic_v<T>, int> = 0>
  void add(T value) {
    char bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof(T));
    text_.append(bytes, sizeof(T));
  }
  ROOT_OPTIM_COLD void add(const std::string& value) {
    add(static_cast<int64_t>(value.size()));
    text_ += value;
  }
  template <class T>
  void add(const std::vector<T>& values) {
    add(static_cast<int64_t>(values.size()));
    for (const T& value : values) add(value);
  }
  ROOT_OPTIM_COLD void add(const Fields& fields) {
    add(static_cast<int64_t>(fields.values().size()));
    for (const auto& [key, value] : fields.values()) {
      add(key);
      add(static_cast<int64_t>(value.index()));
      std::visit([this](const auto& held) { add(held); }, value);
    }
  }
  /// Whether there is one, its dtype, its shape and its bits.
  ROOT_OPTIM_COLD void add(const at::Tensor& tensor) {
    add(tensor.defined());
    if (!tensor.defined()) return;
    const at::Tensor values = tensor.detach().cpu().contiguous();
    add(static_cast<int64_t>(values.scalar_type()));
    add(values.sizes().vec());
    add(crc64(static_cast<const char*>(values.data_ptr()), values.nbytes()));
  }

  int64_t value() const { return static_cast<int64_t>(crc64(text_.data(), text_.size())); }

 private:
  std::string text_;
};

// ---- Of a file -------------------------------------------------------------------------------------

/// LibTorch's archives are zip files, which end with a record of 22 bytes and a comment. The digest
/// of all bytes before it is that comment: any zip reader, LibTorch's included, passes over it.
inline constexpr size_t zip_end_size = 22;
inline constexpr char digest_prefix[] = "root_optim crc64 ";
inline constexpr size_t digest_size = sizeof(digest_prefix) - 1 + 16;

ROOT_OPTIM_COLD inline std::string digest_of(const char* bytes, size_t size) {
  return digest_prefix + hex_digits(crc64(bytes, size));
}

/// Whether a zip file whose comment has `comment` bytes ends where `bytes` end.
ROOT_OPTIM_COLD inline bool ends_as_zip(const std::string& bytes, size_t comment) {
  if (bytes.size() < zip_end_size + comment) return false;
  const char* end = bytes.data() + bytes.size() - comment - zip_end_size;
  return std::memcmp(end, "PK\x05\x06", 4) == 0 && static_cast<unsigned char>(end[20]) == comment &&
         end[21] == 0;
}

/// Appends the digest to an archive as LibTorch writes it.
ROOT_OPTIM_COLD inline void append_digest(std::string& bytes) {
  TORCH_CHECK(ends_as_zip(bytes, 0),
              "root_optim::save: expected LibTorch to write a zip archive "
              "without a comment, got something else");
  bytes[bytes.size() - 2] = static_cast<char>(digest_size);
  bytes += digest_of(bytes.data(), bytes.size());
}

/// Refuses bytes that are neither an archive with a good digest nor a complete one without, as
/// torch::save writes it.
ROOT_OPTIM_COLD inline void check_digest(const std::string& bytes) {
  TORCH_CHECK(!bytes.empty(), "root_optim::load: expected a checkpoint, got an empty file");
  if (ends_as_zip(bytes, 0)) return;
  TORCH_CHECK(ends_as_zip(bytes, digest_size), "root_optim::load: expected a checkpoint, got ",
              bytes.size(),
              " bytes that do not end as one: truncated, damaged or another kind of file");
  const size_t content = bytes.size() - digest_size;
  const std::string expected = digest_of(bytes.data(), content), got = bytes.substr(content);
  TORCH_CHECK(got == expected, "root_optim::load: expected the digest '", expected, "', got '", got,
              "': the file is damaged");
}

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim
