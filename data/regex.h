// INTERNAL. The regular expressions of tokenizer.json. They are written for Oniguruma (Ruby
// syntax), which Hugging Face's `tokenizers` uses; they run here on PCRE2, compiled to machine
// code. What the two read differently (\s, \w, \v, scripts, newer characters) is translated, and a
// pattern with a construct whose meaning differs otherwise is refused by name.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace binade::data {

class Regex {
 public:
  // Error when the pattern is malformed or uses a construct that has no equal in PCRE2.
  explicit Regex(std::string_view pattern);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  const std::string& pattern() const { return pattern_; }

 private:
  friend class RegexScan;
  struct Compiled;
  std::string pattern_;
  std::unique_ptr<Compiled> compiled_;
};

// The successive matches in a text, which must be well-formed UTF-8 and outlive the scan. An empty
// match right behind the match before it is passed over.
class RegexScan {
 public:
  RegexScan(const Regex& regex, std::string_view text);
  RegexScan(const RegexScan&) = delete;
  RegexScan& operator=(const RegexScan&) = delete;

  // Finds the next match [begin, end); false when there is none. Error when the pattern needs more
  // steps than the matcher allows.
  bool next(size_t& begin, size_t& end);

 private:
  const Regex& regex_;
  std::string replaced_;  // the text with stand-ins, if it needs any; same byte offsets
  std::string_view text_;
  size_t position_ = 0;
  size_t last_end_ = std::string_view::npos;
};

}  // namespace binade::data
