// UTF-8 one sequence at a time: what tokenizers and streaming decoders need. Well-formedness is
// Unicode's (Table 3-7): no surrogates, no overlong forms, nothing above U+10FFFF.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace binade {

// One step of a scan. A malformed step covers the maximal subpart that Unicode recommends to
// replace by a single U+FFFD.
struct Utf8Step {
  int length = 0;           // bytes covered, at least 1 unless the text is empty
  bool valid = false;       // a whole well-formed sequence
  bool truncated = false;   // malformed only because the text ends too early
  char32_t code_point = 0;  // meaningful when valid
};
Utf8Step utf8_step(std::string_view text);

// Bytes of the longest well-formed prefix.
size_t utf8_valid_prefix(std::string_view text);

// The text with every malformed part replaced by U+FFFD.
std::string utf8_replace_invalid(std::string_view text);

// Decodes the sequence at `pos` of well-formed text and moves `pos` past it.
char32_t utf8_next(std::string_view text, size_t& pos);

void utf8_append(std::string& out, char32_t code_point);

inline constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";  // may begin a file: U+FEFF
inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace binade
