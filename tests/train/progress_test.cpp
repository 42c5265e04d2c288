// The progress line and its durations.
#include <binade/train/progress.h>

#include <catch2/catch.hpp>
#include <cmath>

using namespace binade;
using Catch::Matchers::Contains;

TEST_CASE("the progress line", "[train][progress]") {
  CHECK(train::format_progress({.step = 120,
                                .steps = 1000,
                                .loss = 2.31409,
                                .smoothed = 2.401,
                                .tokens_per_second = 41234,
                                .learning_rate = 3e-4,
                                .grad_norm = 1.2149,
                                .scale = 65536,
                                .skipped = 1,
                                .seconds_left = 92,
                                .peak_bytes = 2050827223}) ==
        "step 120/1000  loss 2.3141 (2.4010)  41.2k tok/s  lr 3.00e-04  norm 1.21  scale 65536  "
        "skipped 1  left 1:32  peak 1.91 GiB");
  CHECK_THAT(train::format_progress({.tokens_per_second = NAN, .seconds_left = NAN}),
             Contains("  ? tok/s") && Contains("left ?"));
  CHECK(train::format_duration(0) == "0:00");
  CHECK(train::format_duration(59.6) == "1:00");
  CHECK(train::format_duration(7511) == "2:05:11");
  CHECK(train::format_duration(NAN) == "?");
  CHECK(train::format_duration(INFINITY) == "?");
}
