#include <binade/core/utf8.h>

#include <catch2/catch.hpp>

using namespace binade;

TEST_CASE("every code point is encoded and decoded", "[core][utf8]") {
  size_t bytes = 0;
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    std::string text;
    utf8_append(text, c);
    const Utf8Step step = utf8_step(text);
    const bool surrogate = c >= 0xD800 && c <= 0xDFFF;
    if (surrogate == step.valid) FAIL("code point " << static_cast<uint32_t>(c));
    if (surrogate) continue;
    size_t pos = 0;
    if (step.code_point != c || utf8_next(text, pos) != c || pos != text.size()) {
      FAIL("code point " << static_cast<uint32_t>(c));
    }
    bytes += text.size();
  }
  // 128 of one byte, 1920 of two, 63488 - 2048 of three, 1048576 of four.
  REQUIRE(bytes == 128 + 2 * 1920 + 3 * (63488 - 2048) + 4 * 1048576);
}

TEST_CASE("malformed UTF-8 is found and replaced by maximal subparts", "[core][utf8]") {
  const std::string r(kReplacementCharacter);
  const std::pair<std::string, std::string> cases[] = {
      {"abc", "abc"},
      {"a\x80z", "a" + r + "z"},
      {"\xC0\xAF", r + r},                  // overlong: neither byte can stand there
      {"\xE0\x80\xAF", r + r + r},          // overlong
      {"\xED\xA0\x80", r + r + r},          // surrogate
      {"\xF4\x90\x80\x80", r + r + r + r},  // above U+10FFFF
      {"\xF5", r},
      {"\xE2\x82", r},         // truncated at the end
      {"\xE2\x82z", r + "z"},  // truncated by another character
      {"\xF0\x9F\x98\xF0\x9F\x98\x80", r + "\xF0\x9F\x98\x80"},
  };
  for (const auto& [text, expected] : cases) {
    CHECK(utf8_replace_invalid(text) == expected);
    CHECK(utf8_valid_prefix(utf8_replace_invalid(text)) == expected.size());
  }
  REQUIRE(utf8_valid_prefix("0123456789\xFF") == 10);
  REQUIRE(utf8_step("\xE2\x82").truncated);
  REQUIRE_FALSE(utf8_step("\xE2z").truncated);
}
