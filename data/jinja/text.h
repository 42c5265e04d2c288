// INTERNAL. Python's str, as far as chat templates use it: characters are code points of UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace binade::data::jinja {

std::vector<std::string_view> characters(std::string_view text);
size_t count_characters(std::string_view text);
bool is_space(char32_t c);      // str.isspace()
bool is_printable(char32_t c);  // str.isprintable()

// White space if `set` is null, else the characters of *set.
std::string_view strip(std::string_view text, bool left, bool right,
                       const std::string* set = nullptr);

// The mappings of str.upper() and so on. Error for a character whose upper case is several
// characters, but for U+00DF.
std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string capitalize(std::string_view text);
// A capital behind everything that is not a cased letter: str.title().
std::string title(std::string_view text);

// At white space; at most `limit` cuts if it is not negative.
std::vector<std::string> split(std::string_view text, int64_t limit, bool from_right);
std::vector<std::string> split(std::string_view text, std::string_view separator, int64_t limit,
                               bool from_right);
std::vector<std::string> split_lines(std::string_view text, bool keep_ends = false);
std::string replace(std::string_view text, std::string_view old, std::string_view with,
                    int64_t limit);

}  // namespace binade::data::jinja
