#include <binade/core/log.h>

#include <algorithm>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>

#include "warnings.h"

using namespace binade;

TEST_CASE("log lines reach the sink with their level", "[log]") {
  std::vector<std::pair<LogLevel, std::string>> lines;
  LogSink before =
      set_log_sink([&](LogLevel level, std::string_view line) { lines.emplace_back(level, line); });
  log_info("step ", 3);
  log_warning("scale ", 0.5, " is stuck");
  set_log_sink(std::move(before));

  REQUIRE(lines.size() == 2);
  CHECK(lines[0] == std::pair(LogLevel::kInfo, std::string("step 3")));
  CHECK(lines[1] == std::pair(LogLevel::kWarning, std::string("scale 0.5 is stuck")));
}

TEST_CASE("setting a sink hands back the one before", "[log]") {
  int first = 0;
  LogSink original = set_log_sink([&](LogLevel, std::string_view) { ++first; });
  LogSink returned = set_log_sink({});
  set_log_sink(std::move(original));
  REQUIRE(returned);
  returned(LogLevel::kInfo, "");
  CHECK(first == 1);
}

TEST_CASE("log lines of several threads arrive one by one", "[log]") {
  int inside = 0, most_inside = 0, lines = 0;
  LogSink before = set_log_sink([&](LogLevel, std::string_view) {
    most_inside = std::max(most_inside, ++inside);
    ++lines;
    --inside;
  });
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([] {
        for (int i = 0; i < 100; ++i) log_info("line ", i);
      });
  }
  set_log_sink(std::move(before));
  CHECK(lines == 400);
  CHECK(most_inside == 1);
}

TEST_CASE("an expected warning does not fail a test", "[log]") {
  const test::ExpectWarning expected("stuck at its floor");
  log_warning("the scale is stuck at its floor");
}
