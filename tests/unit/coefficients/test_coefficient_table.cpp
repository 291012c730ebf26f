// SPDX-License-Identifier: MIT
// Copyright (c) root_optim contributors
//
// Coefficients per shape: the table, its text format and what it refuses, and designs per shape.
#include "support/catch_torch.hpp"

#include <root_optim/coefficients/design/shape_model.hpp>
#include <root_optim/coefficients/published.hpp>
#include <root_optim/coefficients/rational.hpp>
#include <root_optim/coefficients/shipped.hpp>
#include <root_optim/coefficients/table.hpp>

#include <sstream>
#include <string>

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
  table.set(768, 3072, CoefficientSet::you().quintics(1, 1, 5));
  return table.to_text();
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("CoefficientTable: an entry per shape and precision", "[coefficient_table]") {
  const Quintics you = CoefficientSet::you().quintics(1, 1, 5);
  CoefficientTable table;
  CHECK(table.find(64, 128) == nullptr);
  CHECK(table.empty());
  table.set(128, 64, you);
  REQUIRE(table.find(64, 128) != nullptr);
  CHECK(table.find(64, 128)->quintics == you);
  CHECK(table.find(128, 64) == table.find(64, 128));
  CHECK(table.find(64, 128, Precision::Float64) == table.find(64, 128));
  CHECK(table.find(64, 128, Precision::BFloat16) == nullptr);
  CHECK(table.find(64, 256) == nullptr);
  CHECK(table.find(64, 128)->rows == 64);
  CHECK(table.find(64, 128)->cols == 128);
  CHECK(table.find(64, 128)->origin == "user");
  CHECK(table.find(64, 128)->report.valid);

  // Another number of steps replaces it, in a copy only there.
  CoefficientTable copy = table;
  copy.set(64, 128, CoefficientSet::jordan().quintics(1, 1, 6));
  CHECK(copy.find(64, 128)->quintics.size() == 6);
  CHECK(copy.size() == 1);
  CHECK(table.find(64, 128)->quintics == you);
}

TEST_CASE("CoefficientTable: refuses unsafe entries and keeps what it has",
          "[coefficient_table][errors]") {
  CoefficientTable table;
  const Quintics narrow = CoefficientSet::polar_express(1.01).quintics(1, 1, 5);
  table.set(64, 128, narrow);
  const std::string before = table.to_text();
  const Quintics unsafe = CoefficientSet::root_paper().quintics(2048, 2048, 5);
  CHECK_THROWS_WITH(table.set(64, 128, unsafe), contains("step 1 of 5 fails"));
  CHECK_THROWS_AS(table.set(64, 128, narrow, Precision::BFloat16), c10::Error);
  CHECK_THROWS_AS(table.set(64, 128, Quintics{}), c10::Error);
  CHECK_THROWS_WITH(table.set(0, 128, narrow), contains("rows, cols >= 1, got 0, 128"));
  const auto refused = [&](auto change, const std::string& reason) {
    TableEntry entry = *table.find(64, 128);
    change(entry);
    CHECK_THROWS_WITH(table.set(entry), contains(reason));
  };
  for (const char* origin : {"", "two words", "a\vb", "a\fb", "a#b", "a\n"}) {
    refused([&](auto& e) { e.origin = origin; }, "one word");
  }
  refused([](auto& e) { e.quintics.resize(65, {0.9, 0, 0}); }, "at most 64 steps, got 65");
  refused([](auto& e) { e.spectrum = {{0.5}, {}}; }, "a weight for every sigma");
  refused([](auto& e) { e.spectrum = {{0.5}, {0.5}}; }, "sum to one");
  refused([](auto& e) { e.spectrum = {{-0.5}, {1}}; }, "sigma in [0, 1]");
  refused([](auto& e) { e.spectrum = {{0.5, 0.1}, {1, 0}}; }, "weights > 0");
  CHECK(table.to_text() == before);
}

TEST_CASE("CoefficientTable: text restores every bit", "[coefficient_table]") {
  CoefficientTable table;
  TableEntry designed;
  designed.rows = 64;
  designed.cols = 96;
  designed.quintics = design_for_shape(64, 96, 5).quintics;
  designed.form = Form::Gram;
  designed.origin = "designed";
  designed.spectrum = condensed(heavy_tailed_spectrum(64, Normalization::Schatten8));
  table.set(designed);
  table.set(64, 64, design_for_shape(64, 64, 3, Precision::BFloat16).quintics, Precision::BFloat16);
  const std::string text = table.to_text();
  CHECK_THAT(text, contains("root_optim coefficients 1\n"));
  CHECK_THAT(text, contains("entry 64 96 float32 gram designed\n"));
  CHECK_THAT(text, contains("entry 64 64 bfloat16 auto user\n"));

  CoefficientTable copy;
  read(copy, "# a comment\n\n" + text);
  CHECK(copy.size() == 2);
  CHECK(copy.to_text() == text);
  CHECK(copy.find(64, 96)->quintics == designed.quintics);
  CHECK(copy.find(64, 96)->form == Form::Gram);
  CHECK(copy.find(64, 96)->spectrum.sigma == designed.spectrum.sigma);
  CHECK(copy.find(64, 96)->spectrum.weight == designed.spectrum.weight);

  // Reading replaces what is there and keeps the rest.
  copy.set(64, 96, CoefficientSet::you().quintics(1, 1, 5));
  copy.set(8, 8, CoefficientSet::you().quintics(1, 1, 5));
  read(copy, text);
  CHECK(copy.find(64, 96)->quintics == designed.quintics);
  CHECK(copy.size() == 3);
}

TEST_CASE("CoefficientTable: stages with inverses beside triples, as version 2",
          "[coefficient_table]") {
  const RationalStages stages = zolotarev_stages({{1, 1e-3}, {2, 0.1}});
  CoefficientTable table;
  table.set(64, 128, stages);
  REQUIRE(table.find(128, 64) != nullptr);
  CHECK(table.find(128, 64)->is_rational());
  CHECK(table.find(128, 64)->stages == stages);
  CHECK(table.find(128, 64)->rational_report.valid);
  table.set(8, 8, CoefficientSet::you().quintics(1, 1, 5));
  CHECK_FALSE(table.find(8, 8)->is_rational());

  const std::string text = table.to_text();
  CHECK_THAT(text, contains("root_optim coefficients 2\n"));
  CHECK_THAT(text, contains("entry 64 128 float32 rational user\nfigures "));
  CoefficientTable copy;
  read(copy, text);
  CHECK(copy.to_text() == text);
  CHECK(copy.find(64, 128)->stages == stages);

  const auto refused = [](const std::string& wrong, const std::string& place,
                          const std::string& reason) {
    CoefficientTable target;
    INFO(wrong);
    CHECK_THROWS_WITH(read(target, wrong), contains(place) && contains(reason));
    CHECK(target.size() == 0);
  };
  // Entries in order: 8x8 with five triples in lines 2 to 9, 64x128 from line 10.
  refused(replaced(text, "coefficients 2", "coefficients 1"), "table.txt:10", "'entry");
  refused(replaced(text, "128 float32", "128 bfloat16"), "table.txt:10", "'entry");
  refused(replaced(text, "stage ", "stages "), "table.txt:12", "'stage' and numbers");
  refused(replaced(text, "stage ", "stage x "), "table.txt:12", "a number");
  refused(replaced(text, "stage ", "stage 1 "), "table.txt:12", "every weight with its pole");
  refused(replaced(text, "stage ", "stage -"), "table.txt:10", "stage 1");
  refused(replaced(text, "0.0156", "0.0157"), "table.txt:11", "not those of the coefficients");
  refused(text.substr(0, text.find("stage")) + "end\n", "table.txt:12", "'stage'");
  refused(text.substr(0, text.find("stage")), "table.txt", "or 'end'");

  const std::string before = table.to_text();
  const auto unset = [&](auto change, const std::string& reason) {
    TableEntry entry = *table.find(64, 128);
    change(entry);
    CHECK_THROWS_WITH(table.set(entry), contains(reason));
  };
  unset([](auto& e) { e.quintics = shipped_quintics(5); },
        "either triples or stages, got 5 triples and 2");
  unset([](auto& e) { e.stages.clear(); }, "either triples or stages, got 0 triples and 0");
  unset([](auto& e) { e.precision = Precision::BFloat16; }, "got bfloat16 and auto");
  unset([](auto& e) { e.form = Form::Gram; }, "got float32 and gram");
  unset([](auto& e) { e.stages[0].poles[0] = 1e-9; }, "stage 1");
  unset([](auto& e) { e.stages[0].weights[0] = -1; }, "stage 1");
  CHECK(table.to_text() == before);
}

TEST_CASE("design_for_shape: beats one schedule for all on a Gaussian matrix of its shape",
          "[coefficient_table]") {
  ShapeModel gaussian;
  gaussian.gaussian_weight = 1;
  for (const int64_t n : {512, 1024, 4096}) {
    const Spectrum spectrum = gaussian_spectrum(512, n, Normalization::Schatten8, 32);
    const double own =
        expected_mse(design_for_shape(512, n, 5, Precision::Float32, gaussian).quintics, spectrum);
    const double mixed = expected_mse(design_for_shape(512, n, 5).quintics, spectrum);
    const double shipped = expected_mse(shipped_quintics(5, Precision::Float32), spectrum);
    INFO("512 x " << n << ": own " << own << ", mixture " << mixed << ", shipped " << shipped);
    CHECK(own < (n == 512 ? 1.0 : 0.5) * shipped);  // a square one is what the mixture holds
    CHECK(own < mixed);
    CHECK(mixed < 0.015);
  }
  gaussian.gaussian_weight = 1.5;
  CHECK_THROWS_WITH(design_for_shape(4, 4, 5, Precision::Float32, gaussian),
                    contains("gaussian_weight"));
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
  refused(replaced(good, "coefficients 1", "coefficients 3"), "table.txt:1", "version 1 or 2");
  refused(replaced(good, "coefficients 1", "coefficients 0"), "table.txt:1", "version 1 or 2");
  refused(replaced(good, "coefficients 1", "coefficients x"), "table.txt:1", "version 1 or 2");
  refused(replaced(good, "entry", "entries"), "table.txt:2", "'entry");
  refused(replaced(good, "float32", "float16"), "table.txt:2", "float32|bfloat16");
  refused(replaced(good, " auto", " fast"), "table.txt:2", "auto|direct|gram");
  refused(replaced(good, " auto", ""), "table.txt:2", "'entry");
  refused(replaced(good, "768 3072", "3072 768"), "table.txt:2", "smaller side");
  refused(replaced(good, "768 ", "768x "), "table.txt:2", "'entry");
  refused(replaced(good, "figures", "figure"), "table.txt:3", "'figures");
  refused(replaced(good, "-6.8946", "-6,8946"), "table.txt:4", "finite numbers");
  refused(replaced(good, "-6.8946", "nan"), "table.txt:4", "finite numbers");
  refused(replaced(good, "-6.8946", "1e999"), "table.txt:4", "finite numbers");
  refused(replaced(good, "end", ""), "table.txt", "or 'end'");
  refused(good + good.substr(good.find("entry")), "table.txt", "once");
  refused(replaced(good, "4.0848", "-4.0848"), "table.txt:2", "step 1 that fails");
  // Still safe, but not what was written: the figures tell.
  refused(replaced(good, "4.0848", "4.0838"), "table.txt:3", "not those of the coefficients");
  // The second entry is bad: the first must not be taken either.
  refused(good + "entry 1 1 float32 auto user\n", "table.txt", "'figures");
  const auto with_spectrum = [&](const std::string& lines) {
    return replaced(good, "\n4.0848", "\n" + lines + "4.0848");
  };
  CoefficientTable accepted;
  read(accepted, with_spectrum("sigma 0.5 0.1\nweight 0.25 0.75\n"));
  CHECK(accepted.find(768, 3072)->spectrum.sigma.size() == 2);
  refused(with_spectrum("sigma 0.5 0.1\n"), "table.txt:5", "'weight'");
  refused(with_spectrum("sigma 0.5 0.1\nweight 1\n"), "table.txt:5", "weight for every sigma");
  refused(with_spectrum("sigma 0.5 x\nweight 0.5 0.5\n"), "table.txt:4", "a number");
}
