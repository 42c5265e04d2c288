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
