// Small text helpers. Whatever they read or write is the same under every locale of the program.
#pragma once

#include <cstdint>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace binade {

// For JSON from outside, before it is parsed: throws Error naming `source` if arrays and objects
// nest more than 64 levels deep, as printing a value of it recurses, or if there is a NUL, at which
// the parser would stop and take what came before. Says nothing about other errors.
void check_json_text(std::string_view text, std::string_view source);

// Text from outside (a path, a name, a message of the system) made fit for errors, logs and JSON:
// each byte that belongs to no well-formed UTF-8 is shown as `\xE9`, the rest is unchanged.
std::string valid_utf8(std::string_view text);

// The same for the content or an attribute of an XML element: what is markup is escaped, characters
// that XML 1.0 forbids become U+FFFD.
std::string xml_text(std::string_view text);

// A stream whose numbers have a decimal point and no grouping, whatever the program's locale. Use
// it wherever a number becomes text.
class TextStream : public std::ostringstream {
 public:
  TextStream();
};

// The shortest text from which parse_number() gives the same value: "0.1", "1e-05", "inf", "nan".
std::string exact_number(double value);

// The number that `text` is from end to end ("1024", "-1.5e3", "inf", "nan"), or nothing. The
// decimal separator is a point; neither spaces nor a leading + are understood.
std::optional<double> parse_number(std::string_view text);

// Of ASCII, unlike the functions of <cctype>, which ask the locale.
constexpr bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
constexpr bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
constexpr bool is_hex_digit(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

// A size in memory as people read it: "1.50 GiB".
std::string gib(int64_t bytes);

// Levenshtein distance: insertions, deletions and substitutions.
int edit_distance(std::string_view a, std::string_view b);

// "; did you mean X?" for the nearest of `candidates`, or nothing if none is near.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace binade
