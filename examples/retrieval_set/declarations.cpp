#include "declarations.h"

#include <algorithm>

#include <binade/core/text.h>

namespace binade::examples {

namespace {

constexpr size_t kLongestSignature = 600;  // bytes

bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}
bool in_name(char c) {
  return is_letter(c) || is_digit(c) || c == '_';
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (is_blank(text.front()) || text.front() == '\n')) text.remove_prefix(1);
  while (!text.empty() && (is_blank(text.back()) || text.back() == '\n')) text.remove_suffix(1);
  return text;
}

// Takes the marks at the ends of a comment's line away: slashes, stars, an exclamation mark.
std::string_view without_marks(std::string_view line) {
  const auto is_mark = [](char c) { return c == '/' || c == '*' || c == '!' || is_blank(c); };
  while (!line.empty() && is_mark(line.front())) line.remove_prefix(1);
  while (!line.empty() && is_mark(line.back())) line.remove_suffix(1);
  return line;
}

// Identifiers of a declaration, and single characters of punctuation.
std::vector<std::string_view> tokens_of(std::string_view text) {
  std::vector<std::string_view> tokens;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    while (at < text.size() && in_name(text[at])) ++at;
    if (at == begin) ++at;
    if (!is_blank(text[begin]) && text[begin] != '\n')
      tokens.push_back(text.substr(begin, at - begin));
  }
  return tokens;
}

bool is_one_of(std::string_view token, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), token) != words.end();
}

// The last identifier in front of tokens[end], or nothing.
std::string_view last_name(const std::vector<std::string_view>& tokens, size_t end) {
  while (end > 0) {
    const std::string_view token = tokens[--end];
    if ((is_letter(token[0]) || token[0] == '_') && token != "final") return token;
  }
  return {};
}

// Index behind the bracket that closes the one at tokens[at].
size_t behind_brackets(const std::vector<std::string_view>& tokens, size_t at) {
  const std::string_view open = tokens[at], close = open == "(" ? ")" : open == "[" ? "]" : ">";
  int depth = 0;
  for (; at < tokens.size(); ++at) {
    if (tokens[at] == open) ++depth;
    if (tokens[at] == close && --depth == 0) return at + 1;
  }
  return at;
}

// Fills in name and kind from the signature; the name stays empty where none is found.
void find_name(Declaration& declaration) {
  const std::vector<std::string_view> all = tokens_of(declaration.signature);
  if (all.size() > 2 && all[0] == "#") {
    declaration.kind = Declaration::Kind::macro;
    declaration.name = all[2];
    return;
  }
  // What stands around a declaration and has brackets of its own is left out.
  std::vector<std::string_view> tokens;
  for (size_t i = 0; i < all.size();) {
    const bool bracket = i + 1 < all.size() && (all[i + 1] == "(" || all[i + 1] == "<");
    if (bracket && is_one_of(all[i], {"template", "__attribute__", "__declspec", "alignas",
                                      "decltype", "requires", "explicit", "noexcept"})) {
      i = behind_brackets(all, i + 1);
    } else if (all[i] == "[" || all[i] == "<") {  // attributes, sizes, arguments of templates
      i = behind_brackets(all, i);
    } else {
      tokens.push_back(all[i++]);
    }
  }
  if (std::find(tokens.begin(), tokens.end(), "operator") != tokens.end() || tokens.empty()) return;
  const auto first = [&](std::initializer_list<std::string_view> what) {
    return static_cast<size_t>(
        std::find_if(tokens.begin(), tokens.end(),
                     [&](std::string_view token) { return is_one_of(token, what); }) -
        tokens.begin());
  };
  const bool is_typedef = is_one_of(tokens[0], {"typedef", "using"});
  const size_t parameters = first({"("});
  if (is_typedef || (parameters == tokens.size() &&
                     first({"class", "struct", "enum", "union"}) < tokens.size())) {
    declaration.kind = Declaration::Kind::type;
    // typedef int (*name)(int), typedef struct a name, using name = a, class name : base
    if (is_typedef && parameters + 2 < tokens.size() && tokens[parameters + 1] == "*")
      declaration.name = tokens[parameters + 2];
    else
      declaration.name = last_name(tokens, first({"=", ":", "("}));
    return;
  }
  if (parameters < tokens.size()) declaration.kind = Declaration::Kind::function;
  declaration.name = last_name(tokens, std::min(parameters, first({"=", ":"})));
}

// Goes through a header line by line.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  std::vector<Declaration> take() {
    std::string comment;
    while (at_ < text_.size()) {
      const std::string_view line = trimmed(text_.substr(at_, line_end(at_) - at_));
      if (line.starts_with("//")) {
        comment += concat_line(line);
        next_line(line_end(at_));
      } else if (line.starts_with("/*")) {
        comment.clear();  // the last comment is the declaration's
        if (!read_block(comment)) comment.clear();
      } else {
        const int64_t line_number = line_;
        const bool documented = !comment.empty() && !line.empty();
        if (documented) add(comment, line_number);
        comment.clear();
        skip_line();
      }
    }
    return std::move(found_);
  }

 private:
  size_t line_end(size_t from) const { return std::min(text_.find('\n', from), text_.size()); }

  // Goes on behind the end of the line that has text_[last].
  void next_line(size_t last) {
    const size_t end = line_end(last);
    line_ += std::count(text_.begin() + static_cast<int64_t>(at_),
                        text_.begin() + static_cast<int64_t>(end), '\n') +
             1;
    at_ = end + 1;
  }

  static std::string concat_line(std::string_view line) {
    return std::string(without_marks(line)) + '\n';
  }

  // Reads a block comment; false if something stands behind it on its last line.
  bool read_block(std::string& comment) {
    const size_t begin = text_.find("/*", at_);
    const size_t end = std::min(text_.find("*/", begin + 2), text_.size());
    for (size_t at = begin; at < end; at = line_end(at) + 1)
      comment += concat_line(text_.substr(at, std::min(line_end(at), end) - at));
    const size_t behind = std::min(end + 2, text_.size());
    const bool alone = trimmed(text_.substr(behind, line_end(behind) - behind)).empty();
    next_line(behind);
    return alone;
  }

  // Goes to the next line; a block comment that begins on this one is passed over.
  void skip_line() {
    const size_t end = line_end(at_);
    const std::string_view line = text_.substr(at_, end - at_);
    const size_t open = line.find("/*"), slashes = line.find("//");
    if (open == line.npos || slashes < open || line.find("*/", open + 2) != line.npos)
      return next_line(end);
    next_line(std::min(text_.find("*/", at_ + open + 2), text_.size()));
  }

  // The declaration that begins at at_, if it is one.
  void add(const std::string& comment, int64_t line) {
    Declaration found{.comment = comment, .signature = signature(), .line = line};
    const std::string_view text = found.signature;
    if (text.empty() || text[0] == '}' || text[0] == '{') return;
    if (const auto tokens = tokens_of(text);
        text[0] == '#' && (tokens.size() < 3 || tokens[1] != "define"))
      return;
    const std::string_view head = text.substr(0, text.find_first_of(" (:"));
    if (is_one_of(head, {"namespace", "public", "private", "protected", "friend", "return", "if",
                         "for", "while", "switch", "case"}))
      return;
    if (text.starts_with("extern \"C") || text.starts_with("using namespace")) return;
    find_name(found);
    if (!found.name.empty()) found_.push_back(std::move(found));
  }

  // Whether the `<` at the start of `rest` is a bracket and no operator.
  static bool opens_arguments(std::string_view before, std::string_view rest) {
    const bool behind_name = !before.empty() && in_name(before.back());
    return before.ends_with("template ") || (behind_name && !rest.starts_with("<<"));
  }

  // From at_ to the body or the end of a declaration, with comments left out.
  std::string signature() const {
    std::string out;
    int depth = 0;
    const bool macro = text_[text_.find_first_not_of(" \t", at_)] == '#';
    for (size_t at = at_; at < text_.size() && out.size() < kLongestSignature; ++at) {
      const std::string_view rest = text_.substr(at);
      if (rest.starts_with("/*")) {
        const size_t end = text_.find("*/", at + 2);
        if (end == text_.npos) break;
        at = end + 1;
        out += ' ';
        continue;
      }
      if (rest.starts_with("//")) {
        at = line_end(at) - 1;
        continue;
      }
      const char c = text_[at];
      if (macro && c == '\n') break;
      if (!macro && depth == 0 && (c == ';' || c == '{' || c == '}' || c == ',')) break;
      if (c == '(' || c == '[' || (c == '<' && opens_arguments(out, rest))) ++depth;
      if (c == ')' || c == ']' || (c == '>' && !out.ends_with('-'))) depth = std::max(0, depth - 1);
      const bool blank = is_blank(c) || c == '\n';
      if (!blank || !out.ends_with(' ')) out += blank ? ' ' : c;
    }
    return std::string(trimmed(out));
  }

  std::string_view text_;
  size_t at_ = 0;
  int64_t line_ = 1;
  std::vector<Declaration> found_;
};

}  // namespace

std::vector<Declaration> find_declarations(std::string_view text) {
  return Scanner(text).take();
}

}  // namespace binade::examples
