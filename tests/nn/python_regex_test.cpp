#include <binade/nn/python_regex.h>

#include <catch2/catch.hpp>

#include <binade/core/error.h>

using namespace binade;
using binade::nn::PythonRegex;

// Expected values by Python 3.11.
TEST_CASE("patterns match what Python's re matches", "[python_regex]") {
  struct Row {
    const char *pattern, *text;
    bool full, start;  // re.fullmatch, re.match
  };
  const Row rows[] = {
      {"q_proj", "q_proj", true, true},
      {"q_proj", "q_proj.x", false, true},
      {"q_proj", "model.q_proj", false, false},
      {"a|ab", "ab", true, true},
      {"a$", "a\n", false, true},
      {"a\\Z", "a\n", false, false},
      {"\\v", "\n", false, false},
      {"\\v", "\x0b", true, true},
      {"a{,2}", "aa", true, true},
      {"a{,2}", "aaa", false, true},
      {"a{,x}", "a{,x}", true, true},
      {"[[:alpha:]]", "a", false, false},
      {"[[:alpha:]]", "a]", true, true},
      {"[]a]+", "]a", true, true},
      {"[^]a]+", "bc", true, true},
      {"(?P<n>a)(?P=n)", "aa", true, true},
      {"(a)\\1", "aa", true, true},
      {"(?<!x)a", "a", true, true},
      {".", "\n", false, false},
      {"\\w+", "caf\xC3\xA9", true, true},
      {"a++b", "aab", true, true},
      {"\\.", ".", true, true},
      {"\\x41", "A", true, true},
      {"", "", true, true},
  };
  for (const Row& row : rows) {
    INFO(row.pattern << " on " << row.text);
    CHECK(PythonRegex(row.pattern).full_match(row.text) == row.full);
    CHECK(PythonRegex(row.pattern).match(row.text) == row.start);
  }
  CHECK(PythonRegex("(?P<n>a)b").match_group("abc", "n") == "a");
  CHECK(PythonRegex("(?P<n>a)b").match_group("b", "n") == std::nullopt);
}

TEST_CASE("patterns that Python refuses or PCRE2 reads otherwise are refused",
          "[python_regex][bad-input]") {
  for (const char* pattern :
       {"(",      "a)",   "[a",        "*",       "\\",    "\\K",   "\\Qa\\E", "\\h",
        "\\p{L}", "\\R",  "(*ACCEPT)", "(?R)",    "(?1)",  "(?|a)", "(?i)a",   "(?<n>a)",
        "(?&n)",  "\\g1", "\\0",       "\\u0041", "(?Cx)", "\\xZ"}) {
    INFO(pattern);
    CHECK_THROWS_AS(PythonRegex(pattern), Error);
  }
  CHECK_THROWS_AS(PythonRegex("a\xE9"), Error);
  CHECK_THROWS_WITH(PythonRegex("(?i)a"), Catch::Contains("(?i"));
  // A pattern that would run for years is given up.
  CHECK_THROWS_AS(PythonRegex("(a|aa)+").full_match(std::string(60, 'a') + "d"), Error);
}
