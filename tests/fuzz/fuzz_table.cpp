// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// libFuzzer: any text goes into CoefficientTable::read. It is refused by a c10::Error and leaves the
// table as it was, or accepted; then every entry passes validation, and what is written reads back
// to the same bytes and the same coefficients. Figures that do not fit refuse most texts, so an input
// that begins with byte 1 describes entries for CoefficientTable::set instead: what that accepts must
// survive the text in the same way.
#include <root_optim/root_optim.hpp>

#include <fuzzer/FuzzedDataProvider.h>

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>

using namespace root_optim;

namespace {

void require(bool condition, const char* what) {
  if (condition) return;
  std::cerr << "root_optim: " << what << '\n';
  std::abort();
}

/// A schedule: the shipped one with some numbers changed, or numbers of any kind.
Quintics any_schedule(FuzzedDataProvider& from) {
  Quintics schedule = shipped_quintics(from.ConsumeIntegralInRange<int64_t>(3, 12));
  const auto change = [&](double& v) {
    switch (from.ConsumeIntegralInRange(0, 7)) {
      case 0:
        v *= 1 + 0.01 * from.ConsumeFloatingPointInRange<double>(-1, 1);
        break;
      case 1:
        v = from.ConsumeFloatingPoint<double>();
        break;
      case 2:
        v = 0;
        break;
      default:
        break;
    }
  };
  for (Quintic& p : schedule) {
    change(p.a);
    change(p.b);
    change(p.c);
  }
  if (from.ConsumeBool()) schedule.resize(from.ConsumeIntegralInRange<size_t>(0, 70), {0.9, 0, 0});
  return schedule;
}

void set_any(CoefficientTable& table, FuzzedDataProvider& from) {
  TableEntry entry;
  entry.rows = from.ConsumeIntegral<int64_t>();
  entry.cols = from.ConsumeIntegral<int64_t>();
  entry.precision =
      from.PickValueInArray({Precision::Float64, Precision::Float32, Precision::BFloat16});
  entry.form = from.PickValueInArray({Form::Auto, Form::Direct, Form::Gram});
  entry.quintics = any_schedule(from);
  entry.origin = from.ConsumeRandomLengthString(8);
  if (from.ConsumeBool()) {  // weights sum to one, as a spectrum's must
    const auto count = from.ConsumeIntegralInRange<size_t>(1, 5);
    for (size_t i = 0; i < count; ++i) {
      entry.spectrum.sigma.push_back(from.ConsumeProbability<double>());
      entry.spectrum.weight.push_back(1 / static_cast<double>(count));
    }
  }
  try {
    table.set(entry);
  } catch (const c10::Error&) {
  }
}

/// What is written reads back to the same bytes, coefficients and spectra, and passes validation.
void check_round_trip(const CoefficientTable& table) {
  const std::string text = table.to_text();
  CoefficientTable again;
  std::istringstream written(text);
  try {
    again.read(written);
  } catch (const c10::Error& error) {
    std::cerr << text << error.what_without_backtrace() << '\n';
    require(false, "a written table is refused");
  }
  if (again.to_text() != text) std::cerr << text << again.to_text();
  require(again.to_text() == text, "a table does not read back to the same text");
  for (const TableEntry& entry : table.entries()) {
    const TableEntry* same = again.find(entry.rows, entry.cols, entry.precision);
    require(same != nullptr && same->quintics == entry.quintics && same->form == entry.form &&
                same->origin == entry.origin && same->spectrum.sigma == entry.spectrum.sigma &&
                same->spectrum.weight == entry.spectrum.weight,
            "an entry does not read back");
    require(validate_quintics(entry.quintics, ValidationOptions::for_precision(
                                                  entry.precision, Normalization::Schatten8))
                .valid,
            "an entry fails validation");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  CoefficientTable table;
  table.set(3, 5, shipped_quintics(3));
  if (size > 0 && data[0] == 1) {
    FuzzedDataProvider from(data + 1, size - 1);
    while (from.remaining_bytes() > 0) set_any(table, from);
  } else {
    const std::string before = table.to_text();
    std::istringstream in(std::string(reinterpret_cast<const char*>(data), size));
    try {
      table.read(in);
    } catch (const c10::Error&) {
      require(table.to_text() == before, "a refused text changed the table");
      return 0;
    }
  }
  check_round_trip(table);
  return 0;
}
