// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
#include "meta_kernels.hpp"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

namespace {

at::Tensor meta_abs(const at::Tensor& self) { return at::empty_like(self); }

at::Tensor meta_where(const at::Tensor& condition, const at::Tensor& self,
                      const at::Tensor& other) {
  const auto sizes = at::infer_size(condition.sizes(), at::infer_size(self.sizes(), other.sizes()));
  return at::empty(sizes, self.options());
}

at::Tensor& meta_where_out(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                           at::Tensor& out) {
  return out;
}

// c10::optional or std::optional, as LibTorch's version has it.
using OptionalDouble = decltype(std::declval<c10::IValue>().toOptional<double>());

at::Tensor meta_nan_to_num(const at::Tensor& self, OptionalDouble, OptionalDouble, OptionalDouble) {
  return at::empty_like(self);
}

at::Tensor meta_solve_triangular(const at::Tensor&, const at::Tensor& b, bool, bool, bool) {
  return at::empty(b.sizes(), b.options());
}

}  // namespace

// Shape functions only; the values of meta tensors do not exist.
TORCH_LIBRARY_IMPL(aten, Meta, m) {
  m.impl("abs", meta_abs);
  m.impl("where.self", meta_where);
  m.impl("where.self_out", meta_where_out);
  m.impl("nan_to_num", meta_nan_to_num);
  m.impl("linalg_solve_triangular", meta_solve_triangular);
}

namespace test {
namespace {

// RecordFunction callbacks are plain functions: they find the recorder of their thread here.
thread_local OperatorRecorder::Record* recording = nullptr;
thread_local int depth = 0;

template <class Values>
bool any_on_cpu(const Values& values) {
  for (const c10::IValue& value : values) {
    if (value.isTensor() && value.toTensor().defined() && value.toTensor().is_cpu()) return true;
    if (!value.isTensorList()) continue;
    for (const at::Tensor& t : value.toTensorVector()) {
      if (t.defined() && t.is_cpu()) return true;
    }
  }
  return false;
}

std::unique_ptr<at::ObserverContext> on_enter(const at::RecordFunction& function) {
  if (recording == nullptr) return nullptr;
  if (function.operator_name()) recording->operators.push_back(*function.operator_name());
  if (depth++ == 0) {
    recording->names.insert(function.name());
    ++recording->calls;
  }
  return nullptr;
}

void on_leave(const at::RecordFunction& function, at::ObserverContext*) {
  if (recording != nullptr && --depth == 0 && any_on_cpu(function.outputs())) {
    recording->on_cpu.insert(function.name());
  }
}

}  // namespace

OperatorRecorder::OperatorRecorder() {
  recording = &record_;
  depth = 0;
  handle_ = at::addThreadLocalCallback(at::RecordFunctionCallback(on_enter, on_leave)
                                           .scopes({at::RecordScope::FUNCTION})
                                           .needsOutputs(true));
}

OperatorRecorder::~OperatorRecorder() {
  at::removeCallback(handle_);
  recording = nullptr;
}

const std::set<std::string>& synchronizing_operators() {
  static const std::set<std::string> names{
      // a value for the host
      "aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal",
      "aten::allclose",
      // a shape that depends on values (index: with a mask)
      "aten::nonzero", "aten::nonzero_numpy", "aten::argwhere", "aten::masked_select",
      "aten::unique_dim", "aten::unique_consecutive", "aten::_unique", "aten::_unique2",
      "aten::bincount", "aten::repeat_interleave", "aten::index", "aten::index_put_",
      "aten::tensor_split",
      // decompositions that check their result on the host
      "aten::linalg_svd", "aten::_linalg_svd", "aten::linalg_svdvals", "aten::linalg_qr",
      "aten::linalg_eigh", "aten::_linalg_eigh", "aten::linalg_eigvalsh", "aten::linalg_cholesky",
      "aten::linalg_inv", "aten::linalg_solve", "aten::_linalg_check_errors",
      // a range taken from the data, or a limit on the number of elements
      "aten::histc", "aten::quantile", "aten::nanquantile",
      // tensors made of host values, and their copies
      "aten::cpu", "aten::cuda", "aten::pin_memory", "aten::_pin_memory", "aten::lift",
      "aten::lift_fresh"};
  return names;
}

bool has_cuda_library() {
  const auto found = c10::Dispatcher::singleton().findSchema({"aten::mm", ""});
  return found && found->hasKernelForDispatchKey(c10::DispatchKey::CUDA);
}

bool has_cuda_kernel(const c10::OperatorName& name) {
  const auto found = c10::Dispatcher::singleton().findSchema(name);
  if (!found) return false;
  for (const c10::DispatchKey key :
       {c10::DispatchKey::CUDA, c10::DispatchKey::CompositeExplicitAutograd,
        c10::DispatchKey::CompositeExplicitAutogradNonFunctional,
        c10::DispatchKey::CompositeImplicitAutograd}) {
    if (found->hasKernelForDispatchKey(key)) return true;
  }
  return false;
}

}  // namespace test
