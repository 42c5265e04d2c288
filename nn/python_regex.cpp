#define PCRE2_CODE_UNIT_WIDTH 8
#include <binade/nn/python_regex.h>

#include <cstring>

#include <binade/core/error.h>
#include <binade/core/text.h>
#include <binade/core/utf8.h>
#include <pcre2.h>

namespace binade::nn {
namespace {

constexpr size_t kMaxPatternBytes = 1 << 16;
constexpr uint32_t kMostSteps = 10'000'000;  // of a match; then the pattern is given up

// Rewrites a pattern of Python 3.11's `re` for PCRE2 with UTF and UCP.
class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  std::string run() {
    while (pos_ < pattern_.size()) {
      const char c = pattern_[pos_];
      if (c == '\\')
        escape(false);
      else if (c == '[')
        character_class();
      else if (c == '(')
        group();
      else if (pattern_.substr(pos_).starts_with("{,"))
        replace(2, digits_and_brace(pos_ + 2) ? "{0," : "{,");
      else
        copy(1);
    }
    return std::move(out_);
  }

 private:
  char peek(size_t ahead) const {
    return pos_ + ahead < pattern_.size() ? pattern_[pos_ + ahead] : '\0';
  }
  void copy(size_t count) {
    out_.append(pattern_.substr(pos_, count));
    pos_ += count;
  }
  void replace(size_t count, std::string_view with) {
    out_.append(with);
    pos_ += count;
  }
  [[noreturn]] void refuse(size_t count) const {
    fail("the regular expression `", pattern_, "` has `", pattern_.substr(pos_, count),
         "` at byte ", pos_, ", which is not supported");
  }
  bool digits_and_brace(size_t at) const {
    const size_t end = pattern_.find_first_not_of("0123456789", at);
    return end != std::string_view::npos && pattern_[end] == '}';
  }

  void escape(bool in_class) {
    const char c = peek(1);
    if (!is_letter(c) && !is_digit(c)) return copy(c == '\0' ? 1 : 2);
    switch (c) {
      case 'v':  // a vertical tab there, any vertical space in PCRE2
        return replace(2, "\\x0b");
      case 'Z':  // the very end there, or before a last newline in PCRE2
        if (in_class) refuse(2);
        return replace(2, "\\z");
      case 'A':
      case 'B':
        if (in_class) refuse(2);
        return copy(2);
      case 'b':
      case 'd':
      case 'D':
      case 'w':
      case 'W':
      case 's':
      case 'S':
      case 'n':
      case 'r':
      case 't':
      case 'f':
      case 'a':
        return copy(2);
      case 'x':
        if (!is_hex_digit(peek(2)) || !is_hex_digit(peek(3))) refuse(2);
        return copy(4);
      default:
        // A reference to a group; octal numbers are read by other rules.
        if (!is_digit(c) || c == '0' || in_class || is_digit(peek(2))) refuse(2);
        return copy(2);
    }
  }

  void character_class() {
    copy(1);
    if (peek(0) == '^') copy(1);
    if (peek(0) == ']') replace(1, "\\]");
    while (pos_ < pattern_.size() && peek(0) != ']') {
      if (peek(0) == '\\')
        escape(true);
      else if (peek(0) == '[')  // [:alpha:] means nothing special there
        replace(1, "\\[");
      else
        copy(1);
    }
    copy(1);
  }

  void group() {
    if (peek(1) == '*') refuse(2);  // a verb of PCRE2
    if (peek(1) != '?') return copy(1);
    for (const std::string_view known :
         {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?P<", "(?P="})
      if (pattern_.substr(pos_).starts_with(known)) return copy(known.size());
    refuse(3);
  }

  std::string_view pattern_;
  size_t pos_ = 0;
  std::string out_;
};

std::string message_of(int code) {
  PCRE2_UCHAR text[256] = {};
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

using MatchData = std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)>;

MatchData match_data_of(const void* code) {
  return {pcre2_match_data_create_from_pattern(static_cast<const pcre2_code*>(code), nullptr),
          pcre2_match_data_free};
}

}  // namespace

PythonRegex::PythonRegex(const std::string& pattern) : pattern_(pattern) {
  check(pattern.size() <= kMaxPatternBytes, "a regular expression of ", pattern.size(),
        " bytes is longer than the ", kMaxPatternBytes, " accepted");
  check(utf8_valid_prefix(pattern) == pattern.size(), "the regular expression `", pattern,
        "` is not valid UTF-8");
  const std::string translated = Translator(pattern).run();
  int error = 0;
  size_t offset = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  check(code != nullptr, "cannot compile the regular expression `", pattern,
        "`: ", message_of(error), " (at position ", offset, " of `", translated, "`)");
  code_ = std::shared_ptr<void>(
      code, [](void* owned) { pcre2_code_free(static_cast<pcre2_code*>(owned)); });
}

bool PythonRegex::run(std::string_view text, unsigned options, void* match_data) const {
  const std::unique_ptr<pcre2_match_context, void (*)(pcre2_match_context*)> context(
      pcre2_match_context_create(nullptr), pcre2_match_context_free);
  pcre2_set_match_limit(context.get(), kMostSteps);
  const int result = pcre2_match(static_cast<const pcre2_code*>(code_.get()),
                                 reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0,
                                 PCRE2_ANCHORED | options,
                                 static_cast<pcre2_match_data*>(match_data), context.get());
  check(result >= 0 || result == PCRE2_ERROR_NOMATCH, "the regular expression `", pattern_,
        "` failed on ", text, ": ", message_of(result));
  return result >= 0;
}

bool PythonRegex::full_match(std::string_view text) const {
  return run(text, PCRE2_ENDANCHORED, match_data_of(code_.get()).get());
}

bool PythonRegex::match(std::string_view text) const {
  return run(text, 0, match_data_of(code_.get()).get());
}

std::optional<std::string> PythonRegex::match_group(std::string_view text,
                                                    const std::string& group) const {
  const MatchData data = match_data_of(code_.get());
  if (!run(text, 0, data.get())) return std::nullopt;
  PCRE2_UCHAR* value = nullptr;
  size_t length = 0;
  if (pcre2_substring_get_byname(data.get(), reinterpret_cast<PCRE2_SPTR>(group.c_str()), &value,
                                 &length) != 0)
    return std::nullopt;
  std::string found(reinterpret_cast<const char*>(value), length);
  pcre2_substring_free(value);
  return found;
}

}  // namespace binade::nn
