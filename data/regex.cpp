#define PCRE2_CODE_UNIT_WIDTH 8
#include <binade/core/error.h>
#include <binade/core/text.h>
#include <binade/core/utf8.h>
#include <binade/data/pcre2_pattern.h>
#include <binade/data/regex.h>
#include <binade/data/unicode.h>
#include <pcre2.h>

namespace binade::data {
namespace {

// Rewrites an Oniguruma pattern for PCRE2 with UTF, UCP and multi-line anchors.
class Translator : PatternRewriter {
 public:
  explicit Translator(std::string_view pattern) : PatternRewriter(pattern) {}

  std::string run() {
    while (!at_end()) {
      const char c = pattern_[pos_];
      if (c == '\\') {
        escape(false);
      } else if (c == '[') {
        character_class();
      } else if (c == '(') {
        group();
      } else if (c == '}' && peek(1) == '+') {
        refuse("`{n,m}+`");
      } else {
        copy(1);
      }
    }
    return std::move(out_);
  }

 private:
  static constexpr std::string_view kSpace = "\\p{White_Space}";
  static constexpr std::string_view kWord = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
  // Outside of a class, Oniguruma looks characters below U+0100 up in a table that has these, too.
  static constexpr std::string_view kMoreWord = "\\xb2\\xb3\\xb9\\xbc-\\xbe";

  [[noreturn]] void refuse(std::string_view what) const {
    fail("the regular expression `", pattern_, "` uses ", what, " at position ", pos_,
         ", which is not supported");
  }

  void escape(bool in_class) {
    const char c = peek(1);
    if (c == '\0') refuse("a trailing backslash");
    if (!is_letter(c) && !is_digit(c)) return copy(2);
    switch (c) {
      case 'n':
      case 'r':
      case 't':
      case 'f':
      case 'a':
      case 'e':
      case 'd':
      case 'D':
      case 'x':
        return copy(2);
      case 'v':  // a vertical tab there, any vertical space here
        return replace(2, "\\x0b");
      case 's':
        return replace(2, kSpace);
      case 'S':
        return replace(2, "\\P{White_Space}");
      case 'w':
        return in_class ? replace(2, kWord) : replace(2, concat('[', kWord, kMoreWord, ']'));
      case 'W':
        if (in_class) refuse("`\\W` inside a class");
        return replace(2, concat("[^", kWord, kMoreWord, ']'));
      case 'u':
        for (size_t i = 2; i < 6; ++i) {
          if (!is_hex_digit(peek(i))) refuse("an incomplete `\\u`");
        }
        return replace(6, concat("\\x{", pattern_.substr(pos_ + 2, 4), '}'));
      case 'p':
      case 'P':
        return property();
      case 'A':
      case 'z':
      case 'Z':
        if (!in_class) return copy(2);
        break;
      default:
        if (is_digit(c) && !in_class) return copy(2);
    }
    refuse(concat("`\\", c, in_class ? "` inside a class" : "`"));
  }

  // \p{L}, \p{^L}, \p{Letter}, \p{Han}. A bare script name means Script_Extensions in PCRE2.
  void property() {
    const size_t close = pattern_.find('}', pos_);
    if (peek(2) != '{' || close == std::string_view::npos) refuse("a property without braces");
    std::string_view name = pattern_.substr(pos_ + 3, close - pos_ - 3);
    bool negated = peek(1) == 'P';
    if (!name.empty() && name.front() == '^') {
      negated = !negated;
      name.remove_prefix(1);
    }
    constexpr std::pair<std::string_view, std::string_view> kLongNames[] = {
        {"Letter", "L"},
        {"Mark", "M"},
        {"Number", "N"},
        {"Symbol", "S"},
        {"Separator", "Z"},
        {"Punctuation", "P"},
        {"Other", "C"},
        {"Alphabetic", "Alphabetic"},
        {"White_Space", "White_Space"}};
    std::string spelled = name.size() <= 2 ? std::string(name) : concat("sc:", name);
    for (const auto& [full, brief] : kLongNames) {
      if (name == full) spelled = brief;
    }
    replace(close + 1 - pos_, concat(negated ? "\\P{" : "\\p{", spelled, '}'));
  }

  void character_class() {
    copy(1);
    if (peek(0) == '^') copy(1);
    if (peek(0) == ']') refuse("an empty class");
    while (peek(0) != ']') {
      if (at_end()) refuse("an unclosed class");
      if (peek(0) == '[') refuse("a class inside a class");
      if (peek(0) == '&' && peek(1) == '&') refuse("a class intersection");
      peek(0) == '\\' ? escape(true) : copy(1);
    }
    copy(1);
  }

  void group() {
    if (peek(1) == '*') refuse("`(*`");
    if (peek(1) != '?') return copy(1);
    for (const std::string_view kind :
         {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:", "(?i)"}) {
      if (looking_at(kind)) return copy(kind.size());
    }
    refuse(concat('`', pattern_.substr(pos_, 3), '`'));
  }
};

// What one thread needs to match: room for the offsets of a match and a stack for compiled code.
struct Scratch {
  Scratch() {
    check(match && context && stack, "out of memory for regular expressions");
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    pcre2_match_data_free(match);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
  pcre2_match_data* match = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 << 10, 4 << 20, nullptr);
};

}  // namespace

struct Regex::Compiled {
  pcre2_code* code = nullptr;
  bool jit = false;

  Compiled() = default;
  Compiled(const Compiled&) = delete;
  Compiled& operator=(const Compiled&) = delete;
  ~Compiled() { pcre2_code_free(code); }
};

Regex::Regex(std::string_view pattern) : pattern_(pattern), compiled_(new Compiled) {
  check_pattern(pattern);
  const std::string translated = Translator(pattern).run();
  const std::unique_ptr<pcre2_compile_context, void (*)(pcre2_compile_context*)> context(
      pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  compiled_->code = compile_pattern(pattern, translated, PCRE2_MULTILINE, context.get());
  compiled_->jit = pcre2_jit_compile(compiled_->code, PCRE2_JIT_COMPLETE) == 0;
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

RegexScan::RegexScan(const Regex& regex, std::string_view text) : regex_(regex), text_(text) {
  for (size_t pos = 0; pos < text.size();) {
    if (static_cast<unsigned char>(text[pos]) < 0xE0) {  // all newer characters have three bytes
      ++pos;
      continue;
    }
    const size_t start = pos;
    const char32_t code_point = utf8_next(text, pos);
    const char32_t substitute = stand_in(code_point);
    if (substitute == code_point) continue;
    if (replaced_.empty()) replaced_ = text;
    std::string bytes;
    utf8_append(bytes, substitute);
    replaced_.replace(start, pos - start, bytes);
  }
  if (!replaced_.empty()) text_ = replaced_;
}

bool RegexScan::next(size_t& begin, size_t& end) {
  thread_local Scratch scratch;
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text_.data());
  while (position_ <= text_.size()) {
    const auto match = regex_.compiled_->jit ? pcre2_jit_match : pcre2_match;
    const int result = match(regex_.compiled_->code, subject, text_.size(), position_,
                             PCRE2_NO_UTF_CHECK, scratch.match, scratch.context);
    if (result == PCRE2_ERROR_NOMATCH) return false;
    check(result >= 0, "the regular expression `", regex_.pattern(),
          "` failed: ", pcre2_message(result));
    const size_t* offsets = pcre2_get_ovector_pointer(scratch.match);
    begin = offsets[0];
    end = offsets[1];
    if (begin == end && end == last_end_) {  // step over one character
      position_ = end;
      position_ += position_ < text_.size() ? utf8_step(text_.substr(position_)).length : 1;
      continue;
    }
    position_ = last_end_ = end;
    return true;
  }
  return false;
}

}  // namespace binade::data
