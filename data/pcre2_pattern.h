// INTERNAL. What the translators of other dialects' regular expressions to PCRE2 share. For .cpp
// files that define PCRE2_CODE_UNIT_WIDTH as 8 first.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <binade/core/error.h>
#include <binade/core/utf8.h>
#include <pcre2.h>

namespace binade::data {

// Walks through a pattern and writes another one. A translator derives from it.
class PatternRewriter {
 protected:
  explicit PatternRewriter(std::string_view pattern) : pattern_(pattern) {}

  bool at_end() const { return pos_ >= pattern_.size(); }
  // NUL behind the end.
  char peek(size_t ahead) const {
    return pos_ + ahead < pattern_.size() ? pattern_[pos_ + ahead] : '\0';
  }
  bool looking_at(std::string_view text) const { return pattern_.substr(pos_).starts_with(text); }
  // Writes the next `count` bytes as they are.
  void copy(size_t count) {
    out_.append(pattern_.substr(pos_, count));
    skip(count);
  }
  // Writes `with` in place of the next `count` bytes.
  void replace(size_t count, std::string_view with) {
    out_.append(with);
    skip(count);
  }

  std::string_view pattern_;
  size_t pos_ = 0;  // never behind the end
  std::string out_;

 private:
  void skip(size_t count) { pos_ = std::min(pos_ + count, pattern_.size()); }
};

inline std::string pcre2_message(int code) {
  PCRE2_UCHAR text[256] = {};
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

// Throws Error for a pattern that is too long or no UTF-8, before it is translated.
inline void check_pattern(std::string_view pattern) {
  constexpr size_t kMaxBytes = 1 << 16;
  check(pattern.size() <= kMaxBytes, "a regular expression of ", pattern.size(),
        " bytes is longer than the ", kMaxBytes, " accepted");
  check(utf8_valid_prefix(pattern) == pattern.size(), "the regular expression `", pattern,
        "` is not valid UTF-8");
}

// Compiles what `pattern` was translated to, as UTF-8 with Unicode's character classes and the
// given options besides. The caller owns the code. Throws Error with the place.
inline pcre2_code* compile_pattern(std::string_view pattern, const std::string& translated,
                                   uint32_t options, pcre2_compile_context* context) {
  int error = 0;
  size_t offset = 0;
  pcre2_code* code = pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | options, &error, &offset, context);
  check(code != nullptr, "cannot compile the regular expression `", pattern,
        "`: ", pcre2_message(error), " (at position ", offset, " of `", translated, "`)");
  return code;
}

}  // namespace binade::data
