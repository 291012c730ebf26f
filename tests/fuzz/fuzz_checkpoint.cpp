// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// libFuzzer: checkpoints into root_optim::load. What it refuses must be refused by a c10::Error and
// leave the optimizer as it was, byte by byte; what it accepts must save again to what loads again,
// and the next step must run or be refused by a c10::Error.
//
// A digest and a checksum would refuse nearly everything, so the target makes them right. By the
// first byte of the input:
//   0  the rest is the file; a digest is appended. Here LibTorch's archive reader stands in front of
//      us; it is not instrumented, and scripts/test-long.sh reports its crashes apart.
//   1  a good checkpoint with options, shapes and state changed as the rest says; right checksum
//   2  an archive with entries left out, of another type or of other values as the rest says
//   3  a good file with bytes changed, inserted and erased as the rest says; as 0 otherwise
#include <root_optim/root_optim.hpp>

#include <fuzzer/FuzzedDataProvider.h>

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

using namespace root_optim;

namespace {

void require(bool condition, const char* what) {
  if (condition) return;
  std::cerr << "root_optim: " << what << '\n';
  std::abort();
}

/// A matrix, a bias, a table.
struct Model {
  std::vector<at::Tensor> parameters{at::ones({8, 9}).requires_grad_(true),
                                     at::ones({4}).requires_grad_(true)};
  std::unique_ptr<Root> optimizer;

  Model() {
    CoefficientTable table;
    table.set(8, 9, shipped_quintics(3));
    const auto options = [&](double lr) {
      return std::make_unique<RootOptions>(
          RootOptions(lr).orthogonalizer(AdaNewton().table(table)));
    };
    optimizer = std::make_unique<Root>(std::vector<Root::Group>{
        Root::Group({parameters[0]}, options(1e-3)), Root::Group({parameters[1]}, options(1e-2))});
    step();
  }

  void step() {
    for (const at::Tensor& p : parameters) p.mutable_grad() = at::ones_like(p);
    optimizer->step();
  }
};

Model& model() {
  static Model instance;
  return instance;
}

/// The checkpoint that all changes start from.
const std::string& good_bytes() {
  static const std::string bytes = checkpoint_bytes(*model().optimizer);
  return bytes;
}
const Checkpoint& good_checkpoint() {
  static const Checkpoint checkpoint = [] {
    torch::serialize::InputArchive archive;
    archive.load_from(good_bytes().data(), good_bytes().size());
    return root_optim::detail::read_checkpoint(archive).groups;
  }();
  return checkpoint;
}

/// Whether the optimizer is as good_checkpoint() says. NaN does not occur there.
bool is_good(const Root& optimizer) {
  const Checkpoint& good = good_checkpoint();
  const auto& groups = optimizer.param_groups();
  bool same = groups.size() == good.size() && optimizer.state().size() == groups.size();
  for (size_t g = 0; same && g < groups.size(); ++g) {
    const auto& state = static_cast<const ParamState&>(
        *optimizer.state().at(root_optim::detail::state_key(groups[g].params()[0])));
    same = static_cast<const RootOptions&>(groups[g].options()).fields() == good[g].options &&
           groups[g].params().size() == 1 && state == good[g].params[0].state;
  }
  return same;
}

std::string bytes_of(torch::serialize::OutputArchive& archive) {
  std::string bytes;
  archive.save_to([&bytes](const void* data, size_t size) {
    bytes.append(static_cast<const char*>(data), size);
    return size;
  });
  return bytes;
}

double any_double(FuzzedDataProvider& from) {
  constexpr double special[] = {0, -0.0, 1, -1, 0.5, 1e-320, 1e308, 1e39, 1e4, 0.99999999};
  switch (from.ConsumeIntegralInRange(0, 3)) {
    case 0:
      return special[from.ConsumeIntegralInRange<size_t>(0, std::size(special) - 1)];
    case 1:
      return std::numeric_limits<double>::infinity();
    case 2:
      return std::numeric_limits<double>::quiet_NaN();
    default:
      return from.ConsumeFloatingPoint<double>();
  }
}

int64_t any_integer(FuzzedDataProvider& from) {
  return from.ConsumeBool() ? from.ConsumeIntegralInRange<int64_t>(-2, 66)
                            : from.ConsumeIntegral<int64_t>();
}

template <class Make>
auto any_list(FuzzedDataProvider& from, Make make) {
  std::vector<decltype(make())> list;
  for (int i = from.ConsumeIntegralInRange(0, 6); i > 0; --i) list.push_back(make());
  return list;
}

std::string any_string(FuzzedDataProvider& from) {
  const auto& table = good_checkpoint()[0].options.get<std::string>("orthogonalizer.table");
  switch (from.ConsumeIntegralInRange(0, 3)) {
    case 0:
      return from.PickValueInArray<std::string>(
          {"", "auto", "Float", "BFloat16", "soft_threshold", "ada_newton", "Half"});
    case 1: {  // the table with one place changed
      std::string text = table;
      const size_t at = from.ConsumeIntegralInRange<size_t>(0, text.size());
      return text.replace(at, from.ConsumeIntegralInRange<size_t>(0, 8),
                          from.ConsumeRandomLengthString(12));
    }
    default:
      return from.ConsumeRandomLengthString(40);
  }
}

at::Tensor any_tensor(FuzzedDataProvider& from) {
  if (from.ConsumeProbability<float>() < 0.1F) return {};
  const auto dtype = from.PickValueInArray(
      {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16, at::kLong, at::kBool, at::kComplexFloat});
  std::vector<int64_t> sizes =
      any_list(from, [&] { return from.ConsumeIntegralInRange<int64_t>(0, 9); });
  if (from.ConsumeBool()) sizes = {8, 9};
  if (from.ConsumeIntegralInRange(0, 3) == 0) sizes = {};  // a counter
  at::Tensor tensor = at::full(sizes, from.ConsumeBool() ? 1.0 : any_double(from), at::kDouble);
  return tensor.to(dtype);
}

void set_any(Fields& fields, const std::string& key, FuzzedDataProvider& from) {
  switch (from.ConsumeIntegralInRange(0, 6)) {
    case 0:
      return fields.set(key, from.ConsumeBool());
    case 1:
      return fields.set(key, any_integer(from));
    case 2:
      return fields.set(key, any_double(from));
    case 3:
      return fields.set(key, any_string(from));
    case 4:
      return fields.set(key, any_list(from, [&] { return any_double(from); }));
    case 5:
      return fields.set(key, any_list(from, [&] { return any_integer(from); }));
    default:
      return fields.set(key, any_list(from, [&] { return any_string(from); }));
  }
}

/// Another value of the type that is there: passes the first checks more often than any type would.
void change(Fields& fields, const std::string& key, FuzzedDataProvider& from) {
  const Fields::Value& old = fields.values().at(key);
  if (std::holds_alternative<bool>(old)) return fields.set(key, from.ConsumeBool());
  if (std::holds_alternative<int64_t>(old)) return fields.set(key, any_integer(from));
  if (std::holds_alternative<double>(old)) return fields.set(key, any_double(from));
  if (std::holds_alternative<std::string>(old)) return fields.set(key, any_string(from));
  if (std::holds_alternative<std::vector<double>>(old)) {
    return fields.set(key, any_list(from, [&] { return any_double(from); }));
  }
  if (std::holds_alternative<std::vector<int64_t>>(old)) {
    return fields.set(key, any_list(from, [&] { return any_integer(from); }));
  }
  fields.set(key, any_list(from, [&] { return any_string(from); }));
}

/// Mode 1.
std::string changed_checkpoint(FuzzedDataProvider& from) {
  Checkpoint checkpoint = good_checkpoint();
  while (from.remaining_bytes() > 0 && !checkpoint.empty()) {
    CheckpointGroup& group =
        checkpoint[from.ConsumeIntegralInRange<size_t>(0, checkpoint.size() - 1)];
    std::vector<std::string> keys;
    for (const auto& item : group.options.values()) keys.push_back(item.first);
    const std::string key =
        keys.empty() ? "lr" : keys[from.ConsumeIntegralInRange<size_t>(0, keys.size() - 1)];
    CheckpointParam* param = nullptr;
    if (!group.params.empty()) {
      param = &group.params[from.ConsumeIntegralInRange<size_t>(0, group.params.size() - 1)];
    }
    switch (from.ConsumeIntegralInRange(0, 9)) {
      case 0:
        set_any(group.options, key, from);
        break;
      case 1:
      case 2:
      case 3:
        if (group.options.contains(key)) change(group.options, key, from);
        break;
      case 4: {  // without the key
        Fields fields;
        for (const auto& [name, value] : group.options.values()) {
          if (name == key) continue;
          std::visit([&, &name = name](const auto& held) { fields.set(name, held); }, value);
        }
        group.options = std::move(fields);
        break;
      }
      case 5:
        if (param != nullptr) param->shape = any_list(from, [&] { return any_integer(from); });
        break;
      case 6:
        if (param != nullptr) param->state.step(any_integer(from));
        break;
      case 7:
        if (param != nullptr) {
          at::Tensor tensor = any_tensor(from);
          const int which = from.ConsumeIntegralInRange(0, 4);
          if (which == 0) param->state.momentum_buffer(tensor);
          if (which == 1) param->state.exp_avg(tensor);
          if (which == 2) param->state.exp_avg_sq(tensor);
          if (which == 3) param->state.skipped(tensor);
          if (which == 4) param->state.non_finite(tensor);
        }
        break;
      case 8:
        if (from.ConsumeBool() && !group.params.empty()) {
          group.params.pop_back();
        } else {
          group.params.emplace_back();
        }
        break;
      default:
        if (from.ConsumeBool()) {
          checkpoint.pop_back();
        } else {
          checkpoint.push_back(good_checkpoint()[0]);
        }
    }
  }
  torch::serialize::OutputArchive archive;
  root_optim::detail::write_checkpoint(archive, checkpoint);
  return bytes_of(archive);
}

/// Mode 2: the layout of a checkpoint, written by hand, with entries left out or replaced.
class LooseWriter {
 public:
  explicit LooseWriter(FuzzedDataProvider& from) : from_(from) {}

  std::string bytes() {
    const Checkpoint& good = good_checkpoint();
    torch::serialize::OutputArchive archive;
    write(archive, "root_optim_format", c10::IValue(root_optim::detail::checkpoint_format));
    write(
        archive, "checksum",
        c10::IValue(root_optim::detail::checksum_of(good, root_optim::detail::checkpoint_format)));
    write(archive, "groups", c10::IValue(static_cast<int64_t>(good.size())));
    for (size_t g = 0; g < good.size(); ++g) {
      torch::serialize::OutputArchive group(archive.compilation_unit());
      torch::serialize::OutputArchive options(archive.compilation_unit());
      for (const auto& [key, value] : good[g].options.values()) {
        std::visit([&, &name = key](const auto& held) { write(options, name, c10::IValue(held)); },
                   value);
      }
      nest(group, "options", options);
      write(group, "params", c10::IValue(static_cast<int64_t>(good[g].params.size())));
      for (size_t p = 0; p < good[g].params.size(); ++p) {
        torch::serialize::OutputArchive param(archive.compilation_unit());
        write(param, "shape", c10::IValue(good[g].params[p].shape));
        const ParamState& state = good[g].params[p].state;
        write(param, "step", c10::IValue(state.step()));
        for (const ParamState::Slot& slot : ParamState::slot_list()) {
          const char* name = slot.name;
          const at::Tensor& tensor = state.*slot.tensor;
          if (!tensor.defined()) continue;
          if (changes()) {
            write(param, name, c10::IValue());
          } else {
            param.write(name, tensor);
          }
        }
        nest(group, "param" + std::to_string(p), param);
      }
      nest(archive, "group" + std::to_string(g), group);
    }
    return bytes_of(archive);
  }

 private:
  bool changes() { return from_.remaining_bytes() > 0 && from_.ConsumeIntegralInRange(0, 15) == 0; }

  c10::IValue any_value() {
    switch (from_.ConsumeIntegralInRange(0, 8)) {
      case 0:
        return c10::IValue(from_.ConsumeBool());
      case 1:
        return c10::IValue(any_integer(from_));
      case 2:
        return c10::IValue(any_double(from_));
      case 3:
        return c10::IValue(any_string(from_));
      case 4:
        return c10::IValue(any_list(from_, [&] { return any_double(from_); }));
      case 5:
        return c10::IValue(any_list(from_, [&] { return any_integer(from_); }));
      case 6:
        return c10::IValue(any_list(from_, [&] { return any_string(from_); }));
      case 7:
        return c10::IValue(std::vector<bool>{from_.ConsumeBool()});
      default:
        return c10::IValue(at::ones({2}));
    }
  }

  void write(torch::serialize::OutputArchive& archive, const std::string& key, c10::IValue value) {
    if (!changes()) {
      archive.write(key, value);
    } else if (from_.ConsumeBool()) {
      archive.write(key, any_value());
    }
  }
  void nest(torch::serialize::OutputArchive& archive, const std::string& key,
            torch::serialize::OutputArchive& nested) {
    if (!changes()) {
      archive.write(key, nested);
    } else if (from_.ConsumeBool()) {
      archive.write(key, any_value());
    }
  }

  FuzzedDataProvider& from_;
};

/// Mode 3.
std::string changed_bytes(FuzzedDataProvider& from) {
  std::string bytes = good_bytes();
  while (from.remaining_bytes() > 0) {
    const size_t at = from.ConsumeIntegralInRange<size_t>(0, bytes.size());
    const std::string text = from.ConsumeRandomLengthString(16);
    // Mostly as many bytes as there were: a zip file is full of offsets.
    const bool same_size = from.ConsumeIntegralInRange(0, 7) > 0;
    bytes.replace(at, same_size ? text.size() : from.ConsumeIntegralInRange<size_t>(0, 64), text);
  }
  return bytes;
}

/// The digest that `save` would have appended, if the bytes end as an archive.
void digest(std::string& bytes) {
  if (bytes.size() >= root_optim::detail::digest_size &&
      root_optim::detail::ends_as_zip(bytes, root_optim::detail::digest_size)) {
    bytes.resize(bytes.size() - root_optim::detail::digest_size);
    bytes[bytes.size() - 2] = 0;
  }
  if (root_optim::detail::ends_as_zip(bytes, 0)) root_optim::detail::append_digest(bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool quiet = [] {  // one thread: LibTorch starts none of its own
    at::set_num_threads(1);
    return true;
  }();
  static_cast<void>(quiet);
  if (size == 0) return 0;
  good_checkpoint();
  FuzzedDataProvider from(data + 1, size - 1);
  std::string bytes;
  try {
    switch (data[0] % 4) {
      case 0:
        bytes.assign(reinterpret_cast<const char*>(data) + 1, size - 1);
        break;
      case 1:
        bytes = changed_checkpoint(from);
        break;
      case 2:
        bytes = LooseWriter(from).bytes();
        break;
      default:
        bytes = changed_bytes(from);
    }
  } catch (const std::exception&) {  // what LibTorch does not write, nobody reads
    return 0;
  }
  digest(bytes);

  Model& target = model();
  std::istringstream in(bytes);
  try {
    load(*target.optimizer, in);
  } catch (const c10::Error&) {
    require(is_good(*target.optimizer), "a refused checkpoint changed the optimizer");
    return 0;
  }
  // Accepted: it saves to what loads to the same. (NaN is a value that state may have.)
  const std::string saved = checkpoint_bytes(*target.optimizer);
  try {
    std::istringstream again(saved);
    load(*target.optimizer, again);
  } catch (const c10::Error& error) {
    std::cerr << error.what_without_backtrace() << '\n';
    require(false, "what was accepted and saved is refused");
  }
  require(checkpoint_bytes(*target.optimizer) == saved, "what was accepted does not save the same");
  try {
    target.step();
  } catch (const c10::Error&) {
  }
  // Not by a load: a name that the file gave would stay, as it should.
  target = Model();
  return 0;
}
