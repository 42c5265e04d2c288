// Tables of numbers.
#include <binade/data/csv.h>

#include <cmath>

#include <catch2/catch.hpp>

#include <binade/core/error.h>

#include "temporary_folder.h"

using namespace binade;
using namespace binade::data;
using binade::test::TemporaryFolder;
using Catch::Matchers::Contains;

namespace {

CsvTable read(const std::string& text) {
  const TemporaryFolder folder;
  return read_csv(folder.write("t.csv", text));
}

}  // namespace

TEST_CASE("a table of numbers is read whatever stands between them", "[csv]") {
  const std::vector<float> values = {1, -2.5, 3e4, 0.5, 0, 7};
  for (const std::string d : {",", ";", "\t"})
    for (const std::string end : {"\n", "\r\n"})
      for (const bool names : {true, false}) {
        CAPTURE(d, end, names);
        const CsvTable table =
            read((names ? "a" + d + "\"b c\"" + d + "d" + end : "") + "1" + d + "-2.5" + d + "3e4" +
                 end + end + " 0.5" + d + "\"0\"" + d + "7");
        CHECK(table.values.shape() == Shape{2, 3});
        CHECK(table.values.dtype() == DType::f32);
        CHECK(table.values.to_vector<float>() == values);
        CHECK(table.names ==
              (names ? std::vector<std::string>{"a", "b c", "d"} : std::vector<std::string>{}));
      }
}

TEST_CASE("a table may be one column, and begin with a byte order mark", "[csv]") {
  const CsvTable table = read("\xEF\xBB\xBFheight\n1\n2\n3\n");
  CHECK(table.names == std::vector<std::string>{"height"});
  CHECK(table.values.shape() == Shape{3, 1});
}

TEST_CASE("missing fields of a table are NaN", "[csv]") {
  const CsvTable table = read("a,b,c\n1,,NA\nnan,2,3\n,,\n");
  const auto values = table.values.to_vector<float>();
  REQUIRE(values.size() == 9);
  const std::vector<bool> missing = {false, true, true, true, false, false, true, true, true};
  for (size_t i = 0; i < values.size(); ++i) CHECK(std::isnan(values[i]) == missing[i]);
  // Tabs at the ends of a line are fields, too.
  CHECK(read("a\tb\tc\n\t2\t\n").values.to_vector<float>()[1] == 2);
}

TEST_CASE("what is no table is refused by file and line", "[csv]") {
  const std::pair<const char*, const char*> cases[] = {
      {"a,b\n1,2\n1,2,3\n", "t.csv:3: expected 2 fields, found 3"},
      {"a,b\n\n1\n", "t.csv:3: expected 2 fields, found 1"},
      {"a,b\n1,two\n", "t.csv:2: \"two\" is no number"},
      {"1,2\n1,0x10\n", "t.csv:2: \"0x10\" is no number"},
      {"1,2\n1,1e39\n", "t.csv:2: 1e39 is beyond f32"},
      {"1,b\n1,2\n", "t.csv:1: \"b\" is no number"},  // half a header is none
      {"a,b\n", "has no rows of numbers"},
      {"", "has no rows of numbers"},
      {"\n \n", "has no rows of numbers"},
  };
  for (const auto& [text, message] : cases) {
    CAPTURE(text);
    CHECK_THROWS_WITH(read(text), Contains(message));
  }
  CHECK_THROWS_WITH(read_csv("no/such.csv"), Contains("no/such.csv"));
}
