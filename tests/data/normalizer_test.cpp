#include <binade/data/normalizer.h>
#include <binade/data/unicode.h>

#include <catch2/catch.hpp>

using namespace binade::data;
using Kind = NormalizerStep::Kind;

namespace {

std::string apply(NormalizerStep step, std::string_view text) {
  return Normalizer({std::move(step)})(text);
}

}  // namespace

TEST_CASE("Unicode normal forms", "[data][normalizer]") {
  // From the Unicode Standard Annex #15, figures 3 to 6, and its Hangul example.
  CHECK(apply({.kind = Kind::kNfc}, "A\u030A \u212B \uFB01") == "\u00C5 \u00C5 \uFB01");
  CHECK(apply({.kind = Kind::kNfd}, "\u1E9B\u0323 \uFB01") == "\u017F\u0323\u0307 \uFB01");
  CHECK(apply({.kind = Kind::kNfkc}, "\u1E9B\u0323 \uFB01") == "\u1E69 fi");
  CHECK(apply({.kind = Kind::kNfkd}, "2\u2075 \uFB01") == "25 fi");
  CHECK(apply({.kind = Kind::kNfd}, "\uAC01") == "\u1100\u1161\u11A8");
  CHECK(apply({.kind = Kind::kNfc}, "\u1100\u1161\u11A8") == "\uAC01");
  CHECK(apply({.kind = Kind::kNfc}, "\uAC00\u11A7") == "\uAC00\u11A7");  // not a consonant
  CHECK(apply({.kind = Kind::kNfc}, "\u0344a") == "\u0308\u0301a");  // excluded from composition
  CHECK(apply({.kind = Kind::kNfc}, "") == "");
  // Younger than the normaliser of `tokenizers`: does not compose there.
  CHECK(apply({.kind = Kind::kNfc}, "\U00011935\U00011930") == "\U00011935\U00011930");
}

TEST_CASE("other normalizers", "[data][normalizer]") {
  CHECK(apply({.kind = Kind::kLowercase}, "\u0130ΑΣ\uA7CB\U00010400") ==
        "i\u0307ασ\u0264\U00010428");
  CHECK(apply({.kind = Kind::kStripAccents}, "e\u0301\u0903a") == "ea");
  CHECK(apply({.kind = Kind::kStripAccents}, "\u1CF2\u1CEC\u0897") == "\u1CEC\u0897");
  CHECK(apply({.kind = Kind::kStrip}, " \u3000a b\n") == "a b");
  CHECK(apply({.kind = Kind::kStrip, .strip_left = false}, " a ") == " a");
  CHECK(apply({.kind = Kind::kStrip, .strip_right = false}, " a ") == "a ");
  CHECK(apply({.kind = Kind::kStrip}, " \t") == "");
  CHECK(apply({.kind = Kind::kPrepend, .content = "▁"}, "a") == "▁a");
  CHECK(apply({.kind = Kind::kPrepend, .content = "▁"}, "") == "");
  CHECK(apply({.kind = Kind::kReplace, .content = "xx", .pattern = {"aa", false}}, "aaab") ==
        "xxab");
  CHECK(apply({.kind = Kind::kReplace, .content = " ", .pattern = {"\\s+", true}}, "a \n b") ==
        "a b");
  CHECK(Normalizer({{.kind = Kind::kNfkc}, {.kind = Kind::kLowercase}})("\uFF21") == "a");
}

TEST_CASE("character properties", "[data][normalizer]") {
  CHECK(is_white_space(0x85));
  CHECK_FALSE(is_white_space(0x180E));
  CHECK_FALSE(is_white_space(0x200B));
  CHECK(is_numeric(0xBD));
  CHECK(is_numeric(0x11F50));  // Unicode 15
  CHECK(is_numeric(0x11DE9));  // Unicode 17
  CHECK_FALSE(is_numeric(0x11DEA));
  CHECK(is_word(0x200D));
  CHECK(is_word(0x24B6));
  CHECK_FALSE(is_word('-'));
  CHECK(stand_in('a') == 'a');
  CHECK(stand_in(0x323AF) == 0x20000);
  CHECK(stand_in(0x323B0) == 0x323B0);
}
