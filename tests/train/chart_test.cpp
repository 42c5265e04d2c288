// Charts of a run's metrics.
#include <binade/train/run_folder.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>

#include <binade/core/file.h>

#include "temporary_folder.h"
#include "train/well_formed.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
using train::ChartAxis;
using train::RunFolder;

TEST_CASE("charts are well-formed SVG", "[train][chart]") {
  train::ChartSeries many{"a < b & c", {}, {}};
  for (int i = 0; i < 10000; ++i) {
    many.x.push_back(i);
    many.y.push_back(i % 100 == 0 ? NAN : std::sin(i * 0.01));
  }
  const std::string chart = train::draw_chart(
      {{"wave", {many, {"flat", {0, 1}, {2, 2}}}},
       {"log", {{"scale", {0, 1, 2, 3}, {65536, 0, -1, INFINITY}}}, ChartAxis::decades},
       {"empty", {{"", {}, {}}}},
       {"one point", {{"p", {5}, {0}}}}},
      "step");
  check_well_formed(chart);
  CHECK_THAT(chart, Catch::StartsWith("<svg") && Contains("a &lt; b &amp; c") && Contains("step"));
  CHECK(chart.size() < 200000);  // long lines are thinned
  check_well_formed(train::draw_chart({}, "x"));
}

namespace {

// The labels of the vertical axis, from the top panel down.
std::vector<std::string> tick_labels(const std::string& chart) {
  std::vector<std::string> labels;
  const std::string before = "text-anchor='end'>";
  for (size_t at = chart.find(before); at != std::string::npos; at = chart.find(before, at + 1)) {
    const size_t begin = at + before.size();
    labels.push_back(chart.substr(begin, chart.find('<', begin) - begin));
  }
  return labels;
}

std::vector<std::string> ticks_of(std::vector<double> values, ChartAxis axis) {
  std::vector<double> x;
  for (size_t i = 0; i < values.size(); ++i) x.push_back(static_cast<double>(i));
  const std::string chart = train::draw_chart({{"title", {{"", x, values}}, axis}}, "step");
  check_well_formed(chart);
  return tick_labels(chart);
}

}  // namespace

TEST_CASE("every tick of a chart has a label of its own", "[train][chart]") {
  for (const ChartAxis axis :
       {ChartAxis::linear, ChartAxis::decades, ChartAxis::doublings, ChartAxis::fitting}) {
    for (const double low : {1e-7, 0.001, 1.0, 2.0, 65536.0, 3e7, 1e15}) {
      INFO(low << ", axis " << static_cast<int>(axis));
      CHECK(ticks_of({low, low, low}, axis).size() == 1);  // a flat series
      for (const double factor : {1 + 1e-9, 1 + 1e-5, 1.01, 1.5, 2.0, 4.0, 9.0, 100.0, 1e6, 1e12}) {
        INFO(factor);
        std::vector<std::string> ticks = ticks_of({low, low * factor}, axis);
        CHECK(ticks.size() >= 2);
        CHECK(ticks.size() <= 13);
        std::sort(ticks.begin(), ticks.end());
        CHECK(std::unique(ticks.begin(), ticks.end()) == ticks.end());
      }
    }
  }
  CHECK(ticks_of({1, 1, 1}, ChartAxis::decades) == std::vector<std::string>{"1"});
  CHECK(ticks_of({0, 0}, ChartAxis::linear) == std::vector<std::string>{"0"});
  CHECK(ticks_of({1, 1000}, ChartAxis::decades) ==
        std::vector<std::string>{"1", "2", "5", "10", "20", "50", "100", "200", "500", "1000"});
  // A loss scale moves by binades, and its ticks say which.
  CHECK(ticks_of({16384, 131072}, ChartAxis::doublings) ==
        std::vector<std::string>{"16384", "32768", "65536", "131072"});
  CHECK(ticks_of({1, 65536}, ChartAxis::doublings) ==
        std::vector<std::string>{"1", "4", "16", "64", "256", "1024", "4096", "16384", "65536"});
  CHECK(ticks_of({0.125, 0.5}, ChartAxis::doublings) ==
        std::vector<std::string>{"2^-3", "2^-2", "2^-1"});
  // A loss gets a logarithmic axis once it spans two decades, and has no value at or below 0.
  CHECK(ticks_of({0.1, 10}, ChartAxis::fitting) == ticks_of({0.1, 10}, ChartAxis::decades));
  CHECK(ticks_of({0.11, 10}, ChartAxis::fitting) == ticks_of({0.11, 10}, ChartAxis::linear));
  CHECK(ticks_of({0, 0.1, 10}, ChartAxis::fitting) == ticks_of({0, 0.1, 10}, ChartAxis::linear));
}

TEST_CASE("a run's chart shows decades of loss and binades of its scale", "[train][chart]") {
  const TemporaryFolder temporary;
  RunFolder folder(temporary.path() / "a", false);
  folder.set_config("{}");
  folder.add_metrics(1, {{"loss", 100.0}, {"scale", 32768.0}, {"images_per_s", 10.0}});
  folder.add_metrics(2, {{"loss", 0.01}, {"scale", 131072.0}, {"images_per_s", 20.0}});
  folder.write_chart();
  const std::string chart = read_text_file(folder.path() / "chart.svg");
  check_well_formed(chart);
  CHECK_THAT(chart, Contains(">0.1<") && Contains(">10<") && Contains(">65536<") &&
                        Contains("images per second"));
}

TEST_CASE("a panel without a point is left out, a flat one is drawn", "[train][chart]") {
  const std::string chart =
      train::draw_chart({{"empty", {{"", {}, {}}}},
                         {"nothing above 0", {{"", {1, 2}, {0, -1}}}, ChartAxis::decades},
                         {"unknown", {{"", {1, 2}, {NAN, NAN}}}},
                         {"scale", {{"", {1, 2}, {1, 1}}}, ChartAxis::doublings}},
                        "step");
  check_well_formed(chart);
  CHECK_THAT(chart, Contains("scale") && !Contains("empty") && !Contains("nothing above 0") &&
                        !Contains("unknown") && Contains("viewBox='0 0 860 252'"));
}

TEST_CASE("a chart is XML whatever the names are", "[train][chart]") {
  std::string all;
  for (int byte = 1; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  all += std::string("\0", 1) + "\xef\xbf\xbe\xef\xbf\xbf\xed\xa0\x80 caf\xc3\xa9";
  const std::string chart = train::draw_chart({{all, {{all, {1, 2}, {3, 4}}}}}, all);
  CHECK_THAT(chart, Contains("caf\xc3\xa9"));
  // XML 1.0's characters (production [2]), decoded by hand.
  for (size_t i = 0; i < chart.size();) {
    const auto lead = static_cast<uint8_t>(chart[i]);
    const size_t length = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    REQUIRE((lead < 0x80 || lead >= 0xc2));
    REQUIRE(i + length <= chart.size());
    uint32_t c = length == 1 ? lead : lead & (0x7fu >> length);
    for (size_t k = 1; k < length; ++k) {
      REQUIRE((static_cast<uint8_t>(chart[i + k]) & 0xc0) == 0x80);
      c = c << 6 | (static_cast<uint8_t>(chart[i + k]) & 0x3f);
    }
    const bool allowed = c == 9 || c == 10 || c == 13 || (c >= 0x20 && c <= 0xd7ff) ||
                         (c >= 0xe000 && c <= 0xfffd) || c >= 0x10000;
    CHECK(allowed);
    i += length;
  }
}
