#include <binade/core/error.h>
#include <binade/core/utf8.h>
#include <binade/data/jinja/text.h>
#include <binade/data/jinja/value.h>
#include <binade/data/unicode.h>
#include <utf8proc.h>

#include <algorithm>

namespace binade::data::jinja {
namespace {

utf8proc_int32_t code(char32_t c) {
  return static_cast<utf8proc_int32_t>(c);
}

bool is_cased(char32_t c) {
  return utf8proc_toupper(code(c)) != code(c) || utf8proc_tolower(code(c)) != code(c) ||
         utf8proc_category(code(c)) == UTF8PROC_CATEGORY_LL ||
         utf8proc_category(code(c)) == UTF8PROC_CATEGORY_LU;
}

// Characters that SpecialCasing.txt (Unicode 15) maps to several, but for U+00DF.
bool has_long_upper_case(char32_t c) {
  constexpr char32_t kRanges[][2] = {
      {0x149, 0x149},   {0x1F0, 0x1F0},   {0x390, 0x390},   {0x3B0, 0x3B0},   {0x587, 0x587},
      {0x1E96, 0x1E9A}, {0x1F50, 0x1F50}, {0x1F52, 0x1F52}, {0x1F54, 0x1F54}, {0x1F56, 0x1F56},
      {0x1F80, 0x1FAF}, {0x1FB2, 0x1FB4}, {0x1FB6, 0x1FB7}, {0x1FBC, 0x1FBC}, {0x1FC2, 0x1FC4},
      {0x1FC6, 0x1FC7}, {0x1FCC, 0x1FCC}, {0x1FD2, 0x1FD3}, {0x1FD6, 0x1FD7}, {0x1FE2, 0x1FE4},
      {0x1FE6, 0x1FE7}, {0x1FF2, 0x1FF4}, {0x1FF6, 0x1FF7}, {0x1FFC, 0x1FFC}, {0xFB00, 0xFB06},
      {0xFB13, 0xFB17}};
  return std::any_of(std::begin(kRanges), std::end(kRanges),
                     [c](const auto& range) { return c >= range[0] && c <= range[1]; });
}

void append_upper(std::string& out, char32_t c, bool as_title) {
  check(!has_long_upper_case(c), "the upper case of U+", std::hex, static_cast<uint32_t>(c),
        " is not supported");
  if (c == 0xDF) {
    out += as_title ? "Ss" : "SS";
  } else {
    utf8_append(out, static_cast<char32_t>(as_title ? utf8proc_totitle(code(c))
                                                    : utf8proc_toupper(code(c))));
  }
}

// Whether the capital sigma in [begin, end) ends a word, which gives it another small letter.
bool is_final_sigma(std::string_view text, size_t begin, size_t end) {
  const auto ignorable = [](char32_t c) {
    return is_mark(c) || c == '\'' || c == '.' || c == ':' || c == '^' || c == '`' || c == 0xAD ||
           c == 0xB7 || c == 0x2019;
  };
  bool before = false;
  for (size_t pos = 0; pos < begin;) {
    const char32_t c = utf8_next(text, pos);
    if (!ignorable(c)) before = is_cased(c);
  }
  while (end < text.size()) {
    const char32_t c = utf8_next(text, end);
    if (!ignorable(c)) return before && !is_cased(c);
  }
  return before;
}

void append_lower(std::string& out, std::string_view text, size_t begin, size_t end, char32_t c) {
  if (c == 0x3A3 && is_final_sigma(text, begin, end)) {
    utf8_append(out, 0x3C2);
  } else {
    append_lower_case(out, c);
  }
}

}  // namespace

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> out;
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    utf8_next(text, pos);
    out.push_back(text.substr(begin, pos - begin));
  }
  return out;
}

size_t count_characters(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

bool is_space(char32_t c) {
  return is_white_space(c) || (c >= 0x1C && c <= 0x1F);
}

bool is_printable(char32_t c) {
  const auto kind = utf8proc_category(code(c));
  return c == ' ' || !(kind == UTF8PROC_CATEGORY_CN || kind >= UTF8PROC_CATEGORY_ZS);
}

std::string_view strip(std::string_view text, bool left, bool right, const std::string* set) {
  const auto stripped = [&](std::string_view character) {
    size_t pos = 0;
    return set ? set->find(character) != std::string::npos : is_space(utf8_next(character, pos));
  };
  while (left && !text.empty()) {
    size_t pos = 0;
    utf8_next(text, pos);
    if (!stripped(text.substr(0, pos))) break;
    text.remove_prefix(pos);
  }
  while (right && !text.empty()) {
    size_t begin = text.size() - 1;
    while (begin > 0 && (text[begin] & 0xC0) == 0x80) --begin;
    if (!stripped(text.substr(begin))) break;
    text = text.substr(0, begin);
  }
  return text;
}

std::string upper(std::string_view text) {
  std::string out;
  for (size_t pos = 0; pos < text.size();) append_upper(out, utf8_next(text, pos), false);
  return out;
}

std::string lower(std::string_view text) {
  std::string out;
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    const char32_t c = utf8_next(text, pos);
    append_lower(out, text, begin, pos, c);
  }
  return out;
}

std::string capitalize(std::string_view text) {
  std::string out;
  size_t pos = 0;
  if (!text.empty()) append_upper(out, utf8_next(text, pos), true);
  while (pos < text.size()) {
    const size_t begin = pos;
    const char32_t c = utf8_next(text, pos);
    append_lower(out, text, begin, pos, c);
  }
  return out;
}

std::string title(std::string_view text) {
  std::string out;
  bool inside = false;
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    const char32_t c = utf8_next(text, pos);
    if (inside) {
      append_lower(out, text, begin, pos, c);
    } else {
      append_upper(out, c, true);
    }
    inside = is_cased(c);
  }
  return out;
}

std::vector<std::string> split(std::string_view text, int64_t limit, bool from_right) {
  std::vector<std::string> out;
  const auto parts = characters(text);
  const auto space = [&](size_t i) {
    size_t pos = 0;
    return is_space(utf8_next(parts[i], pos));
  };
  // Words as ranges of characters, from the side where counting begins.
  size_t left = 0, right = parts.size();
  while (true) {
    while (left < right && space(left)) ++left;
    while (left < right && space(right - 1)) --right;
    if (left == right) break;
    size_t begin = left, end = right;
    if (limit < 0 || static_cast<int64_t>(out.size()) < limit) {
      if (from_right) {
        for (begin = right; begin > left && !space(begin - 1);) --begin;
      } else {
        for (end = left; end < right && !space(end);) ++end;
      }
    }
    // What is left over keeps its white space at the far side.
    const char* last = parts[end - 1].data() + parts[end - 1].size();
    if (begin == left && end == right) {
      const bool over = limit >= 0 && static_cast<int64_t>(out.size()) >= limit;
      const char* from = over && from_right ? text.data() : parts[begin].data();
      const char* to = over && !from_right ? text.data() + text.size() : last;
      out.emplace_back(from, to);
      break;
    }
    out.emplace_back(parts[begin].data(), last);
    (from_right ? right : left) = from_right ? begin : end;
  }
  if (from_right) std::reverse(out.begin(), out.end());
  return out;
}

std::vector<std::string> split(std::string_view text, std::string_view separator, int64_t limit,
                               bool from_right) {
  check(!separator.empty(), "split: the separator is empty");
  std::vector<std::string> out;
  while (limit < 0 || static_cast<int64_t>(out.size()) < limit) {
    const size_t at = from_right ? text.rfind(separator) : text.find(separator);
    if (at == std::string_view::npos) break;
    if (from_right) {
      out.emplace_back(text.substr(at + separator.size()));
      text = text.substr(0, at);
    } else {
      out.emplace_back(text.substr(0, at));
      text.remove_prefix(at + separator.size());
    }
  }
  out.emplace_back(text);
  if (from_right) std::reverse(out.begin(), out.end());
  return out;
}

std::vector<std::string> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string> out;
  size_t line = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    const char32_t c = utf8_next(text, pos);
    const bool end =
        (c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
    if (!end) continue;
    if (c == '\r' && pos < text.size() && text[pos] == '\n') ++pos;
    out.emplace_back(text.substr(line, (keep_ends ? pos : begin) - line));
    line = pos;
  }
  if (line < text.size()) out.emplace_back(text.substr(line));
  return out;
}

std::string replace(std::string_view text, std::string_view old, std::string_view with,
                    int64_t limit) {
  std::string out;
  const auto grow = [&](std::string_view part) {
    out += part;
    check(out.size() <= kMaxText, "a text is longer than ", kMaxText, " bytes");
  };
  int64_t done = 0;
  if (old.empty()) {  // before every character and at the end
    for (const std::string_view character : characters(text)) {
      if (limit < 0 || done++ < limit) grow(with);
      grow(character);
    }
    if (limit < 0 || done < limit) grow(with);
    return out;
  }
  for (; limit < 0 || done < limit; ++done) {
    const size_t at = text.find(old);
    if (at == std::string_view::npos) break;
    grow(text.substr(0, at));
    grow(with);
    text.remove_prefix(at + old.size());
  }
  grow(text);
  return out;
}

}  // namespace binade::data::jinja
