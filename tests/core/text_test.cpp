#include <binade/core/text.h>

#include <cmath>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include <binade/core/json_view.h>
#include <binade/core/log.h>
#include <binade/core/utf8.h>

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
  CHECK_NOTHROW(check_json_text(nested(64), "x"));
  CHECK_THROWS_WITH(check_json_text(nested(65), "config.json"),
                    Contains("config.json") && Contains("byte 64"));
  CHECK_THROWS_AS(check_json_text(std::string(1000, '{'), "x"), Error);
  // Brackets in strings do not count, whatever is escaped there.
  CHECK_NOTHROW(check_json_text(
      "[\"" + std::string(100, '[') + "\\\"" + std::string(100, '{') + "\\\\\", 1]", "x"));
  std::string many = "[";
  for (int i = 0; i < 1000; ++i) many += "{\"a\": []},";
  CHECK_NOTHROW(check_json_text(many, "x"));
  CHECK_THROWS_AS(check_json_text("[\"\\\\\"" + nested(64), "x"), Error);
}

TEST_CASE("JSON with a NUL is refused, whatever follows it", "[text][bad-input]") {
  using namespace std::string_view_literals;
  for (const std::string_view text :
       {"{}\0"sv, "{}\0junk"sv, "\0{}"sv, "{\"a\0\": 1}"sv, "{\0}"sv}) {
    CHECK_THROWS_WITH(check_json_text(text, "x.json"), Contains("x.json") && Contains("NUL"));
    CHECK_THROWS_WITH(parse_json(text, "x.json"), Contains("NUL"));
  }
  CHECK_NOTHROW(parse_json("{\"a\": \"\\u0000\"}", "x.json"));
  for (const char* text : {"{} x", "{}{}", "[1] ]", "", "  ", "{\"a\": \"\xE9\"}", "1e999"})
    CHECK_THROWS_WITH(parse_json(text, "x.json"), Contains("x.json"));
}

TEST_CASE("bytes that are not UTF-8 are shown, the rest is unchanged", "[core][text]") {
  CHECK(valid_utf8("").empty());
  CHECK(valid_utf8("caf\xC3\xA9 \xF0\x9F\x98\x80\n") == "caf\xC3\xA9 \xF0\x9F\x98\x80\n");
  CHECK(valid_utf8("caf\xE9.txt") == "caf\\xE9.txt");
  CHECK(valid_utf8("\xE2\x82") == "\\xE2\\x82");               // cut off
  CHECK(valid_utf8("\xED\xA0\x80") == "\\xED\\xA0\\x80");      // a surrogate
  CHECK(valid_utf8(std::string_view("a\0b", 3)).size() == 3);  // a NUL is UTF-8
  for (int byte = 0; byte < 256; ++byte) {
    const std::string text = valid_utf8("x" + std::string(1, static_cast<char>(byte)));
    CHECK(text.size() == (byte < 128 ? 2 : 5));
    CHECK_NOTHROW(nlohmann::json(text).dump());
  }
}

TEST_CASE("errors and log lines are valid UTF-8 whatever they quote", "[core][text]") {
  CHECK_THROWS_WITH(fail("cannot open caf\xE9"), "cannot open caf\\xE9");
  CHECK_THROWS_WITH(throw OutOfMemory("\xFF"), "\\xFF");
  std::string logged;
  const LogSink before =
      set_log_sink([&](LogLevel, std::string_view line) { logged = std::string(line); });
  log_info("reading caf\xE9");
  set_log_sink(before);
  CHECK(logged == "reading caf\\xE9");
}

TEST_CASE("text for XML has no markup and no forbidden character", "[core][text]") {
  const std::string r(kReplacementCharacter);
  CHECK(xml_text("a<b>&\"c'") == "a&lt;b&gt;&amp;&quot;c&#39;");
  CHECK(xml_text("tab\tline\n") == "tab\tline\n");
  CHECK(xml_text(std::string_view("\0\x01\x1B", 3)) == r + r + r);
  CHECK(xml_text("\xEF\xBF\xBE\xEF\xBF\xBF") == r + r);  // U+FFFE, U+FFFF
  CHECK(xml_text("caf\xE9 \xC3\xA9") == "caf\\xE9 \xC3\xA9");
}

TEST_CASE("numbers become text and numbers again", "[core][text]") {
  for (const double value : {0.0, 0.1, -1.5, 1e300, 5e-324, 123456789.0, 1.0 / 3})
    CHECK(parse_number(exact_number(value)) == value);
  CHECK(exact_number(0.1) == "0.1");
  CHECK(std::signbit(*parse_number(exact_number(-0.0))));
  CHECK(parse_number(exact_number(INFINITY)) == INFINITY);
  CHECK(std::isnan(*parse_number(exact_number(NAN))));
  CHECK(parse_number("1e3") == 1000);
  for (const char* wrong : {"", " 1", "1 ", "+1", "1,5", "0x10", "1.5x", "one", "1e999"})
    CHECK(parse_number(wrong) == std::nullopt);
  CHECK(parse_number(std::string_view("1\0", 2)) == std::nullopt);
}
