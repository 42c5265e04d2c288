#include <binade/core/error.h>
#include <binade/data/regex.h>

#include <catch2/catch.hpp>
#include <string>
#include <vector>

using namespace binade::data;
using Catch::Matchers::Contains;

namespace {

std::vector<std::string> matches(const std::string& pattern, const std::string& text) {
  const Regex regex(pattern);
  RegexScan scan(regex, text);
  std::vector<std::string> out;
  for (size_t begin = 0, end = 0; scan.next(begin, end);) {
    out.push_back(text.substr(begin, end - begin));
  }
  return out;
}

using Strings = std::vector<std::string>;

}  // namespace

TEST_CASE("patterns mean what they mean to Oniguruma", "[data][regex]") {
  CHECK(matches("\\s", "a \t\u0085\u180E\u3000\u200B") == Strings{" ", "\t", "\u0085", "\u3000"});
  CHECK(matches("[^\\s]+", "ab\u2028c") == Strings{"ab", "c"});
  CHECK(matches("[\\S]", "a b") == Strings{"a", "b"});
  CHECK(matches("\\w+", "a_\u0301\u24D0\u00B2-\u203F9") ==
        Strings{"a_\u0301\u24D0\u00B2", "\u203F9"});
  CHECK(matches("[\\w]+", "a\u00B2b") == Strings{"a", "b"});
  CHECK(matches("\\W", "a\u00B2-") == Strings{"-"});
  CHECK(matches("\\v", "\n\v") == Strings{"\v"});
  CHECK(matches("\\d+", "12\u0663x\u00B2") == Strings{"12\u0663"});
  CHECK(matches("\\p{Han}+", "\u4E00\u3007\u3001") == Strings{"\u4E00\u3007"});
  CHECK(matches("\\p{^L}", "a1") == Strings{"1"});
  CHECK(matches("\\P{Letter}", "a1") == Strings{"1"});
  CHECK(matches("\\u00e9", "e\u00E9") == Strings{"\u00E9"});
  CHECK(matches("(?i:k|s)", "kK\u212As\u017F") == Strings{"k", "K", "\u212A", "s", "\u017F"});
  CHECK(matches("^a$", "a\nb\na") == Strings{"a", "a"});
  CHECK(matches("x*", "axb") == Strings{"", "x", ""});
}

TEST_CASE("characters newer than the library are classified", "[data][regex]") {
  CHECK(matches("\\p{L}+", "a\U00031350b") == Strings{"a\U00031350b"});  // Unicode 15
  CHECK(matches("\\p{Nd}", "\U00010D40") == Strings{"\U00010D40"});      // Unicode 16
  CHECK(matches("\\p{Lu}", "\uA7CB\uA7CD") == Strings{"\uA7CB"});        // Unicode 16
  CHECK(matches("\\p{L}", "\U000323B0").empty());                        // not assigned
}

TEST_CASE("what has no equal is refused by name", "[data][regex][bad_input]") {
  for (const char* pattern :
       {"\\h", "\\b", "\\K", "\\R", "\\X", "\\Q", "[[:alpha:]]", "[a[b]]", "[a&&b]", "a{1,3}+",
        "(*UTF)", "(?P<n>a)", "(?m:a)", "[\\W]", "\\pL", "[]a]", "[a", "a\\"}) {
    INFO(pattern);
    CHECK_THROWS_WITH(Regex(pattern), Contains("not supported") && Contains(pattern));
  }
  CHECK_THROWS_WITH(Regex("(a"), Contains("cannot compile"));
  CHECK_THROWS_WITH(Regex("\\p{Klingon}"), Contains("cannot compile"));
  CHECK_THROWS_WITH(Regex("a\xFF"), Contains("not valid UTF-8"));
  CHECK_THROWS_WITH(Regex(std::string(100000, 'a')), Contains("longer than"));
}

TEST_CASE("a pattern that explodes ends with an error", "[data][regex][bad_input]") {
  CHECK_THROWS_WITH(matches("(a+)+$", std::string(60, 'a') + "b"), Contains("failed"));
}
