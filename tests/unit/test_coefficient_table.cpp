// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Coefficients per shape: design on first use, override, threads, text format and what it refuses.
#include "support/catch_torch.hpp"

#include <root_optim/coefficient_table.hpp>
#include <root_optim/coefficients.hpp>

#include <sstream>
#include <string>
#include <thread>
#include <vector>

using namespace root_optim;
using test::contains;

namespace {

void read(CoefficientTable& table, const std::string& text) {
  std::istringstream in(text);
  table.read(in, "table.txt");
}

/// A table with one entry, you's triples.
std::string sample_text() {
  CoefficientTable table;
  table.set(768, 3072, CoefficientSet::you().schedule(1, 1, 5));
  return table.to_text();
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("CoefficientTable: designs on first use, then returns the same entry",
          "[coefficient_table]") {
  CoefficientTable table;
  CHECK(table.size() == 0);
  const auto first = table.find(64, 256, 5);
  CHECK(table.find(256, 64, 5) == first);
  CHECK(table.find(64, 256, 5, Precision::Float64) == first);
  CHECK(table.size() == 1);
  CHECK(first->rows == 64);
  CHECK(first->cols == 256);
  CHECK(first->origin == "designed");
  CHECK(first->report.valid);
  CHECK(first->schedule == design_for_shape(64, 256, 5).schedule);
  CHECK(table.schedule(64, 256, 5) == first->schedule);

  const auto reduced = table.find(64, 256, 5, Precision::BFloat16);
  CHECK(reduced->schedule != first->schedule);
  CHECK(reduced->report.margin >= 0.01);
  CHECK(table.find(64, 256, 4)->schedule.size() == 4);
  CHECK(table.size() == 3);
  CHECK_THROWS_WITH(table.find(0, 4, 5), contains("rows, cols, steps >= 1"));
  CHECK_THROWS_WITH(table.find(4, 4, 17), contains("1 to 16 steps"));
}

TEST_CASE("design_for_shape: beats one schedule for all on a Gaussian matrix of its shape",
          "[coefficient_table]") {
  ShapeModel gaussian;
  gaussian.gaussian_weight = 1;
  for (const int64_t n : {512, 1024, 4096}) {
    const Spectrum spectrum = gaussian_spectrum(512, n, NormKind::Schatten8, 32);
    const double own =
        expected_mse(design_for_shape(512, n, 5, Precision::Float32, gaussian).schedule, spectrum);
    const double mixed = expected_mse(design_for_shape(512, n, 5).schedule, spectrum);
    const double shipped = expected_mse(default_schedule(5), spectrum);
    INFO("512 x " << n << ": own " << own << ", mixture " << mixed << ", shipped " << shipped);
    CHECK(own < 0.5 * shipped);
    CHECK(own < mixed);
    CHECK(mixed < 0.015);
  }
  gaussian.gaussian_weight = 1.5;
  CHECK_THROWS_WITH(design_for_shape(4, 4, 5, Precision::Float32, gaussian),
                    contains("gaussian_weight"));
}

TEST_CASE("CoefficientTable: a user's entry replaces one shape", "[coefficient_table]") {
  CoefficientTable table;
  const Schedule you = CoefficientSet::you().schedule(1, 1, 5);
  table.find(64, 128, 5);
  table.set(128, 64, you);
  CHECK(table.schedule(64, 128, 5) == you);
  CHECK(table.find(64, 128, 5)->origin == "user");
  CHECK(table.schedule(64, 256, 5) != you);
  CHECK(table.schedule(64, 128, 5, Precision::BFloat16) != you);

  const Schedule unsafe = CoefficientSet::root_paper().schedule(2048, 2048, 5);
  CHECK_THROWS_WITH(table.set(64, 128, unsafe), contains("step 1 of 5 fails"));
  const Schedule narrow = CoefficientSet::polar_express(1.01).schedule(1, 1, 5);
  CHECK_NOTHROW(table.set(64, 128, narrow));
  CHECK_THROWS_AS(table.set(64, 128, narrow, Precision::BFloat16), c10::Error);
  CHECK_THROWS_WITH(table.set(64, 128, you, Precision::Float32, "two words"), contains("one word"));
  CHECK_THROWS_AS(table.set(64, 128, {}), c10::Error);
  CHECK(table.schedule(64, 128, 5) == narrow);
}

TEST_CASE("CoefficientTable: text restores every bit", "[coefficient_table]") {
  CoefficientTable table;
  table.find(96, 64, 5);
  table.find(64, 64, 3, Precision::BFloat16);
  table.set(64, 96, CoefficientSet::jordan().schedule(1, 1, 6));
  const std::string text = table.to_text();
  CHECK_THAT(text, contains("root_optim coefficients 1\n"));
  CHECK_THAT(text, contains("entry 64 96 float32 designed\n"));
  CHECK_THAT(text, contains("entry 64 64 bfloat16 designed\n"));

  CoefficientTable copy;
  read(copy, "# a comment\n\n" + text);
  CHECK(copy.size() == 3);
  CHECK(copy.to_text() == text);
  CHECK(copy.schedule(64, 96, 5) == table.schedule(64, 96, 5));
  CHECK(copy.find(64, 96, 6)->origin == "user");

  // Reading replaces what is there and keeps the rest.
  copy.set(64, 96, CoefficientSet::you().schedule(1, 1, 5));
  copy.set(8, 8, CoefficientSet::you().schedule(1, 1, 5));
  read(copy, text);
  CHECK(copy.schedule(64, 96, 5) == table.schedule(64, 96, 5));
  CHECK(copy.size() == 4);
}

TEST_CASE("CoefficientTable: refuses malformed or unsafe text, with line and reason",
          "[coefficient_table]") {
  const std::string good = sample_text();
  CoefficientTable table;
  read(table, good);
  REQUIRE(table.size() == 1);

  const auto refused = [&](const std::string& text, const std::string& place,
                           const std::string& reason) {
    CoefficientTable target;
    INFO(text);
    CHECK_THROWS_WITH(read(target, text), contains(place) && contains(reason));
    CHECK(target.size() == 0);
  };
  refused("", "table.txt:0", "first line");
  refused("something else\n", "table.txt:1", "first line");
  refused(replaced(good, "coefficients 1", "coefficients 2"), "table.txt:1", "version 1");
  refused(replaced(good, "entry", "entries"), "table.txt:2", "'entry");
  refused(replaced(good, "float32", "float16"), "table.txt:2", "float32|bfloat16");
  refused(replaced(good, "768 3072", "3072 768"), "table.txt:2", "smaller side");
  refused(replaced(good, "768 ", "768x "), "table.txt:2", "'entry");
  refused(replaced(good, "figures", "figure"), "table.txt:3", "'figures");
  refused(replaced(good, "-6.8946", "-6,8946"), "table.txt:4", "finite numbers");
  refused(replaced(good, "-6.8946", "nan"), "table.txt:4", "finite numbers");
  refused(replaced(good, "-6.8946", "1e999"), "table.txt:4", "finite numbers");
  refused(replaced(good, "end", ""), "table.txt", "or 'end'");
  refused(good + good.substr(good.find("entry")), "table.txt", "once");
  refused(replaced(good, "4.0848", "-4.0848"), "table.txt:2", "step 1 fails");
  // Still safe, but not what was written: the figures tell.
  refused(replaced(good, "4.0848", "4.0838"), "table.txt:3", "not those of the triples");
  // The second entry is bad: the first must not be taken either.
  refused(good + "entry 1 1 float32 user\n", "table.txt", "'figures");
}

TEST_CASE("CoefficientTable: threads may ask at once", "[coefficient_table]") {
  CoefficientTable table;
  std::vector<std::thread> threads;
  std::vector<Schedule> results(4);
  for (size_t i = 0; i < results.size(); ++i) {
    threads.emplace_back([&table, &results, i] {
      for (int64_t m : {8, 16, 24}) results[i] = table.schedule(m, 32, 3);
      table.to_text();
    });
  }
  for (std::thread& t : threads) t.join();
  CHECK(table.size() == 3);
  for (const Schedule& s : results) CHECK(s == results[0]);
}
