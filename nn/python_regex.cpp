#define PCRE2_CODE_UNIT_WIDTH 8
#include <binade/nn/python_regex.h>

#include <cstring>

#include <binade/core/error.h>
#include <binade/core/text.h>
#include <binade/data/pcre2_pattern.h>

namespace binade::nn {
namespace {

constexpr uint32_t kMostSteps = 10'000'000;  // of a match; then the pattern is given up

// Rewrites a pattern of Python 3.11's `re` for PCRE2 with UTF and UCP.
class Translator : data::PatternRewriter {
 public:
  explicit Translator(std::string_view pattern) : PatternRewriter(pattern) {}

  std::string run() {
    while (!at_end()) {
      const char c = pattern_[pos_];
      if (c == '\\')
        escape(false);
      else if (c == '[')
        character_class();
      else if (c == '(')
        group();
      else if (looking_at("{,"))
        replace(2, digits_and_brace(pos_ + 2) ? "{0," : "{,");
      else
        copy(1);
    }
    return std::move(out_);
  }

 private:
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
    while (!at_end() && peek(0) != ']') {
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
      if (looking_at(known)) return copy(known.size());
    refuse(3);
  }
};

using MatchData = std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)>;

MatchData match_data_of(const void* code) {
  return {pcre2_match_data_create_from_pattern(static_cast<const pcre2_code*>(code), nullptr),
          pcre2_match_data_free};
}

}  // namespace

PythonRegex::PythonRegex(const std::string& pattern) : pattern_(pattern) {
  data::check_pattern(pattern);
  const std::string translated = Translator(pattern).run();
  pcre2_code* code = data::compile_pattern(pattern, translated, 0, nullptr);
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
        "` failed on ", text, ": ", data::pcre2_message(result));
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
