#include <binade/core/utf8.h>
#include <binade/data/unicode.h>
#include <utf8proc.h>

#include <algorithm>
#include <cstdint>
#include <iterator>

namespace binade::data {
namespace {

struct CodePointRange {
  uint32_t first, last;
  uint32_t value = 0;
};
#include <binade/data/unicode_tables.inc>

// The range that holds the code point, or nullptr. Tables are sorted.
template <size_t N>
const CodePointRange* find(const CodePointRange (&table)[N], char32_t code_point) {
  const auto* range = std::lower_bound(
      table, table + N, code_point,
      [](const CodePointRange& entry, char32_t value) { return entry.last < value; });
  return range != table + N && code_point >= range->first ? range : nullptr;
}

utf8proc_category_t category(char32_t code_point) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(stand_in(code_point)));
}

}  // namespace

char32_t stand_in(char32_t code_point) {
  if (code_point < kNewer[0].first) return code_point;
  const CodePointRange* range = find(kNewer, code_point);
  return range ? range->value : code_point;
}

bool is_letter(char32_t code_point) {
  const auto kind = category(code_point);
  return kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO;
}

bool is_mark(char32_t code_point) {
  const auto kind = category(code_point);
  return kind >= UTF8PROC_CATEGORY_MN && kind <= UTF8PROC_CATEGORY_ME;
}

bool is_numeric(char32_t code_point) {
  const auto kind = category(code_point);
  const bool of_unicode_17 = (code_point >= 0x11DE0 && code_point <= 0x11DE9) ||
                             (code_point >= 0x16FF4 && code_point <= 0x16FF6);
  return (kind >= UTF8PROC_CATEGORY_ND && kind <= UTF8PROC_CATEGORY_NO) || of_unicode_17;
}

bool is_white_space(char32_t code_point) {
  const auto kind = category(code_point);
  return (code_point >= 9 && code_point <= 13) || code_point == 0x85 ||
         (kind >= UTF8PROC_CATEGORY_ZS && kind <= UTF8PROC_CATEGORY_ZP);
}

bool is_word(char32_t code_point) {
  const auto kind = category(code_point);
  const auto within = [&](char32_t first, char32_t last) {
    return code_point >= first && code_point <= last;
  };
  const bool circled_letter = within(0x24B6, 0x24E9) || within(0x1F130, 0x1F149) ||
                              within(0x1F150, 0x1F169) || within(0x1F170, 0x1F189);
  return is_letter(code_point) || is_mark(code_point) || kind == UTF8PROC_CATEGORY_ND ||
         kind == UTF8PROC_CATEGORY_NL || kind == UTF8PROC_CATEGORY_PC || circled_letter ||
         within(0x200C, 0x200D);
}

bool is_normalizable(char32_t code_point) {
  return !find(kNotNormalized, code_point);
}

bool is_mark_to_normalizer(char32_t code_point) {
  // U+1CF2 and U+1CF3 were marks before Unicode 12 made them letters.
  return (is_mark(code_point) && is_normalizable(code_point)) ||
         (code_point >= 0x1CF2 && code_point <= 0x1CF3);
}

void append_lower_case(std::string& out, char32_t code_point) {
  if (code_point == 0x130) {  // the one unconditional mapping to more than one code point
    out += "i\u0307";
    return;
  }
  const CodePointRange* range = find(kLowerCase, code_point);
  utf8_append(out, range ? code_point + range->value
                         : static_cast<char32_t>(
                               utf8proc_tolower(static_cast<utf8proc_int32_t>(code_point))));
}

}  // namespace binade::data
