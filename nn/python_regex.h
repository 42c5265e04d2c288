// INTERNAL. Regular expressions as Python's `re` reads them, which PEFT's files name layers with.
// They run on PCRE2; a construct that PCRE2 reads differently is translated or refused by name.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace binade::nn {

class PythonRegex {
 public:
  // Throws Error when the pattern is malformed or has a construct that is not supported.
  explicit PythonRegex(const std::string& pattern);

  bool full_match(std::string_view text) const;  // re.fullmatch
  // re.match: from the start of the text, to any end. The text of the named group where it matched.
  bool match(std::string_view text) const;
  std::optional<std::string> match_group(std::string_view text, const std::string& group) const;

 private:
  bool run(std::string_view text, unsigned options, void* match_data) const;

  std::string pattern_;
  std::shared_ptr<void> code_;
};

}  // namespace binade::nn
