#include <binade/core/error.h>
#include <binade/data/letor.h>
#include <binade/data/ranking_scores.h>

#include <catch2/catch.hpp>
#include <cmath>

#include "temporary_folder.h"

using namespace binade;
using namespace binade::data;
using binade::test::TemporaryFolder;
using Catch::Matchers::Contains;
using Scores = std::vector<double>;

TEST_CASE("scores are read in the order of the documents in their files", "[data][letor]") {
  const TemporaryFolder folder;
  const RankingSet set = parse_letor("1 qid:1 1:1\n0 qid:1 1:2\n2 qid:2 1:3\n", "lines");
  for (const char* text : {"0.5\n-1e-3\n7", "0.5\r\n -1e-3 \r\n+7\r\n", "0.5\n-1e-3\n\t7\n\n \n"})
    CHECK(read_scores(folder.write("s", text), set) == Scores{0.5, -1e-3, 7});
  CHECK(read_scores(folder.write("s", "inf\n-inf\n0\n"), set) == Scores{INFINITY, -INFINITY, 0});

  const RankingSet apart =
      parse_letor("1 qid:1 1:1\n0 qid:2 1:2\n2 qid:1 1:3\n", "lines", {.group_by_qid = true});
  const auto file = folder.write("three", "1\n2\n3\n");
  CHECK(read_scores(file, apart) == Scores{1, 3, 2});
  const RankingSet part = select_queries(set, std::vector<int64_t>{1});
  CHECK(read_scores(file, part, 3) == Scores{3});

  write_scores(folder / "out", apart, Scores{0.1, 1e-300, -2});
  CHECK(read_scores(folder / "out", apart) == Scores{0.1, 1e-300, -2});
  CHECK(read_scores(folder / "out", set) == Scores{0.1, -2, 1e-300});

  const auto refused = [&](const char* text, const char* what) {
    CHECK_THROWS_WITH(read_scores(folder.write("s", text), set), Contains(what));
  };
  refused("1\n2\n", "s has 2 scores, but there are 3 documents");
  refused("1\n2\n3\n4\n", "s has 4 scores");
  refused("", "s has 0 scores");
  refused("1\nx\n3\n", "s:2: expected a score, found \"x\"");
  refused("1\n\n3\n", "s:2: expected a score, found \"\"");
  refused("1\n2 3\n3\n", "s:2: expected a score, found \"2 3\"");
  refused("1\nnan\n3\n", "s:2: expected a score, found \"nan\"");
  refused("1\n2\n3,\n", "s:3: expected a score");
  CHECK_THROWS_WITH(read_scores(file, part, 2), Contains("three has 3 scores, but there are 2"));
  CHECK_THROWS_WITH(write_scores(folder / "out", part, Scores{1}), Contains("a part of the files"));
  CHECK_THROWS_WITH(write_scores(folder / "out", set, Scores{1}), Contains("1 scores for 3"));
}

TEST_CASE("weights are read in the order of what they weigh", "[data][letor]") {
  const TemporaryFolder folder;
  const RankingSet apart =
      parse_letor("1 qid:1 1:1\n0 qid:2 1:2\n2 qid:1 1:3\n", "lines", {.group_by_qid = true});
  const auto numbers = [](const Array& weights) {
    CHECK(weights.dtype() == DType::f32);
    return weights.to_vector<float>();
  };
  CHECK(numbers(read_weights(folder.write("w", "1\n0\n2.5\n"), apart)) ==
        std::vector<float>{1, 2.5F, 0});
  CHECK(numbers(read_list_weights(folder.write("l", "0\n2.5\n"), apart)) ==
        std::vector<float>{0, 2.5F});

  // What is wrong is told by the line of the file, also where documents were brought together.
  struct Bad {
    const char *lines, *what;
  };
  for (const auto& [lines, what] :
       {Bad{"1\n-1\n", "f:2: a weight is 0 or more and finite, got -1"},
        Bad{"inf\n1\n", "f:1: a weight is 0 or more and finite"},
        Bad{"1\n1e39\n", "f:2: a weight is 0 or more and finite, got 1e+39"},
        Bad{"1\nnan\n", "f:2: expected a weight, found \"nan\""},
        Bad{"1\n\n1\n", "f:2: expected a weight, found \"\""}, Bad{"1\n", "f has 1 weights"},
        Bad{"1\n1\n1\n1\n", "f has 4 weights"}, Bad{"", "f has 0 weights"}}) {
    const auto file = folder.write("f", lines);
    CHECK_THROWS_WITH(read_weights(file, apart), Contains(what));
    CHECK_THROWS_WITH(read_list_weights(file, apart), Contains(what));
  }
  CHECK_THROWS_WITH(read_weights(folder.write("f", "1\n2\n"), apart),
                    Contains("f has 2 weights, but there are 3 documents"));
  CHECK_THROWS_WITH(read_list_weights(folder.write("f", "1\n2\n3\n"), apart),
                    Contains("f has 3 weights, but there are 2 lists"));
  CHECK_THROWS_WITH(read_list_weights(folder.write("f", "0\n0\n"), apart),
                    Contains("all weights are 0"));
}
