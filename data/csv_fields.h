// INTERNAL. The fields of a line of CSV or TSV, for the readers of such files.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace binade::data {

// Without the spaces and quotes around it.
inline std::string unquoted(std::string_view field) {
  const auto outside = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '"'; };
  while (!field.empty() && outside(field.front())) field.remove_prefix(1);
  while (!field.empty() && outside(field.back())) field.remove_suffix(1);
  return std::string(field);
}

// A field may stand in quotes, but must not contain the delimiter.
inline std::vector<std::string> fields_of(std::string_view line, char delimiter) {
  std::vector<std::string> fields;
  while (true) {
    const size_t end = std::min(line.find(delimiter), line.size());
    fields.push_back(unquoted(line.substr(0, end)));
    if (end == line.size()) return fields;
    line.remove_prefix(end + 1);
  }
}

// The first of tab, comma and semicolon that the line has, or NUL.
inline char delimiter_of(std::string_view line) {
  for (const char candidate : {'\t', ',', ';'})
    if (line.find(candidate) != std::string_view::npos) return candidate;
  return '\0';
}

}  // namespace binade::data
