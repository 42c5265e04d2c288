// INTERNAL. The tokens of a chat template.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace binade::data::jinja {

enum class TokenKind : uint8_t {
  text,             // outside of tags, white space already removed as the tags say
  output_begin,     // {{
  output_end,       // }}
  statement_begin,  // {%
  statement_end,    // %}
  name,
  string,  // unescaped
  integer,
  floating,
  symbol,  // an operator or a bracket
  end,
};
struct Token {
  TokenKind kind;
  std::string text;
  int line;  // from 1
};

// Splits a template as Jinja2 does with trim_blocks and lstrip_blocks set. Comments and the tags of
// `raw` are gone. Error, with `name` and the line, for what is no token or is not closed.
std::vector<Token> tokenize(std::string_view source, std::string_view name);

}  // namespace binade::data::jinja
