#include <binade/core/error.h>
#include <binade/data/ranking_csv.h>

#include <catch2/catch.hpp>
#include <map>

#include "temporary_folder.h"

using namespace binade;
using namespace binade::data;
using binade::test::TemporaryFolder;
using Catch::Matchers::Contains;
using Header = RankingCsv::Header;

namespace {

RankingSet read(const std::string& text, const RankingCsv& csv, const LetorOptions& options = {}) {
  const TemporaryFolder folder;
  return read_ranking_csv({folder.write("t.csv", text)}, csv, options);
}

RankingCsv columns(const std::string& label, const std::string& query) {
  RankingCsv csv;
  csv.label = label;
  csv.query = query;
  return csv;
}

std::string complaint(const std::string& text, const RankingCsv& csv,
                      const LetorOptions& options = {}) {
  try {
    read(text, csv, options);
    return {};
  } catch (const Error& error) {
    return error.what();
  }
}

}  // namespace

TEST_CASE("tables become lists in every spelling of them", "[data][letor]") {
  for (const std::string text : {
           "y,q,a,b\n2,x,0.5,1e2\n0,x,-1,0\n1,z,3,4\n",
           "y\tq\ta\tb\r\n2\tx\t0.5\t1e2\r\n0\tx\t-1\t0\r\n1\tz\t3\t4",
           "\"y\";\"q\";\"a\";\"b\"\n\n2;\"x\"; 0.5 ;\"1e2\"\n0;x;-1;0\n\n1;z;3;4\n\n",
           "\xEF\xBB\xBFy,q,a,b\n2, x ,+0.5,100.000\n# a comment\n0,x,-1,-0\n1,z,3,4\n",
       }) {
    CAPTURE(text);
    const RankingSet set = read(text, columns("y", "q"));
    CHECK(set.offsets.to_vector<int64_t>() == std::vector<int64_t>{0, 2, 3});
    CHECK(set.labels.to_vector<float>() == std::vector<float>{2, 0, 1});
    CHECK(set.features.to_vector<float>() == std::vector<float>{0.5, 100, -1, 0, 3, 4});
    CHECK(set.query_ids[1] == "z");
    CHECK(set.first_index == 0);
  }
  // Columns by number, in another order, some ignored, without names.
  RankingCsv csv = columns("2", "0");
  csv.ignored = {"3"};
  const RankingSet set = read("7,0.5,2,some words\n7,1.5,0,\n", csv);
  CHECK(set.features.to_vector<float>() == std::vector<float>{0.5, 1.5});
  CHECK(set.labels.to_vector<float>() == std::vector<float>{2, 0});
  csv.header = Header::yes;  // then the first line is no document
  CHECK(read("7,0.5,2,x\n7,1.5,0,x\n", csv).documents() == 1);
}

TEST_CASE("empty fields of a table are missing values", "[data][letor]") {
  const std::string text = "1,q,,NA\n0,q,\"\",nan\n1,q,3,4\n";
  RankingCsv csv = columns("0", "1");
  const RankingSet zero = read(text, csv, {.missing = LetorOptions::Missing::zero});
  CHECK(zero.features.to_vector<float>() == std::vector<float>{0, 0, 0, 0, 3, 4});
  const RankingSet least = read(text, csv, {.missing = LetorOptions::Missing::query_min});
  CHECK(least.features.to_vector<float>() == std::vector<float>{3, 4, 3, 4, 3, 4});
  // At the end of a line of tabs, too.
  const RankingSet tabs =
      read("1\tq\t5\t\n0\tq\t\t6\n", csv, {.missing = LetorOptions::Missing::zero});
  CHECK(tabs.features.to_vector<float>() == std::vector<float>{5, 0, 0, 6});
}

TEST_CASE("a bad table is named with its place", "[data][letor]") {
  const RankingCsv csv = columns("y", "q");
  const std::string head = "y,q,a,b\n1,x,1,2\n";
  const std::map<std::string, std::string> bad = {
      {"z,x,1,2", "t.csv:3:1: expected a label, a number from 0, found \"z,x,1,2\""},
      {",x,1,2", "t.csv:3:1: expected a label, a number from 0"},
      {"-1,x,1,2", "t.csv:3:1: expected a label from 0"},
      {"1,,1,2", "t.csv:3:3: expected a query id"},
      {"1,x,u,2", "t.csv:3:5: expected a value, a number"},
      {"1,x,,2", "t.csv:3:5: expected a value; missing says"},
      {"1,x,1e39,2", "t.csv:3:5: expected a value within f32"},
      {"1,x,1", "t.csv:3:6: expected 4 fields, as the first line has"},
      {"1,x,1,2,3", "t.csv:3:8: expected the end of a line of 4 fields"},
      {"1,x,1 1,2", "t.csv:3:5: expected a number"},
      {"1", "t.csv:3:2: expected 4 fields"},
  };
  for (const auto& [line, what] : bad) {
    CAPTURE(line);
    CHECK_THAT(complaint(head + line + "\n" + "1,x,1,2\n", csv), Contains(what));
    CHECK_THAT(complaint(head + line, csv), Contains(what));
  }
  CHECK_THAT(complaint(head + "1,z,1,2\n1,x,1,2\n", csv),
             Contains("t.csv:4: query x is here again"));
  CHECK_THAT(complaint("", csv), Contains("has no documents"));
  CHECK_THAT(complaint("\n\n", csv), Contains("has no documents"));
  CHECK_THAT(complaint("y,q,a\n", csv), Contains("has no documents"));
  CHECK_THAT(complaint("abc\n1\n", csv), Contains("expected fields with tabs, commas or"));
  CHECK_THAT(complaint(head, columns("yy", "q")), Contains("has no column \"yy\"; did you mean y"));
  CHECK_THAT(complaint(head, columns("y", "y")), Contains("\"y\" is given two meanings"));
  CHECK_THAT(complaint("1,2\n", columns("0", "2")),
             Contains("its columns have no names and are 0 to 1"));
  CHECK_THAT(complaint("1,2\n", columns("0", "0.5")), Contains("no column \"0.5\""));
  CHECK_THAT(complaint(head, columns("y", "")), Contains("no column has query ids"));
}

TEST_CASE("tables of several files and with group files", "[data][letor]") {
  const TemporaryFolder folder;
  const auto a = folder.write("a.csv", "y,q,f\n1,1,5\n");
  const auto b = folder.write("b.csv", "y,q,f\n0,2,6\n");
  CHECK(read_ranking_csv({a, b}, columns("y", "q")).features.to_vector<float>() ==
        std::vector<float>{5, 6});
  const auto c = folder.write("c.csv", "y,q,g\n0,2,6\n");
  CHECK_THROWS_WITH(read_ranking_csv({a, c}, columns("y", "q")),
                    Contains("c.csv has other columns than"));
  // LightGBM's example data: a label in front, and the lengths of lists in a file beside.
  const auto rank = folder.write("rank.train", "0\t1\t2\n1\t3\t4\n2\t5\t6\n");
  folder.write("rank.train.query", "1\n2\n");
  const RankingSet set = read_ranking_csv({rank}, {});
  CHECK(set.offsets.to_vector<int64_t>() == std::vector<int64_t>{0, 1, 3});
  CHECK(set.features.to_vector<float>() == std::vector<float>{1, 2, 3, 4, 5, 6});
  CHECK_THROWS_WITH(
      read_ranking_csv({a}, columns("y", "q"), {.group_files = {folder / "rank.train.query"}}),
      Contains("give one of them"));
  CHECK_THROWS_WITH(read_ranking_csv({}, {}), Contains("no table"));
}
