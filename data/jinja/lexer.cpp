#include <binade/core/error.h>
#include <binade/core/text.h>
#include <binade/core/utf8.h>
#include <binade/data/jinja/lexer.h>
#include <binade/data/jinja/text.h>

#include <algorithm>

namespace binade::data::jinja {
namespace {

// "\n" for every line end, none at the very end.
std::string normalize_newlines(std::string_view source) {
  std::string out;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  Lexer(std::string_view source, std::string_view name)
      : source_(normalize_newlines(source)), name_(name) {}

  std::vector<Token> run() {
    while (pos_ < source_.size()) {
      const size_t tag = next_tag();
      if (tag == std::string::npos) {
        add_text(source_.substr(pos_));
        break;
      }
      const char kind = source_[tag + 1];
      add_text(before_tag(pos_, tag, tag + 2, kind != '{'));
      move_to(tag + 2);
      if (at() == '-' || at() == '+') move_to(pos_ + 1);
      if (kind == '#') {
        const size_t end = source_.find("#}", pos_);
        if (end == std::string::npos) refuse("the comment is not closed");
        move_to(end);
        close("#}", source_[end - 1], true);
      } else if (kind == '{') {
        tag_body(TokenKind::output_begin, "}}", TokenKind::output_end);
      } else if (!raw_block()) {
        tag_body(TokenKind::statement_begin, "%}", TokenKind::statement_end);
      }
    }
    add(TokenKind::end, "");
    return std::move(tokens_);
  }

 private:
  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    fail(name_, ":", line_, ": ", parts...);
  }
  char at(size_t offset = 0) const {
    return pos_ + offset < source_.size() ? source_[pos_ + offset] : '\0';
  }
  bool follows(std::string_view text) const {
    return source_.compare(pos_, text.size(), text) == 0;
  }
  void move_to(size_t pos) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<int64_t>(pos_),
                                         source_.begin() + static_cast<int64_t>(pos), '\n'));
    pos_ = pos;
  }
  void add(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
  void add_text(std::string text) {
    if (!text.empty()) add(TokenKind::text, std::move(text));
  }

  size_t next_tag() const {
    for (size_t i = pos_; i + 1 < source_.size(); ++i) {
      const char next = source_[i + 1];
      if (source_[i] == '{' && (next == '{' || next == '%' || next == '#')) return i;
    }
    return std::string::npos;
  }

  // The text in front of a tag; `sign` is where a + or - would stand.
  std::string before_tag(size_t begin, size_t tag, size_t sign, bool is_block) const {
    const std::string_view text = std::string_view(source_).substr(begin, tag - begin);
    const char control = sign < source_.size() ? source_[sign] : '\0';
    if (control == '-') return std::string(strip(text, false, true));
    if (control == '+' || !is_block) return std::string(text);
    const size_t line = text.rfind('\n') + 1;  // 0 if there is none
    const bool at_start = line > 0 || begin == 0 || source_[begin - 1] == '\n';
    const bool blank = strip(text.substr(line), true, false).empty();
    return std::string(at_start && blank ? text.substr(0, line) : text);
  }

  void skip_space() {
    const std::string_view rest = std::string_view(source_).substr(pos_);
    move_to(pos_ + rest.size() - strip(rest, true, false).size());
  }

  // Behind the end of a tag, whose sign stands in front of it.
  void close(std::string_view end, char sign, bool trim_newline) {
    move_to(pos_ + end.size());
    if (sign == '-') {
      skip_space();
    } else if (sign != '+' && trim_newline && at() == '\n') {
      move_to(pos_ + 1);
    }
  }

  // {% raw %} … {% endraw %}, if it stands here.
  bool raw_block() {
    const size_t begin = pos_;
    const int line = line_;
    skip_space();
    bool raw = follows("raw");
    if (raw) {
      move_to(pos_ + 3);
      skip_space();
      raw = follows("%}") || follows("-%}");
    }
    if (!raw) {
      pos_ = begin;
      line_ = line;
      return false;
    }
    const char sign = at();
    if (sign == '-') move_to(pos_ + 1);
    close("%}", sign, false);
    const size_t content = pos_;
    for (size_t tag = pos_; (tag = source_.find("{%", tag)) != std::string::npos; tag += 2) {
      move_to(tag + 2);
      if (at() == '-' || at() == '+') move_to(pos_ + 1);
      skip_space();
      if (!follows("endraw")) continue;
      move_to(pos_ + 6);
      skip_space();
      const char end_sign = at();
      if (end_sign == '-' || end_sign == '+') move_to(pos_ + 1);
      if (!follows("%}")) continue;
      add_text(before_tag(content, tag, tag + 2, true));
      close("%}", end_sign, true);
      return true;
    }
    refuse("raw is not closed by endraw");
  }

  void tag_body(TokenKind begin, std::string_view end_mark, TokenKind end) {
    add(begin, "");
    std::string brackets;
    while (true) {
      skip_space();
      if (pos_ == source_.size()) refuse("the tag is not closed by ", end_mark);
      if (brackets.empty()) {
        const bool signed_end = (at() == '-' || (at() == '+' && end_mark == "%}")) &&
                                at(1) == end_mark[0] && at(2) == end_mark[1];
        if (signed_end || follows(end_mark)) {
          const char sign = signed_end ? at() : '\0';
          add(end, "");
          if (signed_end) move_to(pos_ + 1);
          close(end_mark, sign, end_mark == "%}");
          return;
        }
      }
      token(brackets);
    }
  }

  void token(std::string& brackets) {
    const char c = at();
    size_t end = pos_ + 1;
    if (is_digit(c)) return number();
    if (c == '"' || c == '\'') return string();
    if (is_letter(c) || c == '_') {
      while (end < source_.size() &&
             (is_letter(source_[end]) || is_digit(source_[end]) || source_[end] == '_'))
        ++end;
      add(TokenKind::name, source_.substr(pos_, end - pos_));
      return move_to(end);
    }
    constexpr std::string_view kPairs[] = {"//", "**", "==", "!=", ">=", "<="};
    for (const std::string_view pair : kPairs) {
      if (follows(pair)) end = pos_ + 2;
    }
    if (end == pos_ + 1 &&
        std::string_view("+-/*%~[](){}><=.:|,;").find(c) == std::string_view::npos) {
      refuse("unexpected character '", utf8_replace_invalid(source_.substr(pos_, 1)), "'");
    }
    if (end == pos_ + 1 && (c == '(' || c == '[' || c == '{')) {
      brackets += c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (end == pos_ + 1 && (c == ')' || c == ']' || c == '}')) {
      if (!brackets.ends_with(c)) refuse("unexpected '", c, "'");
      brackets.pop_back();
    }
    add(TokenKind::symbol, source_.substr(pos_, end - pos_));
    move_to(end);
  }

  void number() {
    size_t end = pos_;
    std::string digits;
    const auto take = [&] {
      while (end < source_.size() &&
             (is_digit(source_[end]) ||
              (source_[end] == '_' && end + 1 < source_.size() && is_digit(source_[end + 1])))) {
        if (source_[end] != '_') digits += source_[end];
        ++end;
      }
    };
    const auto digit_at = [&](size_t i) { return i < source_.size() && is_digit(source_[i]); };
    take();
    bool floating = false;
    const bool member = pos_ > 0 && source_[pos_ - 1] == '.';  // x.0.1
    if (!member && end < source_.size() && source_[end] == '.' && digit_at(end + 1)) {
      floating = true;
      digits += source_[end++];
      take();
    }
    if (!member && end < source_.size() && (source_[end] | 32) == 'e') {
      const bool sign =
          end + 1 < source_.size() && (source_[end + 1] == '+' || source_[end + 1] == '-');
      if (digit_at(end + 1 + sign)) {
        floating = true;
        digits += 'e';
        if (source_[end + 1] == '-') digits += '-';
        end += 1 + sign;
        take();
      }
    }
    if (!floating && digits.size() > 1 && digits[0] == '0' &&
        digits.find_first_not_of('0') != std::string::npos) {
      refuse("the number ", digits, " begins with 0");
    }
    if (end < source_.size() && (is_letter(source_[end]) || source_[end] == '_')) {
      refuse("a number cannot be followed by '", source_[end], "'");
    }
    add(floating ? TokenKind::floating : TokenKind::integer, digits);
    move_to(end);
  }

  void string() {
    const char mark = at();
    std::string text;
    size_t end = pos_ + 1;
    for (; end < source_.size() && source_[end] != mark; ++end) {
      if (source_[end] != '\\') {
        text += source_[end];
        continue;
      }
      if (++end == source_.size()) break;
      escape(text, end);
    }
    if (end >= source_.size()) refuse("the string is not closed");
    add(TokenKind::string, std::move(text));
    move_to(end + 1);
  }

  // `end` stands at the character behind the backslash, and at the last one used afterwards.
  void escape(std::string& text, size_t& end) const {
    constexpr std::string_view kNames = "\\'\"abfnrtv";
    constexpr std::string_view kMeanings = "\\'\"\a\b\f\n\r\t\v";
    const char c = source_[end];
    if (c == '\n') return;
    if (const size_t known = kNames.find(c); known != std::string_view::npos) {
      text += kMeanings[known];
      return;
    }
    uint32_t value = 0;
    if (c >= '0' && c <= '7') {
      size_t last = end;
      while (last < source_.size() && last < end + 3 && source_[last] >= '0' &&
             source_[last] <= '7') {
        value = value * 8 + static_cast<uint32_t>(source_[last++] - '0');
      }
      end = last - 1;
    } else if (c == 'x' || c == 'u' || c == 'U') {
      const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
      for (size_t i = 0; i < digits; ++i) {
        const char digit = ++end < source_.size() ? source_[end] : '\0';
        if (!is_hex_digit(digit)) refuse("\\", c, " needs ", digits, " hexadecimal digits");
        value = value << 4 |
                static_cast<uint32_t>(is_digit(digit) ? digit - '0' : (digit | 32) - 'a' + 10);
      }
    } else if (c == 'N') {
      refuse("\\N in a string is not supported");
    } else {
      text += '\\';
      text += c;
      return;
    }
    if (value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) {
      refuse("a string names something that is not a Unicode character");
    }
    utf8_append(text, value);
  }

  std::string source_;
  std::string_view name_;
  size_t pos_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source, std::string_view name) {
  const size_t valid = utf8_valid_prefix(source);
  check(valid == source.size(), name, ": not valid UTF-8 at byte ", valid);
  return Lexer(source, name).run();
}

}  // namespace binade::data::jinja
