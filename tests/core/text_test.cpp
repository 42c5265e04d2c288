#include <binade/core/text.h>

#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include <binade/core/error.h>

using namespace binade;
using Catch::Contains;

namespace {

// By the recursive definition.
int distance(const std::string& a, const std::string& b) {
  if (a.empty() || b.empty()) return static_cast<int>(a.size() + b.size());
  const std::string x = a.substr(1), y = b.substr(1);
  if (a[0] == b[0]) return distance(x, y);
  return 1 + std::min({distance(x, b), distance(a, y), distance(x, y)});
}

}  // namespace

TEST_CASE("the edit distance counts insertions, deletions and substitutions", "[text]") {
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(edit_distance("", "abc") == 3);
  const std::string words[] = {"", "a", "ab", "ba", "abc", "cab", "aabb", "abab", "step", "steps"};
  for (const std::string& a : words)
    for (const std::string& b : words) CHECK(edit_distance(a, b) == distance(a, b));
}

TEST_CASE("the nearest name is suggested, or none", "[text]") {
  const std::vector<std::string> names = {"steps", "batch-size", "learning-rate", "lm_head.weight"};
  CHECK(did_you_mean("step", names) == "; did you mean steps?");
  CHECK(did_you_mean("batchsize", names) == "; did you mean batch-size?");
  CHECK(did_you_mean("learning_rate", names) == "; did you mean learning-rate?");
  CHECK(did_you_mean("colour", names).empty());
  CHECK(did_you_mean("", names).empty());
  CHECK(did_you_mean("steps", {}).empty());
  CHECK(did_you_mean("s", {"a-very-long-name"}).empty());
}

TEST_CASE("sizes in memory are printed in GiB", "[text]") {
  CHECK(gib(0) == "0.00 GiB");
  CHECK(gib(int64_t{3} << 29) == "1.50 GiB");
}

TEST_CASE("JSON that nests too deep is refused before it is parsed", "[text][bad-input]") {
  const auto nested = [](int depth) {
    return std::string(static_cast<size_t>(depth), '[') +
           std::string(static_cast<size_t>(depth), ']');
  };
  CHECK_NOTHROW(check_json_depth(nested(64), "x"));
  CHECK_THROWS_WITH(check_json_depth(nested(65), "config.json"),
                    Contains("config.json") && Contains("byte 64"));
  CHECK_THROWS_AS(check_json_depth(std::string(1000, '{'), "x"), Error);
  // Brackets in strings do not count, whatever is escaped there.
  CHECK_NOTHROW(check_json_depth(
      "[\"" + std::string(100, '[') + "\\\"" + std::string(100, '{') + "\\\\\", 1]", "x"));
  std::string many = "[";
  for (int i = 0; i < 1000; ++i) many += "{\"a\": []},";
  CHECK_NOTHROW(check_json_depth(many, "x"));
  CHECK_THROWS_AS(check_json_depth("[\"\\\\\"" + nested(64), "x"), Error);
}
