// INTERNAL. Character properties as Hugging Face's `tokenizers` 0.23 sees them (Unicode 16), on top
// of utf8proc (Unicode 15) and a table of what that lacks; scripts/unicode_tables.py writes the
// table.
#pragma once

#include <string>

namespace binade::data {

// A code point that Unicode 14 already had, of the same general category and UTF-8 length; code
// points that are not newer stand for themselves. Lets an older regular-expression library classify
// characters that it does not know.
char32_t stand_in(char32_t code_point);

bool is_letter(char32_t code_point);       // \p{L}
bool is_mark(char32_t code_point);         // \p{M}
bool is_numeric(char32_t code_point);      // \p{N}, of Unicode 17 (as Digits has it)
bool is_white_space(char32_t code_point);  // property White_Space
bool is_word(char32_t code_point);         // \w of UTS #18: Alphabetic, M, Nd, Pc, Join_Control

// The normaliser of `tokenizers` is older: whether it knows the code point (it leaves younger ones
// alone), and what it takes for a mark.
bool is_normalizable(char32_t code_point);
bool is_mark_to_normalizer(char32_t code_point);

// Appends the full lower-case mapping without context (Greek final sigma is not special).
void append_lower_case(std::string& out, char32_t code_point);

}  // namespace binade::data
