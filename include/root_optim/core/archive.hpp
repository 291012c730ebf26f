// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Fields to and from LibTorch's archives, and tensors from them. What a checkpoint contains is decided
// in checkpoint.hpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/serialize/archive.h>

#include <string>

#include <root_optim/core/fields.hpp>
#include <root_optim/version.hpp>

namespace root_optim {
inline namespace ROOT_OPTIM_NAMESPACE {
namespace detail {

void write_fields(torch::serialize::OutputArchive& archive, const Fields& fields);

/// Reads every entry of the archive, which must hold nothing but fields.
Fields read_fields(torch::serialize::InputArchive& archive);

/// Whether every entry lies in the tensor's storage. LibTorch's reader (2.2's, for one) takes shape,
/// strides and offset as a damaged archive says them, and reading such a tensor leaves its memory.
bool lies_in_storage(const at::Tensor& tensor);

/// Reads a tensor if there is one of that name, detached: that an archive marks it as requiring a
/// gradient is damage, and not checked.
void read_tensor(torch::serialize::InputArchive& archive, const std::string& key, at::Tensor& into);

}  // namespace detail
}  // namespace ROOT_OPTIM_NAMESPACE
}  // namespace root_optim

#ifndef ROOT_OPTIM_COMPILED
#include <root_optim/core/detail/archive_impl.hpp>
#endif
