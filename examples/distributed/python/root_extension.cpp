// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// `Root` for a Python training loop, and for the process group that Python made. train.py builds it.
#include <torch/extension.h>
#include <root_optim/checkpoint.hpp>
#include <root_optim/distributed.hpp>
#include <root_optim/parameters.hpp>
#include <root_optim/root.hpp>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

std::vector<at::Tensor> tensors_of(const NamedTensors& named) {
  std::vector<at::Tensor> tensors;
  for (const auto& [name, tensor] : named) tensors.push_back(tensor);
  return tensors;
}

/// The optimizer and the reduction of its gradients, over a group. What is called here is collective.
class DistributedRoot {
 public:
  DistributedRoot(const NamedTensors& parameters, double lr, double weight_decay,
                  const c10::intrusive_ptr<c10d::ProcessGroup>& group)
      : optimizer_(root_optim::param_groups(
            parameters, root_optim::RootOptions(lr).weight_decay(weight_decay))),
        reducer_(tensors_of(parameters), group) {
    root_optim::distribute(optimizer_, group);
  }

  void step() {
    reducer_.reduce();
    optimizer_.step();
  }
  void zero_grad() { optimizer_.zero_grad(); }
  void set_lr(double lr) {
    for (auto& group : optimizer_.param_groups()) group.options().set_lr(lr);
  }
  void save(const std::string& folder, int64_t step) {
    root_optim::save_sharded(optimizer_, folder, step);
  }
  int64_t load(const std::string& folder) { return root_optim::load_sharded(optimizer_, folder); }

 private:
  root_optim::Root optimizer_;
  root_optim::GradientReducer reducer_;
};

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  // Ranks wait for each other without Python's lock.
  using Unlocked = py::call_guard<py::gil_scoped_release>;
  py::class_<DistributedRoot>(module, "DistributedRoot")
      .def(py::init<const NamedTensors&, double, double,
                    const c10::intrusive_ptr<c10d::ProcessGroup>&>(),
           py::arg("parameters"), py::arg("lr"), py::arg("weight_decay"), py::arg("group"),
           Unlocked())
      .def("step", &DistributedRoot::step, Unlocked())
      .def("zero_grad", &DistributedRoot::zero_grad)
      .def("set_lr", &DistributedRoot::set_lr)
      .def("save", &DistributedRoot::save, py::arg("folder"), py::arg("step"), Unlocked())
      .def("load", &DistributedRoot::load, py::arg("folder"), Unlocked());
}
