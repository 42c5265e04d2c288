// Declarations of C and C++ headers that have a comment directly in front of them. Headers are read
// as text, without a preprocessor: what looks odd is passed over, never an error.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace binade::examples {

struct Declaration {
  enum class Kind : uint8_t { macro, type, function, other };

  std::string comment;    // without the marks of comments
  std::string name;       // what is declared
  std::string signature;  // up to its body, without comments; of a macro: its first line
  int64_t line = 0;       // from 1
  Kind kind = Kind::other;
};

// In the order of the text. A comment counts if nothing else stands on its lines and the
// declaration begins on the next line.
std::vector<Declaration> find_declarations(std::string_view text);

}  // namespace binade::examples
